"""VLAE with a VampPrior that an autoregressive flow warps.

python train.py --config=configs/vamp_vlae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_vlae(dataset)
    config.prior = "vamp_autoregressive_flow"
    return config
