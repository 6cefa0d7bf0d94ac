"""Names become values: the one place that turns a config's strings into what they stand for.

Each table has an entry a name: a function of the config (and the data) that returns the value. To
add a choice, write it in a file of its own and enter it here; tests/test_contracts.py goes through
these tables. Imports are inside the functions: a typo in a name should not wait for JAX.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from vamp_jax.pseudo_input_choices import (
    FOR_SEQUENCES,
    FROM_DATA,
    SQUASHES,
    STARTS,
    UPDATES,
    WITH_RESTARTS,
    WITH_WAKE,
)

__all__ = ["FOR_SEQUENCES", "FROM_DATA", "WITH_RESTARTS", "WITH_WAKE"]  # entries of its tables

if TYPE_CHECKING:
    import ml_collections
    import optax

    from vamp_jax.autoencoder import Autoencoder
    from vamp_jax.datasets import Dataset
    from vamp_jax.datasets.inputs import Inputs
    from vamp_jax.likelihoods import Likelihood
    from vamp_jax.objectives import Objective
    from vamp_jax.trainable_priors import Prior
    from vamp_jax.training.epoch import Plan

    Config = ml_collections.ConfigDict

# ---------------------------------------------------------------------------------------------
# Likelihoods: (config, data) -> Likelihood.


def _bernoulli(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    return likelihoods.BERNOULLI


def _discretised_logistic(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    if config.proper_logistic:
        return likelihoods.PROPER_DISCRETISED_LOGISTIC
    return likelihoods.DISCRETISED_LOGISTIC


def _rgb_logistic_mixture(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import errors, likelihoods

    if dataset.shape[-1] != 3:
        raise errors.UsageError(
            f"likelihood 'rgb_logistic_mixture' goes with images of three channels, not "
            f"{dataset.shape[-1]}: take 'discretised_logistic'."
        )
    return likelihoods.rgb_logistic_mixture()


def _gaussian(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    return likelihoods.gaussian(config.gaussian_variance)


def _poisson(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    return likelihoods.POISSON


def _negative_binomial(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    return likelihoods.negative_binomial()


def _categorical(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    return likelihoods.categorical(dataset.num_classes, one_hot=dataset.kind == "sequences")


LIKELIHOODS = {
    "bernoulli": _bernoulli,
    "discretised_logistic": _discretised_logistic,
    "rgb_logistic_mixture": _rgb_logistic_mixture,
    "gaussian": _gaussian,
    "poisson": _poisson,
    "negative_binomial": _negative_binomial,
    "categorical": _categorical,
}
GAUSSIAN_VARIANCES = ("scalar", "unit", "decoded", "fixed")
THE_DATA_S_OWN = "data"
# Where data is stored for another likelihood of the same values; None: as the data set says.
STORED_AS = {THE_DATA_S_OWN: None, "rgb_logistic_mixture": "discretised_logistic"}

# ---------------------------------------------------------------------------------------------
# Priors: (config, support of x) -> Prior.


def _standard(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.standard(config.latent_dim)


def _mog(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.mixture_of_gaussians(
        config.num_components, learned_weights=config.learned_weights
    )


def _vamp_data(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.vamp_data(config.num_components, learned_weights=config.learned_weights)


def _vamp(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.vamp(
        config.num_components,
        bounds=support,
        squashing=SQUASHES[config.pseudo_input_squash](config),
        beginning=STARTS[config.pseudo_input_start](config),
        learned_weights=config.learned_weights,
    )


def _exemplar(config: Config, support: tuple[float, float]) -> Prior:
    from vamp_jax import trainable_priors

    return trainable_priors.exemplar(config.num_neighbours)


def _warped(base):
    def choose(config: Config, support: tuple[float, float]) -> Prior:
        from vamp_jax import trainable_priors

        stop = config.stop_components
        return trainable_priors.warped(base(config, support), stop_components=stop)

    return choose


PRIORS = {
    "standard": _standard,
    "mog": _mog,
    "vamp_data": _vamp_data,
    "vamp": _vamp,
    "flow": _warped(_standard),
    "mog_flow": _warped(_mog),
    "vamp_data_flow": _warped(_vamp_data),
    "vamp_flow": _warped(_vamp),
    "exemplar": _exemplar,
}
WITH_NEIGHBOURS = ("exemplar",)  # all training examples are its components
WITH_TURNS = ("vamp", "vamp_data", "vamp_flow", "vamp_data_flow")
WITH_PSEUDO_INPUTS = (*WITH_TURNS, *WITH_NEIGHBOURS)
WITH_LEARNED_PSEUDO_INPUTS = ("vamp", "vamp_flow")
WITH_FIXED_EXAMPLES = ("vamp_data", "vamp_data_flow", *WITH_NEIGHBOURS)
# K of them is the config's.
WITH_COMPONENTS = tuple(n for n in PRIORS if n not in ("standard", "flow", *WITH_NEIGHBOURS))
WARPED = tuple(name for name in PRIORS if name.endswith("flow"))

# ---------------------------------------------------------------------------------------------
# Networks: (config) -> (the class, its own fields beside those that all have).


def _vae(config: Config):
    from vamp_jax.models import VAE

    return VAE, {}


def _hvae(config: Config):
    from vamp_jax.models import HVAE

    return HVAE, {}


def _conv_hvae(config: Config):
    from vamp_jax.models import ConvHVAE

    return ConvHVAE, {}


def _pixel_hvae(config: Config):
    from vamp_jax.models import PixelHVAE
    from vamp_jax.training import devices

    return PixelHVAE, {
        "mask_z": config.pixel_mask_z,
        "gated_stacks": config.pixel_gated_stacks,
        "axis_name": devices.AXIS,
    }


def _seq_vae(config: Config):
    from vamp_jax.models import SeqVAE

    return SeqVAE, {}


NETWORKS = {
    "vae": _vae,
    "hvae": _hvae,
    "conv_hvae": _conv_hvae,
    "pixel_hvae": _pixel_hvae,
    "seq_vae": _seq_vae,
}
SEQUENTIAL = ("seq_vae",)  # those of sequences; the others take images and vectors
# Those whose cost is in convolutions, for what has to be known before JAX starts.
CONVOLUTIONAL = ("conv_hvae", "pixel_hvae")

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
# Objectives, by the gradient of the importance-weighted bound: (config) -> an objective.


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

# ---------------------------------------------------------------------------------------------
# What a config and its data stand for.


def dataset(config: Config, data_dir: str | None) -> Dataset:
    """Loads the data that a config names.

    Raises:
      UsageError: for data that is not there, or wrong.
    """
    from vamp_jax import datasets

    return datasets.load(
        config.dataset,
        data_dir,
        likelihood=STORED_AS.get(config.likelihood, config.likelihood),
        missing=config.missing,
        image_size=config.image_size or None,
    )


def likelihood(config: Config, dataset: Dataset) -> Likelihood:
    """Returns p(x|.) of one value of this data."""
    from vamp_jax import likelihoods

    found = LIKELIHOODS[likelihood_name(config, dataset)](config, dataset)
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

    of_x = likelihood(config, dataset)
    network, own_fields = NETWORKS[config.model](config)
    return Autoencoder(
        network=network(
            x_shape=dataset.shape,
            likelihood=of_x,
            latent_dim=config.latent_dim,
            hidden_dim=config.hidden_dim,
            kernel_init=DENSE_INITS[config.dense_init](config),
            posterior=POSTERIORS[config.posterior](config),
            **own_fields,
        ),
        prior=PRIORS[config.prior](config, of_x.pseudo_input_support),
        likelihood=of_x,
        fill=float(np.mean(dataset.pseudo_input_mean)) if dataset.missing else None,
    )


def objective(config: Config) -> Objective:
    """Returns what is maximised."""
    return GRADIENTS[config.importance_gradient](config)


def _constant(config: Config, num_steps: int):
    return config.learning_rate


def _cosine(config: Config, num_steps: int):
    import optax

    share = config.final_learning_rate / config.learning_rate
    return optax.cosine_decay_schedule(config.learning_rate, num_steps, share)


LEARNING_RATE_SCHEDULES = {"constant": _constant, "cosine": _cosine}


def optimizer(config: Config, num_examples: int) -> optax.GradientTransformation:
    """Returns the optimiser of a run on so many training examples."""
    from vamp_jax.training import optimizers

    num_steps = config.num_epochs * -(-num_examples // config.batch_size)
    schedule = LEARNING_RATE_SCHEDULES[config.learning_rate_schedule]
    return optimizers.normalized_adam(schedule(config, num_steps))


def plan(config: Config, dataset: Dataset) -> Plan:
    """Returns what is done in an epoch of this run."""
    from vamp_jax.training.epoch import Plan, num_examples

    every = config.components_per_step >= config.num_components  # as 0: all take part in each step
    count = num_examples(dataset.train)
    update = UPDATES[config.pseudo_input_update](config, count)
    return Plan(
        autoencoder=autoencoder(config, dataset),
        objective=objective(config),
        optimizer=update.optimizer(optimizer(config, count)),
        inputs=inputs(config, dataset),
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        warmup_epochs=config.warmup_epochs,
        seed=config.seed,
        components_per_step=0 if every else config.components_per_step,
        phase=update.phase,
    )
