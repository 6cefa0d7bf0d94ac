"""IWAE: Burda et al.'s two layers, 50 samples, and the VampPrior.

python train.py --config=configs/vamp_iwae.py[:DATASET]

RESULT_vamp_iwae
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "iwae_net"
    config.prior = "vamp"
    config.num_importance_samples = 50
    config.latent_dim = 50  # 100 below
    config.hidden_dim = 200  # 100 above
    config.dense_init = "glorot"
    config.batch_size = 20
    config.warmup_epochs = 0
    return config
