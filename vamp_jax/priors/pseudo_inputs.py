"""Pseudo-inputs: which of their leaves learn, and how they are kept in a range.

Pseudo-inputs are any pytree of arrays [K, ...]. A leaf is named by its path: "image", "text/0".
"""

import numbers
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
Bounds = tuple[Any, Any]  # (lowest, highest): numbers, arrays of a feature each, or None
Squash = Callable[[Array, Any, Any], Array]  # (u, lowest, highest) -> u in that range


# ---------------------------------------------------------------------------------------------
# Leaves that learn and leaves that are fixed.


def named_leaves(tree: Any) -> list[tuple[str, Any]]:
    """Returns (name, leaf) of each leaf."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), leaf) for path, leaf in leaves]


def is_floating(leaf: Any) -> bool:
    """Says whether an array holds floating numbers, and so can learn."""
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def split_fixed(examples: Any, names: Collection[str] = ()) -> tuple[Any, Any]:
    """Splits a tree into the leaves that learn and the leaves that are fixed.

    Fixed are all leaves that are not floating (labels, masks, lengths) and those named. Train the
    first tree, with no gradient and no optimiser for the second, and give the second to
    `vamp(..., fixed=fixed)`, which joins them again.

    Args:
      examples: a pytree of arrays [K, ...].
      names: of leaves or of subtrees, as "text/lengths".
    Returns:
      Two trees like `examples`, each with None in place of the other's leaves.
    Raises:
      ValueError: for a name that no leaf has.
    """
    if isinstance(names, str):
        names = (names,)
    leaves, treedef = named_leaves(examples), jax.tree.structure(examples)
    for name in names:
        if not any(_within(leaf_name, name) for leaf_name, _ in leaves):
            raise ValueError(
                f"split_fixed: names holds {name!r}, but the leaves are "
                f"{[leaf_name for leaf_name, _ in leaves]}."
            )
    fixed = [
        not is_floating(leaf) or any(_within(leaf_name, name) for name in names)
        for leaf_name, leaf in leaves
    ]
    pairs = list(zip(fixed, [leaf for _, leaf in leaves], strict=True))
    learned = [None if is_fixed else leaf for is_fixed, leaf in pairs]
    constants = [leaf if is_fixed else None for is_fixed, leaf in pairs]
    return jax.tree.unflatten(treedef, learned), jax.tree.unflatten(treedef, constants)


def _within(leaf_name: str, name: str) -> bool:
    return leaf_name == name or leaf_name.startswith(name + "/")


def join_fixed(name: str, learned: Any, fixed: Any) -> Any:
    """Returns one tree of the two of `split_fixed`; the fixed leaves get no gradient."""

    def pick(mine: Any, constant: Any) -> Any:
        if (mine is None) == (constant is None):
            raise ValueError(f"{name}: each leaf must be in pseudo_inputs or in fixed, in one.")
        return jax.lax.stop_gradient(constant) if mine is None else mine

    is_none = lambda leaf: leaf is None  # noqa: E731
    structures = {jax.tree.structure(tree, is_leaf=is_none) for tree in (learned, fixed)}
    if len(structures) != 1:
        raise ValueError(
            f"{name}: pseudo_inputs and fixed must be the two trees of split_fixed, but differ in "
            "structure."
        )
    return jax.tree.map(pick, learned, fixed, is_leaf=is_none)


# ---------------------------------------------------------------------------------------------
# Ranges.


def as_it_is(u: Array, low: Any, high: Any) -> Array:
    """Returns u whatever the range."""
    del low, high
    return u


def clip(u: Array, low: Any, high: Any) -> Array:
    """Clips to [low, high], the paper's hard tanh: outside there is no gradient."""
    return jnp.clip(u, low, high)


def straight_through_clip(u: Array, low: Any, high: Any) -> Array:
    """Clips to [low, high], but lets the gradient through unless a step would lead further out.

    Written for losses that are minimised: below `low` a gradient that is negative passes, which a
    step along its opposite brings back; above `high` one that is positive.
    """
    low = jnp.full_like(u, -jnp.inf) if low is None else jnp.broadcast_to(low, u.shape)
    high = jnp.full_like(u, jnp.inf) if high is None else jnp.broadcast_to(high, u.shape)
    return _straight_through(u, low, high)


@jax.custom_vjp
def _straight_through(u: Array, low: Array, high: Array) -> Array:
    return jnp.clip(u, low, high)


def _straight_through_forward(u, low, high):
    return jnp.clip(u, low, high), (u, low, high)


def _straight_through_backward(kept, cotangent):
    u, low, high = kept
    outward = ((u <= low) & (cotangent > 0)) | ((u >= high) & (cotangent < 0))
    return jnp.where(outward, 0.0, cotangent), jnp.zeros_like(low), jnp.zeros_like(high)


_straight_through.defvjp(_straight_through_forward, _straight_through_backward)


def sigmoid(u: Array, low: Any, high: Any) -> Array:
    """Squashes smoothly: low + (high - low) sigmoid(u); with one side open a softplus."""
    if low is None and high is None:
        return u
    if high is None:
        return low + jax.nn.softplus(u)
    if low is None:
        return high - jax.nn.softplus(-u)
    return low + (high - low) * jax.nn.sigmoid(u)


def inverse_sigmoid(x: Array, low: Any, high: Any, *, margin: float = 0.01) -> Array:
    """Finds the u with sigmoid(u, low, high) = x, to start at examples.

    x is kept off the bounds, where u is infinite: by `margin` of the range, or, with one side
    open, by `margin` itself.
    """
    if low is None and high is None:
        return x
    if high is None:
        return _inverse_softplus(jnp.maximum(x - low, margin))
    if low is None:
        return -_inverse_softplus(jnp.maximum(high - x, margin))
    share = jnp.clip((x - low) / (high - low), margin, 1.0 - margin)
    return jnp.log(share) - jnp.log1p(-share)


def _inverse_softplus(y: Array) -> Array:
    return y + jnp.log(-jnp.expm1(-y))


def bounded(
    name: str,
    pseudo_inputs: Any,
    bounds: Bounds | Mapping[str, Bounds] | None,
    squash: Squash = clip,
) -> Any:
    """Squashes the floating leaves into their bounds: one pair for all, or pairs by leaf name.

    Raises:
      ValueError: in the name of a function, for bounds that cannot be.
    """
    if bounds is None:
        return pseudo_inputs
    if not isinstance(bounds, Mapping):
        return jax.tree.map(
            lambda u: _squashed(f"{name}: bounds", u, bounds, squash), pseudo_inputs
        )
    leaves, treedef = named_leaves(pseudo_inputs), jax.tree.structure(pseudo_inputs)
    unknown = sorted(set(bounds) - {leaf_name for leaf_name, _ in leaves})
    if unknown:
        raise ValueError(
            f"{name}: bounds has {unknown[0]!r}, but the leaves are "
            f"{[leaf_name for leaf_name, _ in leaves]}."
        )
    found = [
        _squashed(f"{name}: bounds[{leaf_name!r}]", leaf, bounds[leaf_name], squash)
        if leaf_name in bounds and bounds[leaf_name] is not None
        else leaf
        for leaf_name, leaf in leaves
    ]
    return jax.tree.unflatten(treedef, found)


def _squashed(what: str, u: Any, pair: Bounds, squash: Squash) -> Any:
    _check_pair(what, pair)
    if not is_floating(u):
        return u
    u = jnp.asarray(u)
    sides = [_side(what, side, u) for side in pair]
    _check_order(what, pair)
    return squash(u, *sides)


def _check_pair(what: str, pair: Any) -> None:
    if isinstance(pair, tuple | list) and len(pair) == 2:
        if all(s is None or isinstance(s, numbers.Real) or hasattr(s, "shape") for s in pair):
            return
    raise ValueError(f"{what} is {pair}; it must be (lowest, highest), None where a side is open.")


def _check_order(what: str, pair: Bounds) -> None:
    """Raises unless lowest <= highest everywhere; traced values cannot be looked at."""
    if any(isinstance(side, jax.core.Tracer) for side in pair):
        return
    low = np.asarray(-np.inf if pair[0] is None else pair[0])
    high = np.asarray(np.inf if pair[1] is None else pair[1])
    if not np.all(low <= high):
        shown = f" is {pair}" if low.ndim == high.ndim == 0 else ""
        raise ValueError(f"{what}{shown}: the lowest must be a number, and not above the highest.")


def _side(what: str, side: Any, u: Array) -> Any:
    """A bound as the squash takes it: None, a number, or an array of u's shape."""
    if side is None:
        return None
    shape = jnp.shape(side)
    if not shape:
        return jnp.asarray(side, u.dtype) if isinstance(side, jax.Array) else float(side)
    try:
        fits = jnp.broadcast_shapes(shape, u.shape[1:]) == u.shape[1:]
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{what} has shape {shape}; it must be one number or fit one pseudo-input, "
            f"{u.shape[1:]}."
        )
    return jnp.broadcast_to(jnp.asarray(side, u.dtype), u.shape)
