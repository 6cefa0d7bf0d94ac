"""VRNN with the VampPrior on the first z: K learned pseudo-sequences, begun at training sequences.

python train.py --config=configs/vamp_vrnn.py[:DATASET]

On the chorales -6.75 nats a step by the particle filter (seed 0, N = 500), ten minutes on one busy
core.
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_steps(dataset)
    config.prior = "vamp"
    config.num_components = 20  # a pseudo-sequence costs a step as much as encoding an example
    config.pseudo_input_start = "examples"
    return config
