"""IWAE: Burda et al.'s two layers, 50 samples, and the VampPrior.

python train.py --config=configs/vamp_iwae.py[:DATASET]

No full run is recorded yet.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_burda(dataset)
    config.prior = "vamp"
    return config
