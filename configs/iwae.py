"""IWAE: Burda et al.'s two layers, 50 samples, and the standard normal prior.

python train.py --config=configs/iwae.py[:DATASET]

No full run is recorded yet.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_burda(dataset)
    config.prior = "standard"
    return config
