"""Ladder VAE of five layers with the VampPrior at the top.

python train.py --config=configs/vamp_lvae.py[:DATASET]

No full run is recorded yet.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_ladder(dataset)
    config.prior = "vamp"
    return config
