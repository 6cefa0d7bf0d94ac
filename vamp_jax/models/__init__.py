"""The paper's models; `create` makes the one that a config names."""

import ml_collections

from vamp_jax.datasets import Dataset
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE

MODELS = {"vae": VAE, "hvae": HVAE}


def create(config: ml_collections.ConfigDict, dataset: Dataset):
    """The linen module of `config.model` for images of this data set."""
    return MODELS[config.model](
        image_shape=dataset.shape,
        likelihood=dataset.likelihood,
        latent_dim=config.latent_dim,
        hidden_dim=config.hidden_dim,
    )
