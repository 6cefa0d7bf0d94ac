"""Checks of the priors' arguments: each raises one sentence in the name of a function."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def check_counts(name: str, **counts: int) -> None:
    """Raises a ValueError unless each is a whole number of at least 1."""
    for field, count in counts.items():
        if not isinstance(count, numbers.Integral) or count < 1:
            raise ValueError(
                f"{name}: {field} is {count!r}; it must be at least 1, and a whole number."
            )


def check_stddev(name: str, stddev: float) -> None:
    """Raises a ValueError unless stddev is finite and not negative."""
    if isinstance(stddev, numbers.Real) and not 0 <= stddev < math.inf:
        raise ValueError(f"{name}: stddev is {stddev}; it must be finite and not negative.")


def check_sizes(name: str, mean: Array) -> None:
    """Raises a ValueError for a mean [K, D] with K = 0 or D = 0."""
    if 0 in jnp.shape(mean):
        raise ValueError(
            f"{name}: K components in D dimensions must both be at least 1, but mean has shape "
            f"{jnp.shape(mean)}."
        )


def num_examples(name: str, field: str, examples: Any) -> int:
    """Returns K of a pytree of arrays [K, ...], or raises a ValueError."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    counts = {shape[:1] for shape in shapes}
    if len(counts) != 1 or not all(counts) or (0,) in counts:
        raise ValueError(
            f"{name}: {field} must be a pytree of arrays [K, ...] with one K of at least 1, but "
            f"has shapes {shapes}."
        )
    return shapes[0][0]
