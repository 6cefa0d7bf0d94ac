"""ConvHVAE with the standard normal prior.

python train.py --config=configs/conv_hvae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "conv_hvae"
    config.prior = "standard"
    config.eval_batch_size = 100  # activations of convolutions are large
    return config
