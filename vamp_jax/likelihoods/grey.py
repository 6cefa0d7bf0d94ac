"""Grey levels: bin v = 0..255 is [v/256, (v+1)/256), and x holds its centre (v + 0.5)/256.

The form is the paper's (section 5 and the authors' code); differences from the textbook's are noted
where they occur.
"""

import functools
import math

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods.likelihood import Likelihood, heads_like_x

Array = jax.Array

NUM_BINS = 256


def discretised_logistic_parameters(mean: Array, log_scale: Array) -> tuple[Array, Array]:
    """The paper's ranges: mean in [1/512, 1 - 1/512] from logits, log-scale in [-4.5, 0]."""
    mean = jnp.clip(jax.nn.sigmoid(mean), 0.5 / NUM_BINS, 1.0 - 0.5 / NUM_BINS)
    return mean, jnp.clip(log_scale, -4.5, 0.0)


def log_mass(left: Array, right: Array, width: Array) -> Array:
    """ln [ s(right) - s(left) ], s the sigmoid: the mass of a bin under the unit logistic."""
    # s(b) - s(a) = s(b) s(-a) (1 - exp(a - b)): no near-equal numbers cancel.
    return jax.nn.log_sigmoid(right) + jax.nn.log_sigmoid(-left) + jnp.log(-jnp.expm1(-width))


def proper_log_mass(bin_index: Array, left: Array, right: Array, width: Array) -> Array:
    """`log_mass` with the two outer bins extended to infinity: the masses sum to 1."""
    inner = log_mass(left, right, width)
    from_first = jnp.where(bin_index <= 0, jax.nn.log_sigmoid(right), inner)
    return jnp.where(bin_index >= NUM_BINS - 1, jax.nn.log_sigmoid(-left), from_first)


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
    if proper:
        return proper_log_mass(bin_index, left, right, width)
    return jnp.logaddexp(log_mass(left, right, width), math.log(1e-7))


def discretised_logistic_sample(rng: Array, mean: Array, log_scale: Array) -> Array:
    """Draws bin centres; what falls outside [0, 1] goes to the ends."""
    mean, log_scale = discretised_logistic_parameters(mean, log_scale)
    drawn = mean + jnp.exp(log_scale) * jax.random.logistic(rng, mean.shape, mean.dtype)
    return (jnp.clip(jnp.floor(drawn * NUM_BINS), 0, NUM_BINS - 1) + 0.5) / NUM_BINS


def bin_centre(stored: Array, scale: float) -> Array:
    """`from_stored` of levels v = 0..255, whatever the scale."""
    del scale
    return (stored.astype(jnp.float32) + 0.5) / NUM_BINS


def bin_level(x: Array, scale: float) -> Array:
    """The inverse of `bin_centre`: levels from 0 to 255, not rounded."""
    del scale
    return jnp.clip(NUM_BINS * x - 0.5, 0.0, NUM_BINS - 1.0)


def _discretised_logistic(proper: bool) -> Likelihood:
    return Likelihood(
        name="discretised_logistic",
        heads=heads_like_x("mean", "log_scale"),
        log_prob=functools.partial(discretised_logistic_log_prob, proper=proper),
        mean=lambda *heads: discretised_logistic_parameters(*heads)[0],
        sample=discretised_logistic_sample,
        from_stored=bin_centre,
        to_stored=bin_level,
        support=(0.0, 1.0),
        whole=True,
        in_bits=True,
    )


DISCRETISED_LOGISTIC = _discretised_logistic(proper=False)
PROPER_DISCRETISED_LOGISTIC = _discretised_logistic(proper=True)
