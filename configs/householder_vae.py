"""VAE with Householder flows in its posterior, of full covariance, and the standard normal prior.

python train.py --config=configs/householder_vae.py[:DATASET]

On the digits -22.66 +- 0.15 nats (seed 0, S = 5000), two minutes on one busy core.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "standard"
    config.posterior = "householder"
    return config
