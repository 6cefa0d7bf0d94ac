"""Every field of a run, with the paper's values (section 5); the other configs override a few.

`vamp_jax/config_fields.py` says of each field what it is, its default and its range. Here is what
depends on the data. Every number that changes a result is saved with the run.
"""

import ml_collections

from vamp_jax import config_fields

# Pseudo-inputs K: 500, but 1000 for OMNIGLOT (section 5.1); the thousand small digits need fewer.
NUM_COMPONENTS = {"omniglot": 1000, "digits": 100}

# The paper tried 5e-4 and 1e-4. On Caltech 101 Silhouettes 1e-4 is better by the validation ELBO
# (the VAE's from the wider weights: -141.69 nats against -151.22).
LEARNING_RATE = {"caltech101_silhouettes": 1e-4}

# Of 40 units in each layer the digits leave z1 without a use (KL 0.00 nats); of 8 they use all, in
# fewer epochs, with as good a validation ELBO (HVAE, VampPrior: -22.36 nats against -22.32).
LATENT_DIM = {"digits": 8}

# The authors' code draws dense weights wider (he) than the paper says (glorot). With he, static
# MNIST and Frey Faces come out as in reruns of that code; Caltech 101 falls behind the paper by up
# to 6 nats, so it has glorot, whose validation ELBO is better by 8 (HVAE; 3 with the VampPrior). On
# the others it is better, too, or as good: see docs/numbers.md.
DENSE_INIT = {"caltech101_silhouettes": "glorot", "digits": "glorot"}


def get_config(dataset: str = "digits") -> ml_collections.ConfigDict:
    config = config_fields.defaults()
    config.dataset = dataset
    config.num_components = NUM_COMPONENTS.get(dataset, config.num_components)
    config.latent_dim = LATENT_DIM.get(dataset, config.latent_dim)
    config.learning_rate = LEARNING_RATE.get(dataset, config.learning_rate)
    config.dense_init = DENSE_INIT.get(dataset, config.dense_init)
    return config


def in_minutes(dataset: str) -> ml_collections.ConfigDict:
    """The same in a quarter of the epochs; the VAE's at two fifths of the price each (K = 500)."""
    config = get_config(dataset)
    config.dense_init = "glorot"
    config.learning_rate = 1e-3
    config.learning_rate_schedule = "cosine"
    config.final_learning_rate = 1e-5
    config.num_epochs = 100
    config.warmup_epochs = 20
    config.components_per_step = 25
    return config


def of_sequences(dataset: str) -> ml_collections.ConfigDict:
    """The same for sequences; chosen by the validation ELBO of a few runs on the chorales."""
    config = get_config(dataset)
    config.model = "seq_vae"
    config.latent_dim = 32
    config.hidden_dim = 128
    config.batch_size = 20
    config.learning_rate = 3e-3
    config.learning_rate_schedule = "cosine"
    config.num_epochs = 100
    config.warmup_epochs = 20
    config.early_stopping_epochs = 20
    config.eval_batch_size = 100
    config.word_dropout = 0.3
    config.num_samples = 500
    return config


def of_burda(dataset: str) -> ml_collections.ConfigDict:
    """The same for Burda et al.'s network of two stochastic layers, with 50 samples."""
    config = get_config(dataset)
    config.model = "iwae_net"
    config.num_importance_samples = 50
    config.latent_dim = 50  # 100 below
    config.hidden_dim = 200  # 100 above
    config.dense_init = "glorot"
    config.batch_size = 20
    config.warmup_epochs = 0
    return config


def of_steps(dataset: str) -> ml_collections.ConfigDict:
    """The same for sequences with a z for every step."""
    config = of_sequences(dataset)
    config.model = "vrnn"
    config.latent_dim = 16  # of each step
    return config


def of_ladder(dataset: str) -> ml_collections.ConfigDict:
    """The same for a ladder of five stochastic layers."""
    config = get_config(dataset)
    config.model = "lvae"
    config.num_layers = 5
    config.latent_dim = 4  # at the top; 64 at the bottom
    config.hidden_dim = 512  # at the bottom; 32 at the top
    config.dense_init = "glorot"
    config.batch_size = 256
    config.warmup_epochs = 200
    return config


def of_pixel_vae(dataset: str) -> ml_collections.ConfigDict:
    """The same for a PixelVAE, whose authors' code has these numbers for MNIST."""
    config = get_config(dataset)
    config.model = "pixel_vae"
    config.latent_dim = 16
    config.learning_rate = 1e-3
    config.num_epochs = 400
    config.warmup_epochs = 20
    config.eval_batch_size = 100  # activations of convolutions are large
    return config


def of_vlae(dataset: str) -> ml_collections.ConfigDict:
    """The same for a PixelVAE with a small window."""
    config = of_pixel_vae(dataset)
    config.latent_dim = 40
    config.pixel_window = 2
    return config
