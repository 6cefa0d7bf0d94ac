"""What an x is: an array [N, ...], or sequences of several lengths as a dictionary of arrays,

    {"values": [N, T, *F], "length": whole numbers [N]},

padded at their ends. A step beyond the length counts for nothing, whatever is there. In training
there may be "kept" [N, T] beside: 0 where a decoder does not get to see a step (word drop-out).
Nothing here imports JAX.
"""

from typing import Any

import numpy as np

Sequences = dict[str, Any]


def is_sequences(x: Any) -> bool:
    """Says whether x, or the split of a data set, is sequences with lengths."""
    return isinstance(x, dict)


def values_of(x: Any) -> Any:
    """The array of values, [N, ...]."""
    return x["values"] if is_sequences(x) else x


def num_examples(x: Any) -> int:
    """N."""
    return len(values_of(x))


def rows_of(x: Any, index: Any) -> Any:
    """The examples of these numbers."""
    if is_sequences(x):
        return {name: leaf[index] for name, leaf in x.items()}
    return x[index]


def trimmed(x: Any) -> Any:
    """The examples without the steps that are padding in all of them; other data as it is."""
    if not is_sequences(x):
        return x
    return x | {"values": x["values"][:, : max(1, int(np.max(x["length"])))]}


def check_examples(name: str, x: Any, x_shape: tuple[int, ...]) -> None:
    """Raises a ValueError in the name of a function unless x are N >= 1 examples of this shape.

    Of sequences the number of steps T is free.
    """
    if not is_sequences(x):
        if not x.shape or not len(x) or x.shape[1:] != tuple(x_shape):
            wanted = ", ".join(map(str, x_shape))
            raise ValueError(f"{name}: x must be [N, {wanted}], N >= 1, not {x.shape}.")
        return
    shapes = {leaf: np.shape(array) for leaf, array in x.items()}
    values, length = shapes.get("values", ()), shapes.get("length", ())
    if not values or not values[0] or values[2:] != tuple(x_shape[1:]) or length != values[:1]:
        wanted = ", ".join(map(str, ("N", "T", *x_shape[1:])))
        raise ValueError(
            f"{name}: x must be {{'values': [{wanted}], 'length': [N]}}, N >= 1, not {shapes}."
        )
    if not isinstance(x["length"], np.ndarray):  # traced values cannot be looked at
        return
    shortest, longest = np.min(x["length"]), np.max(x["length"])
    if not 1 <= shortest <= longest <= values[1]:
        raise ValueError(
            f"{name}: lengths must be from 1 to T = {values[1]}, but go from {shortest} to "
            f"{longest}."
        )
