"""VLAE with a VampPrior that an autoregressive flow warps.

python train.py --config=configs/vamp_vlae.py[:DATASET]

Not run so far. MNIST is a GPU's work, left ready:
python train.py --config=configs/vamp_vlae.py:static_mnist
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_vlae(dataset)
    config.prior = "vamp_autoregressive_flow"
    return config
