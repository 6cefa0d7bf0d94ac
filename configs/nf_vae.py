"""VAE with planar flows in its posterior and the standard normal prior.

python train.py --config=configs/nf_vae.py[:DATASET]

RESULT_nf_vae
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "standard"
    config.posterior = "planar"
    config.num_flows = 10
    return config
