"""The paper's models; `create` makes the one that a config names."""

import ml_collections

from vamp_jax.datasets import Dataset
from vamp_jax.models.conv_hvae import ConvHVAE
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.pixel_hvae import PixelHVAE
from vamp_jax.models.vae import VAE

MODELS = {"vae": VAE, "hvae": HVAE, "conv_hvae": ConvHVAE, "pixel_hvae": PixelHVAE}
DEVICE_AXIS = "devices"  # the mapped axis of training, over which batch norm sums


def create(config: ml_collections.ConfigDict, dataset: Dataset):
    """The linen module of `config.model` for images of this data set."""
    options = {}
    if config.model == "pixel_hvae":
        options = dict(
            mask_z=config.pixel_mask_z,
            gated_stacks=config.pixel_gated_stacks,
            axis_name=DEVICE_AXIS,
        )
    return MODELS[config.model](
        image_shape=dataset.shape,
        likelihood=dataset.likelihood,
        latent_dim=config.latent_dim,
        hidden_dim=config.hidden_dim,
        **options,
    )
