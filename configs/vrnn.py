"""VRNN, sequences with a z for every step; standard normal prior on the first of them.

python train.py --config=configs/vrnn.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_steps(dataset)
    config.prior = "standard"
    return config
