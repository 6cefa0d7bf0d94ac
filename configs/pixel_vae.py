"""PixelVAE with the standard normal prior.

python train.py --config=configs/pixel_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_pixel_vae(dataset)
    config.prior = "standard"
    return config
