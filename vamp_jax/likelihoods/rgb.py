"""Colours of an RGB pixel: a mixture of discretised logistics over its three channels together.

Salimans, Karpathy, Chen, Kingma (2017), PixelCNN++, section 2.1 and 2.2:

    p(r, g, b) = sum_k pi_k L(r | m_1k) L(g | m_2k + a_k r) L(b | m_3k + b_k r + c_k g)

with L the logistic's mass in one of 256 bins, the outer two of which reach to infinity: the
256^3 probabilities sum to 1. Channels are in [-1, 1] inside and in [0, 1] outside, where bins are
those of the discretised logistic: v = 0..255 is [v/256, (v+1)/256), and x holds its centre.
"""

import functools

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods.grey import (
    NUM_BINS,
    bin_centre,
    bin_level,
    proper_log_mass,
)
from vamp_jax.likelihoods.likelihood import Likelihood, Shape

Array = jax.Array

# Of the channels in [-1, 1]. The lower one is PixelCNN++'s: a tenth of a bin.
MIN_LOG_SCALE, MAX_LOG_SCALE = -7.0, 7.0
BIN_WIDTH = 2.0 / NUM_BINS


def _by_component(mean: Array, log_scale: Array, coefficient: Array) -> tuple[Array, ...]:
    """Heads [..., 3 K] -> means, log-scales, coefficients [..., 3, K] in their ranges."""
    parts = [part.reshape(*part.shape[:-1], 3, -1) for part in (mean, log_scale, coefficient)]
    mean, log_scale, coefficient = parts
    return mean, jnp.clip(log_scale, MIN_LOG_SCALE, MAX_LOG_SCALE), jnp.tanh(coefficient)


def _centre(bin_index: Array) -> Array:
    return (bin_index + 0.5) * BIN_WIDTH - 1.0


def _green_mean(mean: Array, coefficient: Array, red: Array) -> Array:
    return mean[..., 1, :] + coefficient[..., 0, :] * red


def _blue_mean(mean: Array, coefficient: Array, red: Array, green: Array) -> Array:
    return mean[..., 2, :] + coefficient[..., 1, :] * red + coefficient[..., 2, :] * green


def _log_prob(
    x: Array,
    mixture_logits: Array,
    mean: Array,
    log_scale: Array,
    coefficient: Array,
    *,
    observed: Array | None = None,
) -> Array:
    """ln p of each pixel: x [..., 3] -> [...]; 0 where a channel is not observed."""
    mean, log_scale, coefficient = _by_component(mean, log_scale, coefficient)
    bin_index = jnp.clip(jnp.floor(x * NUM_BINS), 0, NUM_BINS - 1)[..., None]  # [..., 3, 1]
    level = _centre(bin_index)
    red, green = level[..., 0, :], level[..., 1, :]
    means = (
        mean[..., 0, :],
        _green_mean(mean, coefficient, red),
        _blue_mean(mean, coefficient, red, green),
    )
    mean = jnp.stack(jnp.broadcast_arrays(*means), axis=-2)  # [..., 3, K]
    inverse_scale = jnp.exp(-log_scale)
    left = (bin_index * BIN_WIDTH - 1.0 - mean) * inverse_scale
    width = BIN_WIDTH * inverse_scale
    log_mass = proper_log_mass(bin_index, left, left + width, width)
    joint = jax.nn.log_softmax(mixture_logits) + jnp.sum(log_mass, axis=-2)
    values = jax.scipy.special.logsumexp(joint, axis=-1)
    if observed is None:
        return values
    return jnp.where(jnp.all(observed, axis=-1), values, 0.0)


def _mean(mixture_logits: Array, mean: Array, log_scale: Array, coefficient: Array) -> Array:
    """The logistics' means, mixed, in [0, 1]: as for grey levels, not the means of the bins."""
    mean, _, coefficient = _by_component(mean, log_scale, coefficient)
    red = jnp.clip(mean[..., 0, :], -1.0, 1.0)
    green = jnp.clip(_green_mean(mean, coefficient, red), -1.0, 1.0)
    blue = jnp.clip(_blue_mean(mean, coefficient, red, green), -1.0, 1.0)
    levels = jnp.stack([red, green, blue], axis=-2)  # [..., 3, K]
    weight = jax.nn.softmax(mixture_logits)[..., None, :]
    return 0.5 * (jnp.sum(weight * levels, axis=-1) + 1.0)


def _sample(
    rng: Array, mixture_logits: Array, mean: Array, log_scale: Array, coefficient: Array
) -> Array:
    """Draws the component, then red, green and blue: bin centres [..., 3]."""
    rng_component, rng_noise = jax.random.split(rng)
    component = jax.random.categorical(rng_component, mixture_logits)[..., None, None]
    mean, log_scale, coefficient = (
        jnp.take_along_axis(part, component, axis=-1)  # [..., 3, 1]
        for part in _by_component(mean, log_scale, coefficient)
    )
    noise = jnp.exp(log_scale) * jax.random.logistic(rng_noise, mean.shape, mean.dtype)

    def level(drawn: Array) -> Array:
        return _centre(jnp.clip(jnp.floor((drawn + 1.0) / BIN_WIDTH), 0, NUM_BINS - 1))

    red = level(mean[..., 0, :] + noise[..., 0, :])
    green = level(_green_mean(mean, coefficient, red) + noise[..., 1, :])
    blue = level(_blue_mean(mean, coefficient, red, green) + noise[..., 2, :])
    return 0.5 * (jnp.concatenate([red, green, blue], axis=-1) + 1.0)


@functools.cache
def rgb_logistic_mixture(num_mixtures: int = 10) -> Likelihood:
    """ln p(r, g, b) of each pixel: x [..., H, W, 3] -> [..., H, W]; the three are one value.

    Heads: `mixture_logits` [..., K]; `mean`, `log_scale`, `coefficient` [..., 3 K] each, the K
    numbers of a channel side by side. A mean of 0 is mid-grey, 1 is white.

    Args:
      num_mixtures: K.
    Raises:
      ValueError: for fewer than one component; by `heads`, for x that do not end in 3 channels.
    """
    if num_mixtures != int(num_mixtures) or num_mixtures < 1:
        raise ValueError(
            f"rgb_logistic_mixture: num_mixtures is {num_mixtures}; it must be a whole number of "
            "at least 1."
        )

    def heads(shape: Shape) -> dict[str, Shape]:
        if shape[-1:] != (3,):
            raise ValueError(
                f"rgb_logistic_mixture: x has the shape {shape}; its last axis must be the 3 "
                "channels of RGB."
            )
        each = (*shape[:-1], 3 * num_mixtures)
        return {
            "mixture_logits": (*shape[:-1], num_mixtures),
            **dict.fromkeys(("mean", "log_scale", "coefficient"), each),
        }

    return Likelihood(
        name="rgb_logistic_mixture",
        heads=heads,
        log_prob=_log_prob,
        mean=_mean,
        sample=_sample,
        from_stored=bin_centre,
        to_stored=bin_level,
        support=(0.0, 1.0),
        whole=True,
        in_bits=True,
        event_axes=1,
    )
