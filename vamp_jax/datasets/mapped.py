"""Arrays that stay in their file: mapped into memory, read where they are looked at."""

import contextlib
import mmap
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BLOCK_BYTES = 16 << 20


def blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields an array in blocks of its first axis with their starts, and lets go of each."""
    rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
        release(array)


def any_of(condition: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> bool:
    """Whether a condition holds for any value, with no more memory than a block takes."""
    return any(bool(condition(block).any()) for _, block in blocks(array))


def release(data: Any) -> None:
    """Gives back the memory of what has been read of mapped arrays; it stays in their file.

    Args:
      data: an array or a dictionary of them; those that are not mapped stay as they are.
    """
    for array in data.values() if isinstance(data, dict) else [data]:
        pages = getattr(array, "_mmap", None)  # numpy.memmap's, of its views, too
        if isinstance(pages, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            with contextlib.suppress(OSError, ValueError):
                pages.madvise(mmap.MADV_DONTNEED)
