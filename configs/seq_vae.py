"""VAE of sequences with the standard normal prior; by default on the chorales that ship.

python train.py --config=configs/seq_vae.py[:DATASET]

On the chorales two minutes on one busy core, for -8.346 nats a step (three seeds, S = 500);
on Nottingham and text, see docs/numbers.md.
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_sequences(dataset)
    config.prior = "standard"
    return config
