"""Binary values: pixels, keys of a piano roll.

The clip of the probability is the authors' code's: a wrong pixel costs at most 11.5 nats.
"""

import math

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods.likelihood import Likelihood, divided_by_scale, heads_like_x

Array = jax.Array

# Bernoulli means are clipped to [1e-5, 1 - 1e-5].
MIN_PROBABILITY = 1e-5
MAX_LOGIT = math.log((1.0 - MIN_PROBABILITY) / MIN_PROBABILITY)


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


def _sample(rng: Array, logits: Array) -> Array:
    return jax.random.bernoulli(rng, bernoulli_mean(logits)).astype(jnp.float32)


BERNOULLI = Likelihood(
    name="bernoulli",
    heads=heads_like_x("logits"),
    log_prob=bernoulli_log_prob,
    mean=bernoulli_mean,
    sample=_sample,
    from_stored=divided_by_scale,
    support=(0.0, 1.0),
    whole=True,
)
