"""VLAE: a PixelCNN that sees a small window, and an autoregressive flow as the prior.

python train.py --config=configs/vlae.py[:DATASET]

Not run so far. MNIST is a GPU's work, left ready:
python train.py --config=configs/vlae.py:static_mnist
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_vlae(dataset)
    config.prior = "autoregressive_flow"
    return config
