"""The type of a likelihood, its value over whole examples, and missing values.

A `Likelihood` is a tuple of plain functions of one value of x: a pixel, a count, a character. x
is an array [..., *shape], where shape is that of one example; each head is [..., *its shape], as
`heads` tells, with the same leading axes or, if it is `free`, with none.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from vamp_jax.sequences import values_of

Array = jax.Array
Shape = tuple[int, ...]


def times_scale(x: Array, scale: float) -> Array:
    """`to_stored` of values that are kept as multiples of 1/scale."""
    return x * scale


def mean_itself(x: Array, mean: Array) -> Array:
    """`fill` of values that say nothing of each other."""
    del x
    return mean


class Likelihood(NamedTuple):
    """p(x|.) of one value. All functions are pure, and none sums over values.

    With `event_axes` = 1 the last axis of x is one value: the channels of an RGB pixel, or a row
    of counts with its library size. `log_prob` drops that axis, and takes `observed`, a mask of
    x's shape, or None where nothing is missing.
    """

    name: str
    heads: Callable[[Shape], dict[str, Shape]]  # shape of an x -> shape of each decoder output
    log_prob: Callable[..., Array]  # (x, *heads) -> ln p of each value, in nats
    mean: Callable[..., Array]  # (*heads) -> E[x]
    sample: Callable[..., Array]  # (rng, *heads) -> a draw of x
    from_stored: Callable[[Any, float], Any]  # (data as it is kept, its scale) -> x
    support: tuple[float, float]  # of x, and so of pseudo-inputs
    in_bits: bool = False  # results are also given in bits per dimension
    free: tuple[str, ...] = ()  # heads that are parameters of the decoder and no functions of z
    whole: bool = False  # whether data as people have them are whole numbers
    event_axes: int = 0  # last axes of x that make one value together
    # Of values that are no real numbers (symbols): x -> what stands for it among pseudo-inputs,
    # real numbers of [0, 1]. None: x itself, in its support.
    relax: Callable[[Any], Any] | None = None
    relaxed_support: tuple[float, float] | None = None
    to_stored: Callable[[Any, float], Any] = times_scale  # the inverse of `from_stored`
    # (x with NaN where values are missing, E[x]) -> what they are filled in with
    fill: Callable[[Any, Any], Any] = mean_itself
    draws_fit: bool = True  # whether `log_prob` is the density that `sample` draws from

    def relaxed(self, x: Any) -> Any:
        """x as a pseudo-input may be."""
        return x if self.relax is None else self.relax(x)

    @property
    def pseudo_input_support(self) -> tuple[float, float]:
        """The range of pseudo-inputs."""
        return self.relaxed_support or self.support


def heads_like_x(*names: str) -> Callable[[Shape], dict[str, Shape]]:
    """`heads` of a likelihood with one number of each name for each number of x."""
    return lambda shape: dict.fromkeys(names, shape)


def divided_by_scale(stored: Array, scale: float) -> Array:
    """`from_stored` of values that are kept as multiples of 1/scale."""
    return stored.astype(jnp.float32) / scale


def log_prob(likelihood: Likelihood, x: Any, heads: tuple[Array, ...], num_leading: int) -> Array:
    """ln p(x|.), summed over the values of each example, in nats.

    Args:
      likelihood: of one value.
      x: [B, *shape], or with more leading axes; or sequences (vamp_jax.sequences).
      heads: the decoder's outputs, [..., *their shape], with `num_leading` leading axes.
      num_leading: how many axes stay.
    Returns:
      An array of `num_leading` axes.
    Raises:
      AssertionError: for heads whose shapes are not those that the likelihood has for this x.
    """
    values_ndim = jax.eval_shape(likelihood.log_prob, x, *heads).ndim
    _check_heads(likelihood, values_of(x), heads, num_leading, values_ndim)
    values = likelihood.log_prob(*_flattened(likelihood, x, heads, values_ndim - num_leading))
    return jnp.sum(values.reshape(*values.shape[:num_leading], -1), axis=-1)


def _flattened(likelihood: Likelihood, x, heads, num_axes: int) -> tuple[Array, ...]:
    """x and the heads with one axis in place of an example's, if each number is a value by itself.

    A CPU is slow at loops over short axes, such as the one channel of an image: without this a
    VAE's step takes 6 % longer.
    """
    shape = values_of(x).shape[values_of(x).ndim - num_axes :]
    together = likelihood.event_axes or set(likelihood.heads(shape).values()) - {shape, ()}
    if together or x is not values_of(x):
        return x, *heads
    return tuple(
        part.reshape(*part.shape[: part.ndim - num_axes], -1) if jnp.ndim(part) else part
        for part in (x, *heads)
    )


def _check_heads(likelihood, x, heads, num_leading: int, values_ndim: int) -> None:
    """Asserts the heads' shapes, or one might broadcast with x; free once compiled."""
    shape = x.shape[x.ndim - (values_ndim - num_leading + likelihood.event_axes) :]
    expected = likelihood.heads(shape)
    for (name, head_shape), head in zip(expected.items(), heads, strict=True):
        chex.assert_shape(head, (..., *head_shape), custom_message=f"{likelihood.name}'s {name}")
        leading = 0 if name in likelihood.free else num_leading
        chex.assert_rank(head, leading + len(head_shape))


@functools.cache
def missing(likelihood: Likelihood) -> Likelihood:
    """The likelihood of data in which NaN stands for a missing value: it counts for nothing.

    A missing value has log-probability 0 and no gradient. Where several numbers make one value,
    the likelihood says what is left: an RGB pixel without one of its channels is missing as a
    whole; a row of counts without some of them is the row of the others. No bits per dimension are
    told, since examples differ in how many values they have.
    """
    # A number inside the support: what is left out is computed too, and must have a gradient.
    low, high = likelihood.support
    inside = min(max(0.0, low), high)

    def log_prob_of_observed(x: Array, *heads: Array) -> Array:
        observed = ~jnp.isnan(x)
        x = jnp.where(observed, x, inside)
        if likelihood.event_axes:
            return likelihood.log_prob(x, *heads, observed=observed)
        return jnp.where(observed, likelihood.log_prob(x, *heads), 0.0)

    def from_stored(stored: Array, scale: float) -> Array:
        return jnp.where(jnp.isnan(stored), jnp.nan, likelihood.from_stored(stored, scale))

    return likelihood._replace(
        log_prob=log_prob_of_observed, from_stored=from_stored, in_bits=False
    )
