"""Checks of the flows' arguments: each raises one sentence in the name of a function."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def check_trailing(name: str, wanted: dict[str, tuple[int, ...]], arrays: dict[str, Any]) -> None:
    """Raises unless each array ends in its wanted axes and the leading axes broadcast."""
    shapes = {field: jnp.shape(array) for field, array in arrays.items()}
    leading = []
    for field, axes in wanted.items():
        split = len(shapes[field]) - len(axes)
        if split < 0 or shapes[field][split:] != axes:
            ends = ", ".join(map(str, ("...", *axes)))
            raise ValueError(f"{name}: {field} must be [{ends}], but has shape {shapes[field]}.")
        leading.append(shapes[field][:split])
    try:
        jnp.broadcast_shapes(*leading)
    except ValueError:
        listed = ", ".join(f"{field} {shape}" for field, shape in shapes.items())
        raise ValueError(f"{name}: leading axes must broadcast, but shapes are {listed}.") from None


def last_axis(name: str, z: Array) -> int:
    """Returns D of z [..., D]."""
    if not hasattr(z, "shape"):
        raise ValueError(f"{name}: z must be an array, not a {type(z).__name__}.")
    shape = jnp.shape(z)
    if not shape or shape[-1] < 1:
        raise ValueError(f"{name}: z must be [..., D] with D of at least 1, but has shape {shape}.")
    return shape[-1]


def check_sizes(name: str, **sizes: int) -> None:
    """Raises unless each is a whole number of at least 1."""
    for field, size in sizes.items():
        if not isinstance(size, numbers.Integral) or size < 1:
            raise ValueError(
                f"{name}: {field} is {size!r}; it must be at least 1, and a whole number."
            )
