"""Applies a function to many examples, a batch at a time."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def in_batches(
    function: Callable[..., Any],
    arrays: tuple[Any, ...],
    rows: int,
    show: Callable[[int], None] = lambda done: None,
) -> Any:
    """Applies a function to arrays [N, ...] in batches of one size, so that it compiles once.

    Args:
      function: (arrays [rows, ...]) -> a tree of arrays [rows, ...].
      arrays: trees of arrays [N, ...], N >= 1.
      rows: size of a batch. The last one is padded with its last row, and the padding dropped.
      show: gets the number of examples done.
    Returns:
      The tree of NumPy arrays [N, ...].
    """
    count = len(jax.tree.leaves(arrays)[0])
    parts = []
    for start in range(0, count, rows):
        index = np.minimum(np.arange(start, start + rows), count - 1)
        part = function(*jax.tree.map(lambda leaf: leaf[index], arrays))  # noqa: B023
        kept = min(rows, count - start)
        parts.append(jax.tree.map(lambda leaf: np.asarray(leaf)[:kept], part))  # noqa: B023
        show(start + kept)
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
