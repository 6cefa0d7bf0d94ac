"""HVAE with a mixture of K free Gaussians as prior.

python train.py --config=configs/mog_hvae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "hvae"
    config.prior = "mog"
    return config
