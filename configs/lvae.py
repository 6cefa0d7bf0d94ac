"""Ladder VAE of five layers with the standard normal prior at the top.

python train.py --config=configs/lvae.py[:DATASET]

No full run is recorded yet.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_ladder(dataset)
    config.prior = "standard"
    return config
