"""Several devices: the mapped axis, replicated values, sums, and the pseudo-inputs shared out.

The only place that calls `jax.pmap` for training.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"  # the mapped axis of training, over which batch norm sums


def replicated() -> NamedSharding:
    """Returns the sharding of a value that every device of this process holds whole."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


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


class Mapped(NamedTuple):
    """A function mapped over the devices."""

    function: Any  # what `jax.pmap` returns
    local: np.ndarray  # its last argument: pmap wants one with the devices' axis

    def __call__(self, *args):
        return self.function(*args, self.local)

    def temporary_bytes(self, *args) -> int:
        """Compiles it for these arguments; returns what it takes on a device beside them."""
        analysis = self.function.lower(*args, self.local).compile().memory_analysis()
        if analysis is None:  # this platform's compiler does not say
            return 0
        new = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
        return analysis.temp_size_in_bytes + max(0, new)


def over_devices(function: Callable, num_replicated: int) -> Mapped:
    """Returns `function` mapped over all devices of all processes: replicated in, replicated out.

    Args:
      function: takes `num_replicated` trees, the first of which is donated; may use AXIS.
      num_replicated: how many arguments it has.
    """
    mapped = jax.pmap(
        lambda *args: function(*args[:-1]),
        axis_name=AXIS,
        in_axes=(*[None] * num_replicated, 0),
        out_axes=None,
        donate_argnums=(0,),
    )
    return Mapped(mapped, np.zeros(jax.local_device_count(), np.int32))
