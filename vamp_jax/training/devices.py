"""Several devices: replicated values, sums, and the pseudo-inputs shared out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vamp_jax.parallel import AXIS


def replicated() -> NamedSharding:
    """Returns the sharding of a value that every device of this process holds whole."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def split() -> NamedSharding:
    """Returns the sharding of a value with a row for each device of this process."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))


def sum_over(tree: Any, num_devices: int) -> Any:
    """Sums over the devices, inside the mapped function."""
    # On a lone one XLA would copy every tensor.
    return tree if num_devices == 1 else jax.lax.psum(tree, AXIS)


def share_out(encode: Callable, num_devices: int) -> Callable:
    """Returns the encoder of K pseudo-inputs with its work shared, inside the mapped function.

    Each device encodes K/n of them and gathers the rest. The gradient of the gathering hands every
    device's share of the gradient back to the device that encoded, so a sum over devices of local
    gradients is right.
    """
    if num_devices == 1:
        return encode

    def encode_share(inputs):
        count = jax.tree.leaves(inputs)[0].shape[0]
        share = -(-count // num_devices)
        # The last devices may have less to do: they take the last rows again, dropped below.
        rows = jnp.minimum(jax.lax.axis_index(AXIS) * share + jnp.arange(share), count - 1)
        encoded = encode(jax.tree.map(lambda u: _rows(u, rows), inputs))
        return jax.tree.map(
            lambda part: jax.lax.all_gather(part, AXIS, tiled=True)[:count], encoded
        )

    return encode_share


def _rows(array, rows):
    # By flat rows: XLA for TPU would lay [K, H, W, C], and all that follows it, in padded tiles.
    return array.reshape(len(array), -1)[rows].reshape(len(rows), *array.shape[1:])
