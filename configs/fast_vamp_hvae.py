"""HVAE with the VampPrior in minutes: another way of training, not the paper's.

python train.py --config=configs/fast_vamp_hvae.py[:DATASET]

What comes out, beside the paper's way, is in docs/speed.md.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.in_minutes(dataset)
    config.model = "hvae"
    config.prior = "vamp"
    return config
