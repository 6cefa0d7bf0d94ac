"""VAE with the standard normal prior.

python train.py --config=configs/vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "standard"
    return config
