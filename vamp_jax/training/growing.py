"""K grown during training: components start as copies of one, and part in two time after time.

Copies of a component are the same mixture as that component with their weights added up, so the
arrays keep their shapes [K, ...], and how far a run has grown is a function of its epoch alone.
After s doublings component k is in the group floor(2^s k / K): min(2^s, K) groups within those
before, whose sizes differ by one at most. The members of a group are copies of its first. At the
next doubling the second half of each moves away together, by a little noise.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.random_streams import GROWTH, stream

Array = jax.Array

OF_COMPONENTS = ("pseudo_inputs", "weight_logits")  # the prior's parameters that are [K, ...]


class Growth(NamedTuple):
    """How the components grow, static under `jit`."""

    num_components: int  # K, which it ends with
    epochs: int  # from one doubling to the next
    stddev: Any  # of the noise that parts two halves, as the encoder sees them; that of a start
    seed: int  # of the noise


def num_distinct(growth: Growth, epoch: Array) -> Array:
    """Returns how many components are distinct in an epoch, min(2^s, K)."""
    counts = np.array([len(np.unique(row)) for row in _originals(growth.num_components)])
    return jnp.asarray(counts, jnp.int32)[_doublings(growth, epoch)]


def tied(growth: Growth, params: dict[str, Any], epoch: Array) -> dict[str, Any]:
    """Sets every copy to its original, after the steps of an epoch.

    Copies have the same gradients, but sums of other rows may be rounded in another way: without
    this they would part by that, sooner or later.

    Args:
      params: the prior's.
    """
    original = _original(growth, epoch)
    names = [name for name in OF_COMPONENTS if name in params]
    return params | {
        name: jax.tree.map(lambda leaf: leaf[original], params[name]) for name in names
    }


def parted(
    growth: Growth, autoencoder: Autoencoder, variables: Variables, epoch: Array
) -> dict[str, Any]:
    """Returns the prior's parameters for the epoch after `epoch`, which may begin with a doubling.

    Args:
      variables: with the prior's parameters `tied`.
    """
    params = variables["params"]["prior"]
    before, after = _original(growth, epoch), _original(growth, epoch + 1)
    seen = autoencoder.pseudo_inputs(variables)
    rng = stream(growth.seed, GROWTH, epoch)
    noise = growth.stddev * jax.random.normal(rng, seen.shape, seen.dtype)
    moved = autoencoder.prior.at_examples(seen + noise[after])  # copies move alike
    moves = jnp.reshape(after != before, (-1, *[1] * (seen.ndim - 1)))
    return params | {"pseudo_inputs": jnp.where(moves, moved, params["pseudo_inputs"])}


def _original(growth: Growth, epoch: Array) -> Array:
    """The component that each is a copy of in an epoch, [K]."""
    table = jnp.asarray(_originals(growth.num_components), jnp.int32)
    return table[_doublings(growth, epoch)]


def _doublings(growth: Growth, epoch: Array) -> Array:
    """How often the components have doubled before an epoch, the first of which is 1."""
    return jnp.minimum((epoch - 1) // growth.epochs, len(_originals(growth.num_components)) - 1)


def _originals(num_components: int) -> np.ndarray:
    """After 0, 1, ... doublings, until all are distinct: what each is a copy of, [S + 1, K]."""
    k = np.arange(num_components)
    doublings = range((num_components - 1).bit_length() + 1)
    groups = [(k << done) // num_components for done in doublings]
    return np.stack([np.searchsorted(group, group) for group in groups])
