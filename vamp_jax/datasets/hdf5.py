"""Counts and other arrays in HDF5 files, and AnnData's .h5ad, which is HDF5 in a known layout.

Only what lies in the file itself is read: links to other files, and arrays whose values lie
elsewhere, are refused, and sizes are checked before memory is taken.
"""

import contextlib
import math
import pathlib
from collections.abc import Iterator

import numpy as np

from vamp_jax.datasets import arrays, files
from vamp_jax.datasets.dataset import Found
from vamp_jax.errors import UsageError

# Columns of a table of cells that say what kind each is; the first that is there.
_LABEL_COLUMNS = ("cell_type", "celltype", "label", "labels")
_MAX_TEXT = 1_000
_SPARSE = {"csr_matrix": "csr", "csc_matrix": "csc"}


def read(path: pathlib.Path) -> Found:
    """The arrays at the top of a .h5 file: X and, for labels, Y; or named as those of a .npz.

    Raises:
      UsageError: h5py is not installed, the file is damaged, an array is none of numbers.
    """
    with _opened(path) as (file, where):
        names = [name for name in file if arrays.role(name)]
        others = [files.shown(name) for name in file if name not in names]
        held = {name: _array(file, name, where) for name in names}
    return arrays.found(where, held, others)


def read_anndata(path: pathlib.Path) -> Found:
    """X of a .h5ad file, dense or sparse, [cells, genes]; labels from the table of cells.

    Raises:
      UsageError: as `read`; or it was written in a layout older than AnnData 0.8.
    """
    with _opened(path) as (file, where):
        if "X" not in file:
            raise UsageError(f"{where} has no X: write it with anndata's write_h5ad")
        if _link(file, "X", where) == "group":
            held = {"x": _sparse(file["X"], f"{where}: X")}
        else:
            held = {"x": _array(file, "X", where)}
        if "obs" in file and _link(file, "obs", where) == "group":
            column = next((name for name in _LABEL_COLUMNS if name in file["obs"]), None)
            if column:
                held["labels"] = _column(file["obs"], column, f"{where}: obs/{column}")
    return arrays.found(where, held, [])


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[tuple]:
    """The open file, and its name for messages; errors within are sentences."""
    where = files.shown(path)
    try:
        import h5py
    except ImportError:
        raise UsageError(f"{where} needs h5py: run pip install h5py") from None
    try:
        # A Python file: nothing else is opened under its name, and no lock is wanted on it.
        with files.open_regular(path) as raw, h5py.File(raw, "r") as file:
            yield file, where
    except UsageError:
        raise
    except MemoryError:
        raise UsageError(f"{where} needs more memory than there is: make it smaller") from None
    except Exception as error:  # whatever h5py stumbles over
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UsageError(f"{where} cannot be read ({reason}): write it anew") from None


def _link(group, name: str, where: str) -> str:
    """'array' or 'group'; refuses what lies outside the file."""
    import h5py

    what = f"{where}: {files.shown(name)}"
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        raise UsageError(f"{what} is a link: write the file anew with the array in it")
    found = group[name]
    if isinstance(found, h5py.Group):
        return "group"
    if not isinstance(found, h5py.Dataset):
        raise UsageError(f"{what} is neither an array nor a group")
    if found.external or found.is_virtual:
        raise UsageError(f"{what} lies in another file: write the file anew with the array in it")
    return "array"


def _array(group, name: str, where: str) -> np.ndarray:
    """An array of numbers, or of text."""
    import h5py

    what = f"{where}: {files.shown(name)}"
    if _link(group, name, where) != "array":
        raise UsageError(
            f"{what} is a group and not an array: is the file one of AnnData's (.h5ad)?"
        )
    found = group[name]
    if found.shape is None:
        raise UsageError(f"{what} is empty")
    text = h5py.check_string_dtype(found.dtype) is not None
    if not text and found.dtype.kind not in "biuf":
        raise UsageError(f"{what} holds {found.dtype} and not numbers")
    # A part of the file is unpacked as a whole, and may be larger than the array.
    for shape in (found.shape, found.chunks or (0,)):
        files.check_size(what, math.prod(shape) * max(found.dtype.itemsize, 1))
    return _text(found, what) if text else found[()]


def _text(found, what: str) -> np.ndarray:
    """An array of short texts. Each could be as long as the file, so few are read at a time."""
    if found.ndim != 1:
        raise UsageError(f"{what} has texts in shape {found.shape} instead of a list")
    at_once = max(1, files.memory_limit() // max(1, found.file.id.get_filesize()) // 8)
    texts, strings = [], found.asstr(errors="replace")
    for start in range(0, len(found), at_once):
        texts += list(strings[start : start + at_once])
        if max(map(len, texts[start:])) > _MAX_TEXT:
            raise UsageError(f"{what} has a text of more than {_MAX_TEXT} letters")
    return np.array(texts, dtype=str)


def _sparse(group, what: str) -> np.ndarray:
    """A sparse matrix of AnnData as a plain one; its parts are checked against each other."""
    kind = group.attrs.get("encoding-type")
    shape = tuple(int(n) for n in np.ravel(group.attrs.get("shape", ())))
    if kind not in _SPARSE or len(shape) != 2 or min(shape) < 1:
        raise UsageError(f"{what} is no sparse matrix that is known: write it anew with AnnData")
    data, indices, starts = (_array(group, name, what) for name in ("data", "indices", "indptr"))
    rows, columns = shape if kind == "csr_matrix" else shape[::-1]
    fits = (
        data.ndim == indices.ndim == starts.ndim == 1
        and indices.dtype.kind in "iu"
        and starts.dtype.kind in "iu"
        and len(data) == len(indices)
        and len(starts) == rows + 1
        and starts[0] == 0
        and starts[-1] == len(data)
        and (starts[1:] >= starts[:-1]).all()
        and (not len(indices) or (indices.min() >= 0 and indices.max() < columns))
    )
    if not fits:
        raise UsageError(f"{what} is damaged: its indices do not fit its shape {shape}")
    files.check_size(what, rows * columns * data.dtype.itemsize)
    dense = np.zeros((rows, columns), data.dtype)
    row = np.repeat(np.arange(rows), np.diff(starts.astype(np.int64)))
    np.add.at(dense, (row, indices), data)  # an element that is given twice is a sum
    return dense if kind == "csr_matrix" else np.ascontiguousarray(dense.T)


def _column(table, name: str, what: str) -> np.ndarray:
    """A column of a table of AnnData: plain values, or categories with codes."""
    if _link(table, name, what) == "array":
        return _array(table, name, what)
    column = table[name]
    if column.attrs.get("encoding-type") != "categorical":
        raise UsageError(f"{what} is a column of an unknown kind")
    codes, categories = (_array(column, part, what) for part in ("codes", "categories"))
    if codes.dtype.kind not in "iu" or codes.max(initial=-1) >= len(categories):
        raise UsageError(f"{what} is damaged: its codes do not fit its categories")
    names = np.append(categories.astype(str), "")  # -1 stands for none
    return names[codes]
