"""Classes 0, 1, ..., C - 1: the characters of a text."""

import functools

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods.likelihood import Likelihood

Array = jax.Array


def _log_prob(x: Array, logits: Array) -> Array:
    """ln softmax(logits)_x of each value; 0 for a padded one, x < 0; nan for a class above C."""
    x = x.astype(jnp.int32)
    padded = x < 0
    log_probs = jax.nn.log_softmax(logits)
    shape = jnp.broadcast_shapes(x.shape, logits.shape[:-1])
    index = jnp.broadcast_to(jnp.where(padded, 0, x), shape)[..., None]
    log_probs = jnp.broadcast_to(log_probs, (*shape, logits.shape[-1]))
    chosen = jnp.take_along_axis(log_probs, index, axis=-1, mode="fill")[..., 0]
    return jnp.where(padded, 0.0, chosen)


def _mean(logits: Array) -> Array:
    return jax.nn.softmax(logits) @ jnp.arange(logits.shape[-1], dtype=logits.dtype)


def _as_classes(stored: Array, scale: float) -> Array:
    del scale
    stored = jnp.asarray(stored)
    return jnp.where(jnp.isnan(stored), -1, stored.astype(jnp.int32))


def _as_real(x: Array) -> Array:
    """Class numbers that can move, as pseudo-inputs do."""
    return jnp.asarray(x, jnp.float32)


@functools.cache
def categorical(num_classes: int, *, one_hot: bool = False) -> Likelihood:
    """ln softmax(logits)_x of each value: head `logits`, [*shape, C].

    With `one_hot` pseudo-inputs are [*shape, C], started at one-hot vectors: for networks that take
    symbols so (models/seq_vae.py). Else they are class numbers, which makes sense for ordered ones.

    x holds whole numbers 0 <= x < C. A negative one is padding (the end of a short sequence): its
    log-probability is 0, and it has no gradient. `mean` is the mean class number, which makes
    sense for ordered classes only; for symbols take jax.nn.softmax(logits).

    Raises:
      ValueError: for fewer than one class.
    """
    if num_classes != int(num_classes) or num_classes < 1:
        raise ValueError(
            f"categorical: num_classes is {num_classes}; it must be a whole number of at least 1."
        )
    return Likelihood(
        name="categorical",
        heads=lambda shape: {"logits": (*shape, num_classes)},
        log_prob=_log_prob,
        mean=_mean,
        sample=jax.random.categorical,
        from_stored=_as_classes,
        support=(0.0, num_classes - 1.0),
        whole=True,
        relax=functools.partial(jax.nn.one_hot, num_classes=num_classes) if one_hot else _as_real,
        relaxed_support=(0.0, 1.0) if one_hot else None,
    )
