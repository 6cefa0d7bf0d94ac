"""VAE with the VampPrior: K learned pseudo-inputs.

python train.py --config=configs/vamp_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "vamp"
    return config
