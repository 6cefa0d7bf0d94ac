"""p(x|.) of one value of x, as a value: what the decoder gives, its density, mean and sampler.

A `Likelihood` is a tuple of plain functions. Its functions work on single values and sum over
nothing; `log_prob` at the end of this file sums over an example. x and each head are arrays
[..., *shape], where shape is that of one example's x (or of the head, see `heads`).

The discretised logistic and the probability clip are the paper's (section 5 and the authors'
code); what each one adds to the textbook form is said where it is done.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

Array = jax.Array
Shape = tuple[int, ...]

# Bernoulli means are clipped to [1e-5, 1 - 1e-5]: a wrong pixel costs at most 11.5 nats.
MIN_PROBABILITY = 1e-5
MAX_LOGIT = math.log((1.0 - MIN_PROBABILITY) / MIN_PROBABILITY)
NUM_BINS = 256


class Likelihood(NamedTuple):
    """p(x|.) of one value. All functions are elementwise and pure; none sums over values."""

    name: str
    heads: Callable[[Shape], dict[str, Shape]]  # shape of an x -> shape of each decoder output
    log_prob: Callable[..., Array]  # (x, *heads) -> ln p of each value, in nats
    mean: Callable[..., Array]  # (*heads) -> E[x]
    sample: Callable[..., Array]  # (rng, *heads) -> a draw of x
    from_stored: Callable[[Array, float], Array]  # (data as it is kept, its scale) -> x
    support: tuple[float, float]  # of x, and so of pseudo-inputs
    in_bits: bool = False  # results are told in bits per dimension too
    free: tuple[str, ...] = ()  # heads that are parameters of the decoder and no functions of z


def _one_head(name: str) -> Callable[[Shape], dict[str, Shape]]:
    return lambda shape: {name: shape}


# ---------------------------------------------------------------------------------------------
# Binary values.


def bernoulli_log_prob(x: Array, logits: Array) -> Array:
    """x ln p + (1 - x) ln(1 - p) with p = clip(sigmoid(logits), 1e-5, 1 - 1e-5), in nats.

    Args:
      x: in {0, 1} (or [0, 1]: then the cross-entropy).
      logits: of a shape that broadcasts with x.
    """
    # The clip of the mean, done on the logit: the same function, without the rounding of 1 - p.
    logits = jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT)
    # Not softplus: the clipped exponential neither overflows nor vanishes beside 1, and its log1p
    # takes three times as long on a CPU.
    return x * logits - jnp.log(1.0 + jnp.exp(logits))


def bernoulli_mean(logits: Array) -> Array:
    """The clipped mean p of `bernoulli_log_prob`."""
    return jax.nn.sigmoid(jnp.clip(logits, -MAX_LOGIT, MAX_LOGIT))


def _bernoulli_sample(rng: Array, logits: Array) -> Array:
    return jax.random.bernoulli(rng, bernoulli_mean(logits)).astype(jnp.float32)


def _fraction(stored: Array, scale: float) -> Array:
    return stored.astype(jnp.float32) / scale


BERNOULLI = Likelihood(
    name="bernoulli",
    heads=_one_head("logits"),
    log_prob=bernoulli_log_prob,
    mean=bernoulli_mean,
    sample=_bernoulli_sample,
    from_stored=_fraction,
    support=(0.0, 1.0),
)

# ---------------------------------------------------------------------------------------------
# Grey levels: bin v = 0..255 is [v/256, (v+1)/256), and x holds its centre (v + 0.5)/256.


def discretised_logistic_parameters(mean: Array, log_scale: Array) -> tuple[Array, Array]:
    """The paper's ranges: mean in [1/512, 1 - 1/512] from logits, log-scale in [-4.5, 0]."""
    mean = jnp.clip(jax.nn.sigmoid(mean), 0.5 / NUM_BINS, 1.0 - 0.5 / NUM_BINS)
    return mean, jnp.clip(log_scale, -4.5, 0.0)


def discretised_logistic_log_prob(
    x: Array, mean: Array, log_scale: Array, *, proper: bool = False
) -> Array:
    """ln [ F(right edge of x's bin) - F(left edge) ], F the logistic distribution, in nats.

    Args:
      x: bin centres.
      mean, log_scale: before the ranges of `discretised_logistic_parameters`.
      proper: False is the authors' code: what the logistic leaves outside [0, 1] is lost, and
        1e-7 is added to every probability. True extends the two outer bins to infinity and adds
        nothing, so that the 256 probabilities sum to 1.
    """
    mean, log_scale = discretised_logistic_parameters(mean, log_scale)
    bin_index = jnp.floor(x * NUM_BINS)
    inverse_scale = jnp.exp(-log_scale)
    left = (bin_index / NUM_BINS - mean) * inverse_scale
    width = inverse_scale / NUM_BINS
    right = left + width
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)) for the sigmoid s: no near-equal numbers cancel.
    log_prob = jax.nn.log_sigmoid(right) + jax.nn.log_sigmoid(-left) + jnp.log(-jnp.expm1(-width))
    if proper:
        log_prob = jnp.where(bin_index <= 0, jax.nn.log_sigmoid(right), log_prob)
        return jnp.where(bin_index >= NUM_BINS - 1, jax.nn.log_sigmoid(-left), log_prob)
    return jnp.logaddexp(log_prob, math.log(1e-7))


def discretised_logistic_sample(rng: Array, mean: Array, log_scale: Array) -> Array:
    """Draws bin centres; what falls outside [0, 1] goes to the ends."""
    mean, log_scale = discretised_logistic_parameters(mean, log_scale)
    drawn = mean + jnp.exp(log_scale) * jax.random.logistic(rng, mean.shape, mean.dtype)
    return (jnp.clip(jnp.floor(drawn * NUM_BINS), 0, NUM_BINS - 1) + 0.5) / NUM_BINS


def _bin_centre(stored: Array, scale: float) -> Array:
    del scale
    return (stored.astype(jnp.float32) + 0.5) / NUM_BINS


def _discretised_logistic(proper: bool) -> Likelihood:
    return Likelihood(
        name="discretised_logistic",
        heads=lambda shape: {"mean": shape, "log_scale": shape},
        log_prob=functools.partial(discretised_logistic_log_prob, proper=proper),
        mean=lambda *heads: discretised_logistic_parameters(*heads)[0],
        sample=discretised_logistic_sample,
        from_stored=_bin_centre,
        support=(0.0, 1.0),
        in_bits=True,
    )


DISCRETISED_LOGISTIC = _discretised_logistic(proper=False)
PROPER_DISCRETISED_LOGISTIC = _discretised_logistic(proper=True)

# ---------------------------------------------------------------------------------------------
# Whole examples.


def log_prob(likelihood: Likelihood, x: Array, heads: tuple[Array, ...], num_leading: int) -> Array:
    """ln p(x|.), summed over the values of each example, in nats.

    Args:
      likelihood: of one value.
      x: [B, *shape], or with more leading axes.
      heads: the decoder's outputs, [..., *their shape], with `num_leading` leading axes.
      num_leading: how many axes stay.
    Returns:
      An array of `num_leading` axes.
    """
    values = likelihood.log_prob(x, *heads)
    return jnp.sum(values.reshape(*values.shape[:num_leading], -1), axis=-1)
