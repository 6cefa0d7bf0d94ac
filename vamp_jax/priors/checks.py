"""Checks of the priors' arguments: each raises one sentence in the name of a function."""

import math
import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array


def check_counts(name: str, **counts: int) -> None:
    """Raises a ValueError unless each is a whole number of at least 1."""
    for field, count in counts.items():
        if not isinstance(count, numbers.Integral) or count < 1:
            raise ValueError(
                f"{name}: {field} is {count!r}; it must be at least 1, and a whole number."
            )


def check_block_size(name: str, block_size: int | None) -> None:
    """Raises a ValueError unless block_size is None or a whole number of at least 1."""
    if block_size is not None:
        check_counts(name, block_size=block_size)


def check_component(name: str, component: Any, num_components: int) -> None:
    """Raises a ValueError unless component is one of 0, ..., K - 1 (or traced, so not known)."""
    if isinstance(component, jax.core.Tracer):
        return
    whole = isinstance(component, numbers.Integral) and not isinstance(component, bool)
    if isinstance(component, jax.Array | np.ndarray):
        whole = component.shape == () and bool(jnp.issubdtype(component.dtype, jnp.integer))
    if not whole or not 0 <= int(component) < num_components:
        raise ValueError(
            f"{name}: component is {component!r}; it must be a whole number from 0 to "
            f"{num_components - 1}."
        )


def check_real(name: str, field: str, array: Any) -> None:
    """Raises a ValueError unless array is an array of real numbers."""
    if not hasattr(array, "shape") or not hasattr(array, "dtype"):
        raise ValueError(f"{name}: {field} must be an array, not a {type(array).__name__}.")
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
        raise ValueError(f"{name}: {field} must hold real numbers, but is of {array.dtype}.")


def _is_known(array: Any) -> bool:
    """Whether the values of an array can be looked at: it is not traced, nor on another host."""
    if isinstance(array, jax.core.Tracer):
        return False
    return not isinstance(array, jax.Array) or array.is_fully_addressable


def check_weights(name: str, log_weight: Array) -> None:
    """Raises a ValueError unless the weights sum to 1; traced values cannot be looked at."""
    if not _is_known(log_weight):
        return
    total = np.exp(np.asarray(log_weight, np.float64)).sum()
    if not abs(total - 1.0) < 0.01:
        raise ValueError(
            f"{name}: the prior's weights exp(log_weight) sum to {total:.4g}; they must sum to 1 "
            "(subtract logsumexp(log_weight))."
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


def check_no_nan(name: str, field: str, tree: Any) -> None:
    """Raises a ValueError for a NaN in a floating leaf; traced values cannot be looked at."""
    for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
        if not _is_known(leaf) or not jnp.issubdtype(leaf.dtype, jnp.floating):
            continue
        missing = np.isnan(np.asarray(leaf))
        if missing.any():
            where = jax.tree_util.keystr(path, simple=True, separator="/")
            row = int(np.argwhere(missing)[0][0])
            raise ValueError(
                f"{name}: {field} must not hold NaN, but there is one in example {row}"
                + (f" of the leaf {where!r}." if where else ".")
            )
