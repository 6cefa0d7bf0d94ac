"""Arrays that stay in their file: mapped into memory, read where they are looked at."""

import contextlib
import mmap
from collections.abc import Callable, Iterator

import numpy as np

BLOCK_BYTES = 16 << 20
# Rows that are read one by one before they are let go of: the system maps some 64 KiB around each.
SCATTERED = 1000


def blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yields an array in blocks of its first axis with their starts, and lets go of each."""
    rows = max(1, BLOCK_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield start, array[start : start + rows]
        release(array)


def any_of(condition: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> bool:
    """Whether a condition holds for any value, with no more memory than a block takes."""
    return any(bool(condition(block).any()) for _, block in blocks(array))


def rows(array: np.ndarray, index: np.ndarray) -> np.ndarray:
    """array[index], with no more of the file in memory than a block of these rows takes."""
    if _pages(array) is None:
        return array[index]
    found = np.empty((index.size, *array.shape[1:]), array.dtype)
    for start in range(0, index.size, SCATTERED):
        part = index.reshape(-1)[start : start + SCATTERED]
        found[start : start + SCATTERED] = array[part]
        release(array)
    return found.reshape(*index.shape, *array.shape[1:])


def release(array: np.ndarray) -> None:
    """Gives back the memory of what has been read of a mapped array; it stays in its file."""
    pages = _pages(array)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            pages.madvise(mmap.MADV_DONTNEED)


def _pages(array: np.ndarray) -> mmap.mmap | None:
    """The mapping that an array, or a view of it, lies in; None of one in memory."""
    pages = getattr(array, "_mmap", None)  # numpy.memmap's
    return pages if isinstance(pages, mmap.mmap) else None
