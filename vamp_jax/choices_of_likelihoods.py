"""Names of likelihoods become values, and of what an encoder sees: tables of choices.py, in a file
of their own.

LIKELIHOODS: (config, data) -> Likelihood. ENCODER_INPUTS: what an encoder sees of x, a function of
x; None: x itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vamp_jax.datasets import values

if TYPE_CHECKING:
    from collections.abc import Callable

    import ml_collections

    from vamp_jax.datasets import Dataset
    from vamp_jax.likelihoods import Likelihood

    Config = ml_collections.ConfigDict


def _without_options(name: str):
    def choose(config: Config, dataset: Dataset) -> Likelihood:
        from vamp_jax import likelihoods

        return getattr(likelihoods, name)

    return choose


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


def _of_counts(name: str):
    def choose(config: Config, dataset: Dataset) -> Likelihood:
        from vamp_jax import likelihoods

        return getattr(likelihoods, name)(dataset.library_size if config.library_size else None)

    return choose


def _categorical(config: Config, dataset: Dataset) -> Likelihood:
    from vamp_jax import likelihoods

    return likelihoods.categorical(dataset.num_classes, one_hot=dataset.kind == "sequences")


LIKELIHOODS = {
    "bernoulli": _without_options("BERNOULLI"),
    "discretised_logistic": _discretised_logistic,
    "rgb_logistic_mixture": _rgb_logistic_mixture,
    "gaussian": _gaussian,
    "poisson": _of_counts("poisson"),
    "negative_binomial": _of_counts("negative_binomial"),
    "categorical": _categorical,
}
GAUSSIAN_VARIANCES = ("scalar", "unit", "decoded", "fixed")
THE_DATA_S_OWN = "data"
# Where data is stored for another likelihood of the same values; None: as the data set says.
STORED_AS = {THE_DATA_S_OWN: None} | values.STORED_AS
COUNTS = ("poisson", "negative_binomial")  # of 0, 1, 2, ...


def _log1p(config: Config) -> Callable:
    import jax.numpy as jnp

    return jnp.log1p


ENCODER_INPUTS = {"x": lambda config: None, "log1p": _log1p}
