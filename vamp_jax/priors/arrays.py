"""Arrays as the densities want them: float32 at least, points in rows, components in blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

Array = jax.Array


def widened(tree: Any) -> Any:
    """The arrays of a tree in one type: float64 if one of them is, else float32."""
    double = any(jnp.result_type(leaf) == jnp.float64 for leaf in jax.tree.leaves(tree))
    dtype = jnp.float64 if double else jnp.float32
    return jax.tree.map(lambda leaf: jnp.asarray(leaf).astype(dtype), tree)


def in_rows(z: Array) -> tuple[Array, Callable[[Array], Array]]:
    """Points [..., D] as [S, D], and what brings values [S, ...] of theirs into z's leading axes.

    Axes that are sharded on an explicit mesh come first, so that each device keeps its points.
    """
    leading, dim = z.shape[:-1], z.shape[-1]
    spec = (*jax.typeof(z).sharding.spec, *[None] * z.ndim)[: len(leading)]
    sharded = [axis for axis, name in enumerate(spec) if name is not None]
    front = list(range(len(sharded)))
    moved = jnp.moveaxis(z, sharded, front) if sharded else z

    def restore(values: Array) -> Array:
        values = jnp.reshape(values, (*moved.shape[:-1], *values.shape[1:]))
        return jnp.moveaxis(values, front, sharded) if sharded else values

    return jnp.reshape(moved, (-1, dim)), restore


def placed_like(x: Array, z: Array) -> Array:
    """x [...] as the leading axes of z [..., D] are sharded on an explicit mesh."""
    spec = jax.typeof(z).sharding.spec[: x.ndim]
    if all(name is None for name in spec):
        return x
    return jax.sharding.reshard(x, PartitionSpec(*spec))


def replicated(x: Array) -> Array:
    """The array whole on every device, where it is sharded on an explicit mesh."""
    if all(name is None for name in jax.typeof(x).sharding.spec):
        return x
    return jax.sharding.reshard(x, PartitionSpec())


def rows_at(x: Array, index: Array) -> Array:
    """x[index], [K, ...] at [S] -> [S, ...]; on an explicit mesh sharded as the index is."""
    spec = jax.typeof(index).sharding.spec
    x = replicated(x)
    if all(name is None for name in spec):
        return x[index]
    return x.at[index].get(out_sharding=PartitionSpec(*spec, *[None] * (x.ndim - 1)))


def in_blocks(x: Array, block_size: int, fill: float = 0.0) -> Array:
    """[K, ...] as [M, block_size, ...], the last block filled up."""
    x = replicated(x)
    widths = [(0, -x.shape[0] % block_size)] + [(0, 0)] * (x.ndim - 1)
    padded = jnp.pad(x, widths, constant_values=fill)
    return jnp.reshape(padded, (-1, block_size, *x.shape[1:]))


@jax.custom_jvp
def _once(tree: Any) -> Any:
    return tree


@_once.defjvp
def _refuse_twice(primals, tangents):
    raise ValueError("log_prob: with block_size there is a first derivative only; leave it out.")


def once_differentiable(function: Callable[..., Array]) -> Callable[..., Array]:
    """The same function of arrays, whose second derivative is refused in a sentence.

    JAX drops the derivative rules of what runs in a loop when it differentiates the loop twice,
    and then fails somewhere in the float64 of the density.
    """
    wrapped = jax.custom_jvp(function)

    @wrapped.defjvp
    def first_derivative(primals, tangents):
        return jax.jvp(function, _once(primals), tangents)

    return wrapped
