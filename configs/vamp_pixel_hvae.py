"""PixelHVAE with the VampPrior: K learned pseudo-inputs.

python train.py --config=configs/vamp_pixel_hvae.py[:DATASET]
"""

from vamp_jax import default_config


def get_config(dataset: str = "digits"):
    config = default_config.get_config(dataset)
    config.model = "pixel_hvae"
    config.prior = "vamp"
    config.eval_batch_size = 100  # activations of convolutions are large
    return config
