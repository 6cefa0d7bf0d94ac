"""VAE with Householder flows in its posterior, of full covariance, and the standard normal prior.

python train.py --config=configs/householder_vae.py[:DATASET]

RESULT_householder_vae
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "standard"
    config.posterior = "householder"
    return config
