"""Real values: ln N(x | mean, var), with a variance that is fixed, learned, or decoded."""

import functools
import math

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods.likelihood import Likelihood, divided_by_scale

Array = jax.Array

# Log-variances are clipped, as a constant feature would draw its own to minus infinity. Standard
# deviations are then in [4.5e-5, 2.2e4].
MIN_LOG_VAR, MAX_LOG_VAR = -20.0, 20.0


def _stddev(log_var: Array | float) -> Array:
    return jnp.exp(0.5 * jnp.clip(log_var, MIN_LOG_VAR, MAX_LOG_VAR))


def _log_prob(x: Array, mean: Array, log_var: Array | float) -> Array:
    return jax.scipy.stats.norm.logpdf(x, mean, _stddev(log_var))


def _sample(rng: Array, mean: Array, log_var: Array | float) -> Array:
    return mean + _stddev(log_var) * jax.random.normal(rng, mean.shape, mean.dtype)


@functools.cache
def gaussian(variance: str = "scalar", *, stddev: float | None = None) -> Likelihood:
    """ln N(x | mean, exp(log_var)) of each value: head `mean`, and `log_var` unless it is fixed.

    Args:
      variance: "fixed" (to stddev^2), "scalar" (one learned number), "unit" (one learned number
        for each value of x) or "decoded" (a function of z for each value).
      stddev: with "fixed" alone; the default is 1.
    Raises:
      ValueError: for another variance, or a stddev that is not positive or not asked for.
    """
    log_var_shapes = {
        "fixed": lambda shape: {},
        "scalar": lambda shape: {"log_var": ()},
        "unit": lambda shape: {"log_var": shape},
        "decoded": lambda shape: {"log_var": shape},
    }
    if variance not in log_var_shapes:
        raise ValueError(
            f"gaussian: variance is {variance!r}; it must be one of {[*log_var_shapes]}."
        )
    log_var_shape = log_var_shapes[variance]
    learned = "log_var" in log_var_shape(())
    if learned and stddev is not None:
        raise ValueError(
            f"gaussian: stddev is {stddev}, but the variance is learned ({variance!r}); leave it "
            "out, or take variance='fixed'."
        )
    likelihood = Likelihood(
        name="gaussian",
        heads=lambda shape: {"mean": shape, **log_var_shape(shape)},
        log_prob=_log_prob,
        mean=lambda mean, log_var=None: mean,
        sample=_sample,
        from_stored=divided_by_scale,
        support=(-math.inf, math.inf),
        free=("log_var",) if variance in ("scalar", "unit") else (),
    )
    return likelihood if learned else _with_stddev(likelihood, 1.0 if stddev is None else stddev)


def _with_stddev(likelihood: Likelihood, stddev: float) -> Likelihood:
    """Fixes the head `log_var`."""
    smallest, largest = math.exp(0.5 * MIN_LOG_VAR), math.exp(0.5 * MAX_LOG_VAR)
    if not smallest <= stddev <= largest:
        raise ValueError(
            f"gaussian: stddev is {stddev}; it must be in [{smallest:.1e}, {largest:.1e}]."
        )
    log_var = 2.0 * math.log(stddev)
    return likelihood._replace(
        log_prob=functools.partial(_log_prob, log_var=log_var),
        sample=functools.partial(_sample, log_var=log_var),
    )
