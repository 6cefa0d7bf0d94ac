"""VAE with the exemplar prior: all training examples are its components.

python train.py --config=configs/exemplar_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "exemplar"
    return config
