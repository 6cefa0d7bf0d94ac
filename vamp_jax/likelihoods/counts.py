"""Counts 0, 1, 2, ...: Poisson and negative binomial, with a mean of their own or a library size.

Without a library size, the mean is exp(log_mean). With one, as scvi-tools has it for genes, a row
of counts x (the last axis of x) with the sum l(x) has the means

    l(x) softmax(logits),        l(x) = sum_d x_d,

so that z says which share each count has of the row, and not how large the row is. l is taken as
given: ln p(x|z) is the density of x for that l, and says nothing of l itself. Draws and means have
no x: they are for one library size that is given beforehand.
"""

import functools
import math

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods.likelihood import Likelihood, Shape, heads_like_x

Array = jax.Array

MIN_LOG_MEAN, MAX_LOG_MEAN = -20.0, 20.0
# Inverse dispersions are in [4.5e-5, 2.2e4].
MIN_LOG_THETA, MAX_LOG_THETA = -10.0, 10.0


@jax.custom_jvp
def _poisson_log_prob(x: Array, log_mean: Array) -> Array:
    """ln Poisson(x | exp(log_mean)); from 10 on by Loader's expansion, for which

        ln p(x) = -D(x, mean) - 1/2 ln(2 pi x) - delta(x),    D = x ln(x / mean) - x + mean

    with delta the rest of Stirling's series (C. Loader 2000, Fast and accurate computation of
    binomial probabilities). x ln(mean) - mean - ln x! would be a difference of large numbers, in
    float32 wrong by a nat at a million. The derivative by log_mean is x - mean; there is none by x.
    """
    mean, few = jnp.exp(log_mean), x < 10.0
    many = jnp.where(few, 10.0, x)
    rest = 1.0 / (12.0 * many) - 1.0 / (360.0 * many**3)
    stirling = -_deviance(many, mean) - 0.5 * jnp.log(2.0 * math.pi * many) - rest
    return jnp.where(few, jax.scipy.stats.poisson.logpmf(jnp.where(few, x, 0.0), mean), stirling)


@_poisson_log_prob.defjvp
def _poisson_derivative(primals, tangents):
    x, log_mean = primals
    return _poisson_log_prob(x, log_mean), (x - jnp.exp(log_mean)) * tangents[1]


def _deviance(x: Array, mean: Array) -> Array:
    """x ln(x / mean) - x + mean for x >= 10; by a series in v = (x - mean) / (x + mean) near 0."""
    v = (x - mean) / (x + mean)
    near = jnp.abs(v) < 0.1
    square = jnp.where(near, v, 0.0) ** 2
    series = square * (1 / 3 + square * (1 / 5 + square * (1 / 7 + square * (1 / 9 + square / 11))))
    by_series = (x - mean) * v + 2.0 * x * jnp.where(near, v, 0.0) * series
    return jnp.where(near, by_series, x * jnp.log(x / mean) - x + mean)


# From here on JAX's draws spread too widely (at 1e6 by 2 %), and beyond 2^31 they saturate.
LARGE_MEAN = 1e5


def _draw(rng: Array, mean: Array) -> Array:
    """Poisson counts, as float32; of large means rounded normal ones."""
    rng_few, rng_many = jax.random.split(rng)
    few = jax.random.poisson(rng_few, jnp.minimum(mean, LARGE_MEAN)).astype(jnp.float32)
    many = mean + jnp.sqrt(mean) * jax.random.normal(rng_many, mean.shape)
    return jnp.where(mean < LARGE_MEAN, few, jnp.round(many))


def _poisson_sample(rng: Array, log_mean: Array) -> Array:
    return _draw(rng, jnp.exp(log_mean))


def _negative_binomial_log_prob(x: Array, log_mean: Array, log_theta: Array) -> Array:
    """ln NB(x) = ln C(x + theta - 1, x) + theta ln p + x ln(1 - p), p = theta / (theta + mean).

    Not jax.scipy.stats.nbinom: that takes p, which is 1 in float32 where theta is 10^7 times the
    mean (then it is minus infinity), and its binomial coefficient is a difference of large
    log-gammas (wrong by 0.03 nats at theta = 22,000, mean 1).
    """
    log_theta = jnp.clip(log_theta, MIN_LOG_THETA, MAX_LOG_THETA)
    theta = jnp.exp(log_theta)
    coefficient = -jax.scipy.special.betaln(theta, x + 1.0) - jnp.log(theta + x)
    log_odds = log_mean - log_theta
    return coefficient - theta * jax.nn.softplus(log_odds) - x * jax.nn.softplus(-log_odds)


def _negative_binomial_sample(rng: Array, log_mean: Array, log_theta: Array) -> Array:
    """Draws Poisson counts whose means are drawn from Gamma(theta, theta / mean)."""
    theta = jnp.exp(jnp.clip(log_theta, MIN_LOG_THETA, MAX_LOG_THETA))
    rng_mean, rng_count = jax.random.split(rng)
    gamma = jax.random.gamma(rng_mean, theta, log_mean.shape, log_mean.dtype)
    return _draw(rng_count, gamma * jnp.exp(log_mean) / theta)


def _as_counts(stored: Array, scale: float) -> Array:
    del scale
    return stored.astype(jnp.float32)


def _with_own_mean(likelihood: Likelihood) -> Likelihood:
    """Clips the first head, log_mean."""

    def clip(log_mean):
        return jnp.clip(log_mean, MIN_LOG_MEAN, MAX_LOG_MEAN)

    return likelihood._replace(
        log_prob=lambda x, log_mean, *rest: likelihood.log_prob(x, clip(log_mean), *rest),
        mean=lambda log_mean, *rest: jnp.exp(clip(log_mean)),
        sample=lambda rng, log_mean, *rest: likelihood.sample(rng, clip(log_mean), *rest),
    )


def _with_library_size(likelihood: Likelihood, library_size: float) -> Likelihood:
    """Takes logits [..., D] in place of log_mean; one value is a row of counts [..., D]."""
    if not 0.0 < library_size < math.inf:
        raise ValueError(
            f"{likelihood.name}: library_size is {library_size}; it must be a positive number: "
            "the sum of counts that draws and means are for, such as the median of the data."
        )

    def log_mean(logits, library, observed=None):
        if observed is not None:
            # The shares among what is there; the row of it has this library size.
            logits = jnp.where(observed, logits, -1e9)
        log_share = jax.nn.log_softmax(logits)
        return jnp.clip(jnp.log(library)[..., None] + log_share, MIN_LOG_MEAN, MAX_LOG_MEAN)

    def log_prob(x, logits, *rest, library=None, observed=None):
        if observed is not None:
            x = jnp.where(observed, x, 0.0)
        library = jnp.sum(x, axis=-1) if library is None else jnp.asarray(library)
        values = likelihood.log_prob(x, log_mean(logits, library, observed), *rest)
        if observed is not None:
            values = jnp.where(observed, values, 0.0)
        return jnp.sum(values, axis=-1)

    def fill(x, mean):
        """The mean of a row as large as what is there of it says."""
        observed = ~jnp.isnan(x)
        shares = jnp.sum(jnp.where(observed, mean, 0.0), axis=-1, keepdims=True)
        counts = jnp.sum(jnp.where(observed, x, 0.0), axis=-1, keepdims=True)
        return jnp.where(shares > 0.0, mean * counts / shares, mean)

    return likelihood._replace(
        heads=lambda shape: {
            "logits" if name == "log_mean" else name: head
            for name, head in likelihood.heads(shape).items()
        },
        log_prob=log_prob,
        mean=lambda logits, *rest: jnp.exp(log_mean(logits, jnp.asarray(library_size))),
        sample=lambda rng, logits, *rest: likelihood.sample(
            rng, log_mean(logits, jnp.asarray(library_size)), *rest
        ),
        event_axes=1,
        fill=fill,
    )


_POISSON = Likelihood(
    name="poisson",
    heads=heads_like_x("log_mean"),
    log_prob=_poisson_log_prob,
    mean=jnp.exp,
    sample=_poisson_sample,
    from_stored=_as_counts,
    support=(0.0, math.inf),
    whole=True,
)


def _negative_binomial_heads(shape: Shape) -> dict[str, Shape]:
    return {"log_mean": shape, "log_inverse_dispersion": shape[-1:]}


_NEGATIVE_BINOMIAL = _POISSON._replace(
    name="negative_binomial",
    heads=_negative_binomial_heads,
    log_prob=_negative_binomial_log_prob,
    sample=_negative_binomial_sample,
    free=("log_inverse_dispersion",),
)


@functools.cache
def poisson(library_size: float | None = None) -> Likelihood:
    """ln Poisson(x | mean) of each count, or of each row of counts with a library size.

    Heads: `log_mean`; with a library size `logits`, and `log_prob` takes `library`, the sizes of
    the rows, where they are not the sums of x.

    Args:
      library_size: None, or the row sum that draws and means are for.
    Raises:
      ValueError: for a library size that is not positive.
    """
    if library_size is None:
        return _with_own_mean(_POISSON)
    return _with_library_size(_POISSON, library_size)


@functools.cache
def negative_binomial(library_size: float | None = None) -> Likelihood:
    """ln NB(x | mean, theta) of each count: variance mean + mean^2 / theta.

    scvi-tools' parameterisation by the mean and the inverse dispersion theta. Heads: those of
    `poisson`, and `log_inverse_dispersion`, one learned ln theta for each entry of x's last axis.

    Args:
      library_size: as for `poisson`.
    Raises:
      ValueError: for a library size that is not positive.
    """
    if library_size is None:
        return _with_own_mean(_NEGATIVE_BINOMIAL)
    # Draws have rows of other sizes than the one they are for, at which `log_prob` has other means.
    # (A Poisson row's shares are multinomial at any size: there nothing of z changes.)
    return _with_library_size(_NEGATIVE_BINOMIAL, library_size)._replace(draws_fit=False)


POISSON = poisson()
