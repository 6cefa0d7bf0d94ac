"""Names become values: the one place that turns a config's strings into what they stand for.

Each table has an entry a name: a function of the config (and the data) that returns the value. To
add a choice, write it in a file of its own and enter it here; tests/test_contracts.py goes through
these tables. A name module:Name is a part from outside the package (outside.py), and stands for
what an entry is. Imports are inside the functions: a typo in a name should not wait for JAX.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from vamp_jax import datasets, outside
from vamp_jax.choices_of_likelihoods import (  # noqa: F401 - tables of this module, too
    COUNTS,
    ENCODER_INPUTS,
    GAUSSIAN_VARIANCES,
    LIKELIHOODS,
    STORED_AS,
    THE_DATA_S_OWN,
)
from vamp_jax.choices_of_priors import (  # noqa: F401
    PRIORS,
    WARPED_MIXTURES,
    WITH_COMPONENTS,
    WITH_FIXED_EXAMPLES,
    WITH_LEARNED_PSEUDO_INPUTS,
    WITH_NEIGHBOURS,
    WITH_PSEUDO_INPUTS,
    WITH_TURNS,
)
from vamp_jax.choices_of_pseudo_inputs import (  # noqa: F401
    FOR_SEQUENCES,
    FROM_DATA,
    GROWING,
    SQUASHES,
    STARTS,
    UPDATES,
    WITH_RESTARTS,
    WITH_WAKE,
    WITHOUT_WAKE,
)

if TYPE_CHECKING:
    import ml_collections

    from vamp_jax.autoencoder import Autoencoder
    from vamp_jax.datasets import Dataset
    from vamp_jax.datasets.inputs import Inputs
    from vamp_jax.likelihoods import Likelihood
    from vamp_jax.network import Network
    from vamp_jax.objectives import Objective

    Config = ml_collections.ConfigDict

# ---------------------------------------------------------------------------------------------
# Networks: (config) -> (the class, its own fields beside those that all have).


def _without_fields(name: str):
    def choose(config: Config):
        from vamp_jax import models

        return getattr(models, name), {}

    return choose


def _pixel_hvae(config: Config):
    from vamp_jax import parallel
    from vamp_jax.models import PixelHVAE

    return PixelHVAE, {
        "mask_z": config.pixel_mask_z,
        "gated_stacks": config.pixel_gated_stacks,
        "axis_name": parallel.AXIS,
    }


def _pixel_vae(config: Config):
    from vamp_jax.models import PixelVAE

    return PixelVAE, {"window": config.pixel_window}


def _lvae(config: Config):
    from vamp_jax import parallel
    from vamp_jax.models import LVAE

    return LVAE, {"num_layers": config.num_layers, "axis_name": parallel.AXIS}


NETWORKS = {
    "vae": _without_fields("VAE"),
    "hvae": _without_fields("HVAE"),
    "conv_hvae": _without_fields("ConvHVAE"),
    "pixel_hvae": _pixel_hvae,
    "pixel_vae": _pixel_vae,
    "seq_vae": _without_fields("SeqVAE"),
    "vrnn": _without_fields("VRNN"),
    "lvae": _lvae,
    "iwae_net": _without_fields("IWAENet"),
}
SEQUENTIAL = ("seq_vae", "vrnn")  # of sequences; the others take images and vectors
LADDERS = ("lvae",)  # those of any number of layers
# Those whose cost is in convolutions, for what has to be known before JAX starts.
CONVOLUTIONAL = ("conv_hvae", "pixel_hvae", "pixel_vae")

# ---------------------------------------------------------------------------------------------
# Posteriors: (config) -> (features, kernel_init) -> the end of an encoder, a linen module.


def _normal(config: Config):
    from vamp_jax.layers import dense

    return dense.NormalHead


def _flow_head(name: str, **options):
    def choose(config: Config):
        from vamp_jax.layers import flow_heads

        return _with_options(getattr(flow_heads, name), config.num_flows, **options)

    return choose


@functools.cache
def _with_options(head, num_flows: int, **options):
    # Cached, so that the same choice is the same value and JAX does not compile again.
    return functools.partial(head, num_flows=num_flows, **options)


POSTERIORS = {
    "normal": _normal,
    "planar": _flow_head("PlanarHead"),
    "sylvester": _flow_head("SylvesterHead", make_q="orthogonal"),
    "householder_sylvester": _flow_head("SylvesterHead", make_q="householder"),
    "triangular_sylvester": _flow_head("SylvesterHead", make_q="triangular"),
    "householder": _flow_head("HouseholderHead"),
    "iaf": _flow_head("InverseAutoregressiveHead"),
}
WITH_DENSITY = ("normal", "householder")  # at a given point; the other flows have no inverse
WITH_FLOWS = tuple(name for name in POSTERIORS if name != "normal")

# ---------------------------------------------------------------------------------------------
# How dense weights start: (config) -> an initialiser.


def _he(config: Config):
    from vamp_jax.layers import dense

    return dense.he_kernel


def _glorot(config: Config):
    from vamp_jax.layers import dense

    return dense.glorot_kernel


DENSE_INITS = {"he": _he, "glorot": _glorot}

# ---------------------------------------------------------------------------------------------
# Objectives: (config) -> an objective. The bound of several samples has two gradients.


def _standard_gradient(config: Config) -> Objective:
    from vamp_jax import objectives

    num_samples, alpha = config.num_importance_samples, config.renyi_alpha
    if config.free_nats:
        return objectives.FreeBits(num_samples, config.free_nats)
    if num_samples == 1 or alpha == 1.0:
        return objectives.Elbo(num_samples)
    if alpha == 0.0:
        return objectives.Iwae(num_samples)
    return objectives.Renyi(num_samples, alpha)


def _dreg(config: Config) -> Objective:
    from vamp_jax import objectives

    return objectives.Iwae(config.num_importance_samples, gradient="dreg")


GRADIENTS = {"standard": _standard_gradient, "dreg": _dreg}


def _bound(config: Config) -> Objective:
    return GRADIENTS[config.importance_gradient](config)


OBJECTIVES = {"bound": _bound}

# ---------------------------------------------------------------------------------------------
# Learning rates: (config, steps of the run) -> a number, or a function of the steps done.


def _constant(config: Config, num_steps: int):
    return config.learning_rate


def _cosine(config: Config, num_steps: int):
    import optax

    share = config.final_learning_rate / config.learning_rate
    return optax.cosine_decay_schedule(config.learning_rate, num_steps, share)


LEARNING_RATE_SCHEDULES = {"constant": _constant, "cosine": _cosine}
BY_LENGTH = ("cosine",)  # depend on how many steps there will be

# ---------------------------------------------------------------------------------------------
# Where the training set lies: (config) -> a function (plan, train, validation) -> an epoch.

# Of the training set, the share on each of n devices.
SHARES_OF_DATA = {
    "replicated": lambda n: 1.0,
    "sharded": lambda n: 1.0 / n,
    "streamed": lambda n: 0.0,
}
DATA_PLACEMENTS = tuple(SHARES_OF_DATA)
WHOLE = ("replicated",)  # every device can go through the training set by itself


def placement(config: Config):
    """Returns how an epoch gets at the training set; see training/placement.py."""
    from vamp_jax.training import placement

    return getattr(placement, config.data_placement)


# ---------------------------------------------------------------------------------------------
# Where annealed importance sampling starts.

AIS_STARTS = {"posterior": "POSTERIOR", "prior": "PRIOR"}
AIS_STARTS_WITH_INVERSE = ("posterior",)  # of the posterior, for chains that run backward


def ais_start(name: str):
    """Returns the start of this name."""
    from vamp_jax import annealed_likelihood

    return getattr(annealed_likelihood, AIS_STARTS[name])


# ---------------------------------------------------------------------------------------------
# What a config and its data stand for.


# The fields that make the data what they are; runs that differ in one have other data.
OF_THE_DATA = ("dataset", "likelihood", "missing", "image_size", "encoder_input")


def dataset(config: Config, data_dir: str | None) -> Dataset:
    """Loads the data that a config names.

    Raises:
      UsageError: for data that is not there, or wrong.
    """
    name, stored_as = config.dataset, STORED_AS.get(config.likelihood, config.likelihood)
    from_outside = outside.is_name(name)
    if outside.is_name(stored_as):  # of whose values nothing is known
        stored_as = "gaussian" if from_outside or datasets.is_own(name) else None
    if from_outside:
        held = outside.call(name, config, data_dir)
        found = datasets.of_arrays(name, held, likelihood=stored_as, missing=config.missing)
    else:
        found = datasets.load(
            name,
            data_dir,
            likelihood=stored_as,
            missing=config.missing,
            image_size=config.image_size or None,
        )
    seen = ENCODER_INPUTS[config.encoder_input](config)
    return found if seen is None else datasets.as_encoded(found, seen)


def likelihood(config: Config, dataset: Dataset) -> Likelihood:
    """Returns p(x|.) of one value of this data."""
    from vamp_jax import likelihoods

    name = likelihood_name(config, dataset)
    found = outside.made(LIKELIHOODS, name, likelihoods.Likelihood._fields, config, dataset)
    if dataset.kind == "sequences":
        return likelihoods.padded(found)
    return likelihoods.missing(found) if dataset.missing else found


def likelihood_name(config: Config, dataset: Dataset) -> str:
    """Returns the name of the likelihood: the config's, or else what the data set says."""
    return dataset.likelihood if config.likelihood == THE_DATA_S_OWN else config.likelihood


def inputs(config: Config, dataset: Dataset) -> Inputs:
    """Returns how the data, as it is stored, becomes x."""
    from vamp_jax.datasets.inputs import Inputs

    return Inputs(
        likelihood(config, dataset),
        dataset.max_value,
        dataset.dynamic,
        dataset.missing,
        config.word_dropout,
    )


def autoencoder(config: Config, dataset: Dataset) -> Autoencoder:
    """Returns the network with its prior and likelihood."""
    from vamp_jax.autoencoder import Autoencoder
    from vamp_jax.trainable_priors import Prior

    outside.check_allowed(config, ("model", "prior", "posterior", "likelihood"))
    of_x = likelihood(config, dataset)
    return Autoencoder(
        network=_network(
            config,
            x_shape=dataset.shape,
            likelihood=of_x,
            latent_dim=config.latent_dim,
            hidden_dim=config.hidden_dim,
            kernel_init=DENSE_INITS[config.dense_init](config),
            posterior=outside.made(POSTERIORS, config.posterior, (), config),
        ),
        prior=outside.made(PRIORS, config.prior, Prior._fields, config, of_x.pseudo_input_support),
        likelihood=of_x,
        fill=float(np.mean(dataset.pseudo_input_mean)) if dataset.missing else None,
        encoder_input=ENCODER_INPUTS[config.encoder_input](config),
    )


def _network(config: Config, **fields) -> Network:
    if config.model in NETWORKS:
        network, own_fields = NETWORKS[config.model](config)
        return network(**fields, **own_fields)
    from vamp_jax import network as contract

    made = outside.call(config.model, **fields)
    return outside.checked(config.model, made, contract.ATTRIBUTES)


def objective(config: Config) -> Objective:
    """Returns what is maximised."""
    return outside.made(OBJECTIVES, config.objective, ("num_samples", "bound"), config)
