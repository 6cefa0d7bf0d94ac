"""VAE of sequences with the standard normal prior; by default on the chorales that ship.

python train.py --config=configs/seq_vae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_sequences(dataset)
    config.prior = "standard"
    return config
