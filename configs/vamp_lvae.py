"""Ladder VAE of five layers with the VampPrior at the top.

python train.py --config=configs/vamp_lvae.py[:DATASET]

RESULT_vamp_lvae
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "lvae"
    config.prior = "vamp"
    config.num_layers = 5
    config.latent_dim = 4  # at the top; 64 at the bottom
    config.hidden_dim = 512  # at the bottom; 32 at the top
    config.dense_init = "glorot"
    config.batch_size = 256
    config.warmup_epochs = 200
    return config
