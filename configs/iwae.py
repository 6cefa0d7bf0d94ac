"""IWAE: Burda et al.'s two layers, 50 samples, and the standard normal prior.

python train.py --config=configs/iwae.py[:DATASET]

RESULT_iwae
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "iwae_net"
    config.prior = "standard"
    config.num_importance_samples = 50
    config.latent_dim = 50  # 100 below
    config.hidden_dim = 200  # 100 above
    config.dense_init = "glorot"
    config.batch_size = 20
    config.warmup_epochs = 0
    return config
