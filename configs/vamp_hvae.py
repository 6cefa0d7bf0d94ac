"""HVAE with the VampPrior: K learned pseudo-inputs.

python train.py --config=configs/vamp_hvae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "hvae"
    config.prior = "vamp"
    return config
