"""A few components a step: the VampPrior's pseudo-inputs take turns at being encoded.

Each step encodes `count` of the K pseudo-inputs and takes the others' components as they were last
encoded, so a step costs about as much as one with the standard prior. All are encoded anew when an
epoch starts; the order of the turns is a random permutation of the epoch's. In a step

    p(z) = 1/K ( sum_{k in turn} q(z | u_k) + sum_{the others} q'(z | u_k) )

where q' is from at most K / count - 1 steps before. The gradient through the components in turn is
multiplied by K / count: its mean over the choice of the turn is the gradient through all of them,
as far as the others are what they would be if encoded now. `drift` says how far they are from it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.diagnostics import normal_kl_per_unit

Array = jax.Array


class Turns(NamedTuple):
    """The order of the turns, and all components as last encoded."""

    encoded: Any  # (mean, log_var) [K, D]
    order: Array  # of the epoch's turns, [K]


def start(autoencoder: Autoencoder, variables: Variables, rng: Array, encode: Callable) -> Turns:
    """Encodes all pseudo-inputs at the start of an epoch and draws the order of the turns."""
    encoded = jax.lax.stop_gradient(encode(autoencoder.pseudo_inputs(variables)))
    return Turns(encoded, jax.random.permutation(rng, len(encoded[0])))


def rows_of(turns: Turns, step: Array, count: int) -> Array:
    """Returns the indices of the pseudo-inputs in turn at a step of the epoch, [count]."""
    return turns.order[(step * count + jnp.arange(count)) % len(turns.order)]


def density(
    autoencoder: Autoencoder, variables: Variables, turns: Turns, rows: Array, encode: Callable
) -> tuple[Any, Turns, Array]:
    """Builds p(z) with the pseudo-inputs `rows` encoded now and the others as they were.

    Returns:
      The density; the turns with the new encodings; the drift, the mean over `rows` of
      KL(q(z|u_k) now || as last encoded), in nats.
    """
    u = jax.tree.map(lambda leaf: leaf[rows], autoencoder.pseudo_inputs(variables))
    fresh = encode(u)
    scale = len(turns.order) / len(rows)
    scaled = jax.tree.map(lambda x: _scale_gradient(x, scale), fresh)
    components = jax.tree.map(lambda old, new: old.at[rows].set(new), turns.encoded, scaled)
    before = jax.tree.map(lambda old: old[rows], turns.encoded)
    drift = jnp.mean(
        jnp.sum(normal_kl_per_unit(*jax.lax.stop_gradient(fresh[:2]), *before[:2]), axis=-1)
    )
    turns = turns._replace(encoded=jax.lax.stop_gradient(components))
    return autoencoder.density(variables, components), turns, drift


def _scale_gradient(x: Array, scale: float) -> Array:
    """x as it is, with its gradient multiplied."""
    held = jax.lax.stop_gradient(x)
    return held + scale * (x - held)
