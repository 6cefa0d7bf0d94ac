"""The exemplar prior's sum over the nearest examples alone: find them, then sum."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vamp_jax.posteriors import normal_log_prob
from vamp_jax.priors.arrays import in_blocks, widened
from vamp_jax.priors.checks import check_block_size, check_counts, check_real
from vamp_jax.typed_jit import jitted

Array = jax.Array


def nearest(
    query: Array,
    mean: Array,
    count: int,
    *,
    exclude: Array | None = None,
    block_size: int | None = None,
) -> Array:
    """Finds the `count` examples whose encoded means are nearest, the nearest first.

    Args:
      query: encoded means (or draws) to find neighbours of, [B, D].
      mean: encoded means of all N examples, [N, D]; those of the last epoch do.
      count: neighbours of each, at most N (N - 1 with `exclude`).
      exclude: an example for each query that is not its neighbour, [B]; below 0 is none.
      block_size: goes through the examples in blocks of this many, so that memory is
        O(B (block_size + count)); None takes all at once.
    Returns:
      Indices [B, count]; they have no gradient.
    Raises:
      ValueError: for shapes that do not fit together or a count that is too large.
    """
    check_counts("nearest", count=count)
    check_block_size("nearest", block_size)
    check_real("nearest", "query", query)
    check_real("nearest", "mean", mean)
    shapes = jnp.shape(query), jnp.shape(mean)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or shapes[0][1] != shapes[1][1]:
        raise ValueError(
            f"nearest: query must be [B, D] and mean [N, D], but have shapes {shapes[0]} and "
            f"{shapes[1]}."
        )
    if exclude is not None and jnp.shape(exclude) != shapes[0][:1]:
        raise ValueError(
            f"nearest: exclude must be [B] = {shapes[0][:1]}, but has {jnp.shape(exclude)}."
        )
    most = shapes[1][0] - (exclude is not None)
    if count > most:
        raise ValueError(f"nearest: count is {count}, but there are only {most} to choose from.")
    exclude = jnp.full(shapes[0][:1], -1) if exclude is None else jnp.asarray(exclude)
    return _nearest(query, mean, exclude, count=count, block_size=block_size)


@jitted("count", "block_size")
def _nearest(
    query: Array, mean: Array, exclude: Array, *, count: int, block_size: int | None
) -> Array:
    query, mean = jax.lax.stop_gradient(widened((query, mean)))
    centre = jnp.mean(mean, axis=0, keepdims=True)  # round-off shrinks with the numbers
    query, mean = query - centre, mean - centre
    num, best = mean.shape[0], jnp.full((query.shape[0], count), jnp.inf, mean.dtype)
    size = num if block_size is None else min(block_size, num)
    blocks, indices = in_blocks(mean, size), in_blocks(jnp.arange(num), size, fill=num)

    def step(found, block):
        mean, index = block
        products = jnp.matmul(query, mean.T, precision=jax.lax.Precision.HIGHEST)
        distance = jnp.sum(mean**2, axis=-1)[None] - 2.0 * products  # but for query^2
        hidden = (index >= num)[None] | (index[None] == exclude[:, None])
        distance = jnp.where(hidden, jnp.inf, distance)
        index = jnp.broadcast_to(index[None], distance.shape)
        distance, index = (
            jnp.concatenate(pair, axis=1) for pair in zip(found, (distance, index), strict=True)
        )
        least, place = jax.lax.top_k(-distance, count)
        return (-least, jnp.take_along_axis(index, place, axis=1)), None

    (_, index), _ = jax.lax.scan(step, (best, jnp.zeros(best.shape, int)), (blocks, indices))
    return index


def neighbours_log_prob(z: Array, mean: Array, log_var: Array, num_examples: int) -> Array:
    """Evaluates ln [ 1/N sum over k neighbours of N(z | mean_k, exp(log_var) I) ], in nats.

    What is left out only adds: this is at most the exemplar prior's ln p(z), and equal to it where
    the neighbours are all.

    Args:
      z: [..., D]
      mean: of the neighbours of each z, [..., k, D]: encode the examples that `nearest` found.
      log_var: shared, [].
      num_examples: N, or N - 1 where each z's own example is left out.
    Returns:
      [...]
    Raises:
      ValueError: for shapes that do not fit together.
    """
    known = not isinstance(num_examples, jax.core.Tracer)  # a field of `Neighbours` under `jit`
    if known:
        check_counts("neighbours_log_prob", num_examples=num_examples)
    check_real("neighbours_log_prob", "z", z)
    check_real("neighbours_log_prob", "mean", mean)
    shapes = jnp.shape(z), jnp.shape(mean)
    if not shapes[0] or len(shapes[1]) < 2 or shapes[0][-1] != shapes[1][-1]:
        raise ValueError(
            f"neighbours_log_prob: z must be [..., D] and mean [..., k, D], but have shapes "
            f"{shapes[0]} and {shapes[1]}."
        )
    z, mean, log_var = widened((z, mean, log_var))
    ones = tuple(range(z.ndim + 1 - mean.ndim))
    joint = normal_log_prob(jnp.expand_dims(z, -2), jnp.expand_dims(mean, ones), log_var)
    count = math.log(num_examples) if known else jnp.log(jnp.asarray(num_examples, joint.dtype))
    return logsumexp(joint, axis=-1) - count


class Neighbours(NamedTuple):
    """1/N sum_k N(z | mean_k, exp(log_var) I) over the k neighbours of each z: a lower bound.

    It is what a training step takes for the exemplar prior. It does not integrate to one, so there
    is nothing to draw from it. The neighbours of a z are few: a `block_size` saves nothing.
    """

    mean: Array  # of the neighbours of each z, [..., k, D]
    log_var: Array  # []
    num_examples: int  # N

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """See `neighbours_log_prob`: [..., D] -> [...]."""
        check_block_size("log_prob", block_size)
        return neighbours_log_prob(z, *self)

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(k | z) among the neighbours, [..., D] -> [..., k]."""
        check_block_size("responsibilities", block_size)
        z, mean, log_var = widened((z, self.mean, self.log_var))
        joint = normal_log_prob(jnp.expand_dims(z, -2), mean, log_var)
        return jax.nn.softmax(joint, axis=-1)

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Raises a ValueError."""
        raise ValueError("sample: neighbours are no density to draw from; take all, `exemplar`.")
