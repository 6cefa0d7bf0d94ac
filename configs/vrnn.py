"""VRNN, sequences with a z for every step; standard normal prior on the first of them.

python train.py --config=configs/vrnn.py[:DATASET]

On the chorales -6.72 nats a step by the particle filter (seed 0, N = 500), nine minutes on one busy
core; on Nottingham, see docs/numbers.md.
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_steps(dataset)
    config.prior = "standard"
    return config
