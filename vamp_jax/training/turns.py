"""A few components a step: the VampPrior's pseudo-inputs take turns at being encoded.

Each step encodes `count` of the K pseudo-inputs and takes the others' components as they were last
encoded, so a step costs about as much as one with the standard prior. All are encoded anew when an
epoch starts; the order of the turns is a random permutation of the epoch's. In a step

    p(z) = 1/K ( sum_{k in turn} q(z | u_k) + sum_{the others} q'(z | u_k) )

where q' is from at most ceil(K / count) - 1 steps before; `drift` says how far it is from q. Only
the components in turn have a gradient. Scaled up by K / count, its mean over the turns would be
that through all of them; but with a twentieth of them in turn the encoder then runs away from the
others' components within a few epochs, and with a fifth it learns no better (docs/speed.md).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections

from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.diagnostics import normal_kl_per_unit

Array = jax.Array


class Turns(NamedTuple):
    """The order of the turns, and all components as last encoded."""

    encoded: Any  # (mean, log_var) [K, D], or these with rotations [K, D, D]
    order: Array  # of the epoch's turns, [K]


def period(config: ml_collections.ConfigDict) -> float:
    """Steps in which each pseudo-input has one turn: K / components_per_step, or 1."""
    count = config.components_per_step
    return max(1.0, config.num_components / count) if count else 1.0


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
    components = jax.tree.map(lambda old, new: old.at[rows].set(new), turns.encoded, fresh)
    before = jax.tree.map(lambda old: old[rows], turns.encoded)
    drift = jnp.mean(_kl(jax.lax.stop_gradient(fresh), before))
    turns = turns._replace(encoded=jax.lax.stop_gradient(components))
    return autoencoder.density(variables, components), turns, drift


def _kl(new: Any, old: Any) -> Array:
    """KL(new || old) of each component, [count], in nats: (mean, log_var), rotated or not."""
    (mean, log_var, *rotation), (old_mean, old_log_var, *old_rotation) = new, old
    if not rotation:
        return jnp.sum(normal_kl_per_unit(mean, log_var, old_mean, old_log_var), axis=-1)
    turned = jnp.einsum("kji,kjl->kil", *old_rotation, *rotation)  # from the new axes to the old
    variance = jnp.einsum("kij,kj->ki", turned**2, jnp.exp(log_var))  # along the old axes
    distance = jnp.einsum("kij,kj->ki", turned, mean) - old_mean
    relative = (variance + distance**2) * jnp.exp(-old_log_var)
    return 0.5 * jnp.sum(relative + old_log_var - log_var - 1.0, axis=-1)
