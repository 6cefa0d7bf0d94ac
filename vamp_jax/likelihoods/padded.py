"""The likelihood of sequences of several lengths, from that of one value."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.errors import UsageError
from vamp_jax.likelihoods.likelihood import Likelihood
from vamp_jax.sequences import is_sequences

Array = jax.Array


def full_length(values: Array) -> dict[str, Array]:
    """Sequences [N, T, *F] that all have T steps."""
    return {"values": values, "length": jnp.full(len(values), values.shape[1], jnp.int32)}


def real_steps(x: dict[str, Array]) -> Array:
    """Which steps are no padding: values [..., T, *F] and length [...] -> [..., T]."""
    num_steps = x["values"].shape[jnp.ndim(x["length"])]
    return jnp.arange(num_steps) < x["length"][..., None]


@functools.cache
def padded(likelihood: Likelihood) -> Likelihood:
    """The likelihood of {"values": [B, T, ...], "length": [B]}: padded steps count for nothing.

    A step beyond the length has log-probability 0 and no gradient. `from_stored` takes arrays
    [B, T, ...], too, all of whose steps are real.

    Raises:
      UsageError: (a ValueError) for a likelihood with free heads.
    """
    if likelihood.free:
        raise UsageError(
            f"Sequences cannot have the likelihood {likelihood.name}, whose {likelihood.free[0]} "
            "is a parameter of the decoder and no function of z: take one whose heads all depend "
            "on z, such as gaussian('decoded')."
        )

    def log_prob(x: dict[str, Array], *heads: Array) -> Array:
        values = likelihood.log_prob(x["values"], *heads)
        real = real_steps(x)
        ones = x["values"].ndim - likelihood.event_axes - real.ndim
        real = real.reshape(*real.shape, *[1] * ones)
        return jnp.where(real, values, 0.0)

    def from_stored(stored: Any, scale: float) -> dict[str, Array]:
        stored = stored if is_sequences(stored) else full_length(stored)
        values = likelihood.from_stored(stored["values"], scale)
        return {"values": values, "length": jnp.asarray(stored["length"], jnp.int32)}

    def relax(x: dict[str, Array]) -> dict[str, Array]:
        return x | {"values": likelihood.relaxed(x["values"])}

    return likelihood._replace(log_prob=log_prob, from_stored=from_stored, relax=relax)
