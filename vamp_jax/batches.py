"""Applies a function to many examples, a batch at a time."""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from vamp_jax.parallel import wait_for


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


def in_dispatches(
    function: Callable[..., Any],
    arrays: tuple[Any, ...],
    shape: tuple[int, int, int],
    done: Any = None,
    report: Callable[[Any], None] = lambda done: None,
) -> Any:
    """Applies a function over all devices to arrays [N, ...], from where it was interrupted.

    Args:
      function: a mapped one: (arrays [devices, batches, rows, ...]) -> a tree of arrays
        [devices, batches, rows].
      arrays: trees of arrays [N, ...], N >= 1.
      shape: devices, batches and rows of one dispatch. The last is padded with the last row, and
        the padding dropped.
      done: what `report` got in an interrupted call with the same arguments, to go on after it.
      report: gets the results of all examples done so far, after each dispatch.
    Returns:
      The tree of NumPy arrays [N].
    """
    count, at_once = len(jax.tree.leaves(arrays)[0]), math.prod(shape)
    for start in range(len(jax.tree.leaves(done)[0]) if done else 0, count, at_once):
        rows = np.minimum(np.arange(start, start + at_once), count - 1)
        of_rows = jax.tree.map(
            lambda leaf: np.asarray(leaf)[rows].reshape(*shape, *leaf.shape[1:]),  # noqa: B023
            arrays,
        )
        found = function(of_rows)
        wait_for(found)
        kept = count - start
        result = jax.tree.map(lambda leaf: np.asarray(leaf).reshape(-1)[:kept], found)  # noqa: B023
        done = jax.tree.map(lambda *parts: np.concatenate(parts), done, result) if done else result
        report(done)
    return done
