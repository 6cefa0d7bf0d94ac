"""IWAE: Burda et al.'s two layers, 50 samples, and the standard normal prior.

python train.py --config=configs/iwae.py[:DATASET]

On the digits -22.55 +- 0.15 nats (seed 0, S = 5000), three minutes on one busy core. Not Burda et
al.'s schedule: their code trains 3,280 epochs with rates from 1e-3 down to 1e-4, and starts the
output's bias at the mean of the data; here the rate is constant, and training stops early.
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.of_burda(dataset)
    config.prior = "standard"
    return config
