"""VAE of sequences with the standard normal prior; by default on the chorales that ship.

python train.py --config=configs/seq_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.get_config(dataset)
    config.model = "seq_vae"
    config.prior = "standard"
    config.latent_dim = 32
    config.hidden_dim = 128
    config.batch_size = 20
    config.learning_rate = 3e-3
    config.learning_rate_schedule = "cosine"
    config.num_epochs = 60
    config.warmup_epochs = 20
    config.early_stopping_epochs = 20
    config.eval_batch_size = 100
    config.num_samples = 500
    return config
