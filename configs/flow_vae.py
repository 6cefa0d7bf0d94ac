"""VAE with a flow over N(0, I) as the prior.

python train.py --config=configs/flow_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "flow"
    return config
