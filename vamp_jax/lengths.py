"""Sequences of like length side by side, cut to the shortest of a few lengths that holds them.

A padded step costs as much as a real one, and where a few sequences are long nearly all steps of
a batch of any are padding. So those of like length share a batch in training (`alike`), and what is
computed of a batch is compiled for each of a few lengths, of which one is taken (`cut`). What comes
out is the same but for the rounding of sums.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.parallel import AXIS
from vamp_jax.sequences import is_sequences

Array = jax.Array


def cuts(x: Any) -> tuple[int, ...]:
    """T/4 and T/2 of sequences [N, T, ...], where any is as short; () of other data.

    By T, not by how many are short: another x of the same shape is to need no other program.
    """
    if not is_sequences(x):
        return ()
    num_steps, shortest = x["values"].shape[1], max(1, int(np.min(x["length"])))
    return tuple(part for part in (num_steps // 4, num_steps // 2) if part >= shortest)


def classes(x: Any, cuts: tuple[int, ...]) -> Array | None:
    """The number of the cut that each sequence needs, [N]; None without cuts."""
    return jnp.searchsorted(jnp.asarray(cuts), x["length"]) if cuts else None


def alike(order: Array, of_class: Array, batch_size: int, rng: Array) -> Array:
    """Brings an epoch's order [N] to batches of sequences of one class, or two neighbouring ones.

    They stand by class, from a random place on, so that any sequence may be in the last batch,
    which is smaller; the others change places at random.
    """
    place_rng, batch_rng = jax.random.split(rng)
    order = order[jnp.argsort(of_class[order], stable=True)]
    order = jnp.roll(order, jax.random.randint(place_rng, (), 0, len(order)))
    whole = len(order) // batch_size
    batches = order[: whole * batch_size].reshape(whole, batch_size)
    batches = jax.random.permutation(batch_rng, batches)
    return jnp.concatenate([batches.reshape(-1), order[whole * batch_size :]])


def cut(function: Callable[[Any], Any], x: Any, cuts: tuple[int, ...], num_devices: int = 1) -> Any:
    """function(x), with x [N, T, ...] cut to the shortest of these lengths that holds it, or whole.

    What the function returns must have the same shape for any T.

    Args:
      num_devices: that call it together, of which all take the same length.
    """
    if not cuts:
        return function(x)
    longest = jnp.max(x["length"])
    if num_devices > 1:
        longest = jax.lax.pmax(longest, AXIS)
    num_steps = x["values"].shape[1]
    shorter = [length for length in cuts if length < num_steps]
    branches = [functools.partial(_of_first, function, n) for n in (*shorter, num_steps)]
    return jax.lax.switch(jnp.searchsorted(jnp.asarray(shorter), longest), branches, x)


def _of_first(function: Callable[[Any], Any], num_steps: int, x: Any) -> Any:
    """function(x) of the first steps alone."""
    first = {name: leaf[:, :num_steps] for name, leaf in x.items() if name != "length"}
    return function(x | first)
