"""A decoder of sequences that does without z: what a sequence VAE has to be better than.

python train.py --config=examples/without_z/config.py:nottingham --workdir=runs/without_z

q(z|x) is the prior, N(0, 1), so that z is noise, the KL is 0 and the bound is ln p(x_1..T) of a
recurrent model of x alone. Without word drop-out, which only takes from it.
"""

from vamp_jax import default_config


def get_config(dataset: str = "jsb_chorales"):
    config = default_config.of_sequences(dataset)
    config.prior = "standard"
    config.posterior = "parts:standard"
    config.latent_dim = 1
    config.word_dropout = 0.0
    return config
