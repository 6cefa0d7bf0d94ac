"""PixelVAE with the VampPrior: K learned pseudo-inputs.

python train.py --config=configs/vamp_pixel_vae.py[:DATASET]

Not run so far. MNIST is a GPU's work, left ready:
python train.py --config=configs/vamp_pixel_vae.py:static_mnist
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_pixel_vae(dataset)
    config.prior = "vamp"
    return config
