"""Arrays that stay in their file: mapped into memory, read where they are looked at."""

import contextlib
import mmap
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from vamp_jax.errors import UsageError

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


def as_they_are(data: Any) -> dict[str, tuple[int, ...]]:
    """What the system says of the files of mapped arrays: size, time of the last change, which."""
    arrays = data.values() if isinstance(data, dict) else [data]
    paths = {getattr(array, "filename", None) for array in arrays} - {None}
    return {path: _as_it_is(path) for path in sorted(map(os.fspath, paths))}


def check_unchanged(before: dict[str, tuple[int, ...]]) -> None:
    """Raises a UsageError for a file that is not as it was: of one cut off, reading would kill us.

    Args:
      before: from `as_they_are`.
    """
    for path, was in before.items():
        if _as_it_is(path) != was:
            raise UsageError(
                f"{path} was changed, moved or removed while a run reads it: put it back as it was "
                "and give the same command again; it goes on from the last checkpoint."
            )


def _as_it_is(path: str) -> tuple[int, ...]:
    try:
        found = os.stat(path)
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


def _pages(array: np.ndarray) -> mmap.mmap | None:
    """The mapping that an array, or a view of it, lies in; None of one in memory."""
    pages = getattr(array, "_mmap", None)  # numpy.memmap's
    return pages if isinstance(pages, mmap.mmap) else None
