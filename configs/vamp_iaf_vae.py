"""VAE with inverse autoregressive flows in its posterior and the VampPrior.

python train.py --config=configs/vamp_iaf_vae.py[:DATASET]

RESULT_vamp_iaf_vae
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "vamp"
    config.posterior = "iaf"
    return config
