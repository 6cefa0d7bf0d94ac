"""Counts and other arrays in HDF5 files, and AnnData's .h5ad, which is HDF5 in a known layout.

Only what lies in the file itself is read: links to other files, and arrays whose values lie
elsewhere, are refused, and sizes are checked before memory is taken.
"""

import importlib.util
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

from vamp_jax.datasets import arrays, files, npy_files
from vamp_jax.datasets.dataset import Found
from vamp_jax.errors import UsageError

# Columns of a table of cells that say what kind each is; the first that is there.
_LABEL_COLUMNS = ("cell_type", "celltype", "label", "labels")
_MAX_TEXT = 1_000  # letters
_LARGE = 100 << 20  # bytes, from which on it is said that a file is being read
_SECONDS, _SECONDS_PER_BYTE = 60, 1e-6
_SPARSE = {"csr_matrix": "csr", "csc_matrix": "csc"}


def read(path: pathlib.Path) -> Found:
    """The arrays of a file.

    Of a .h5 those at its top: X and, for labels, Y; or named as those of a .npz. Of a .h5ad X,
    dense or sparse, [cells, genes], with labels from the table of cells.

    Raises:
      UsageError: h5py is not installed, the file is damaged, an array is none of numbers.
    """
    where = files.shown(path)
    with files.open_regular(path) as file:
        size = file.seek(0, 2)
    if importlib.util.find_spec("h5py") is None:
        raise UsageError(f"{where} needs h5py: run pip install h5py")
    if size > _LARGE:
        print(f"Reading {where}, {size / 1e6:,.0f} MB.", flush=True)
    # The library has been seen to loop for ever on damaged files, so another process reads them.
    with tempfile.TemporaryDirectory() as scratch:
        out = os.path.join(scratch, "arrays.npz")
        command = [sys.executable, "-m", "vamp_jax.datasets.hdf5", os.path.abspath(path), out]
        try:
            child = subprocess.run(
                command,
                env=os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_SECONDS + size * _SECONDS_PER_BYTE,
            )
        except subprocess.TimeoutExpired as error:
            raise UsageError(
                f"{where} cannot be read (no end of it in {error.timeout:.0f} s): write it anew"
            ) from None
        if child.returncode == UsageError.exit_code:
            raise UsageError(f"{where}{child.stdout.decode()}")
        if child.returncode:
            raise UsageError(
                f"{where} cannot be read (the reader ended with code {child.returncode}): "
                "write it anew"
            )
        others = child.stdout.decode().split("\0")[1:]
        held, _ = npy_files.read_npz(pathlib.Path(out), lambda name: True, where)
    return arrays.found(where, held, others)


def _main(path: str, out: str) -> None:
    """The other process: writes the arrays to a .npz, the names of others to standard output."""
    try:
        read_all = _anndata if path.lower().endswith(".h5ad") else _plain
        held, others = read_all(path)
        np.savez(out, **held)
        print(end="".join(f"\0{files.shown(name)}" for name in others))
    except Exception as error:  # whatever h5py stumbles over
        if isinstance(error, UsageError):
            reason = f": {error}"
        elif isinstance(error, MemoryError):
            reason = " needs more memory than there is: make it smaller"
        else:
            line = (str(error).splitlines() or [type(error).__name__])[0][:120]
            reason = f" cannot be read ({line}): write it anew"
        print(end=files.shown(reason))
        sys.exit(UsageError.exit_code)


def _plain(path: str) -> tuple[dict[str, np.ndarray], list[str]]:
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        names = [name for name in file if arrays.role(name)]
        return {name: _array(file, name) for name in names}, sorted(file.keys() - set(names))


def _anndata(path: str) -> tuple[dict[str, np.ndarray], list[str]]:
    import h5py

    with h5py.File(path, "r", locking="best-effort") as file:
        if "X" not in file:
            raise UsageError("there is no X in it: write it with anndata's write_h5ad")
        if _link(file, "X") == "group":
            held = {"x": _sparse(file["X"])}
        else:
            held = {"x": _array(file, "X")}
        if "obs" in file and _link(file, "obs") == "group":
            column = next((name for name in _LABEL_COLUMNS if name in file["obs"]), None)
            if column:
                held["labels"] = _column(file["obs"], column)
    return held, []


def _link(group, name: str) -> str:
    """'array' or 'group'; refuses what lies outside the file."""
    import h5py

    what = _path(group, name)
    link = group.get(name, getlink=True)
    if link is None:
        raise UsageError(f"{what} is not there: the file is damaged")
    if not isinstance(link, h5py.HardLink):
        raise UsageError(f"{what} is a link: write the file anew with the array in it")
    found = group[name]
    if isinstance(found, h5py.Group):
        return "group"
    if not isinstance(found, h5py.Dataset):
        raise UsageError(f"{what} is neither an array nor a group")
    if found.external or found.is_virtual:
        raise UsageError(f"{what} lies in another file: write the file anew with the array in it")
    return "array"


def _array(group, name: str) -> np.ndarray:
    """An array of numbers, or of text."""
    import h5py

    what = _path(group, name)
    if _link(group, name) != "array":
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


def _sparse(group) -> np.ndarray:
    """A sparse matrix of AnnData as a plain one; its parts are checked against each other."""
    what = _path(group)
    kind = group.attrs.get("encoding-type")
    shape = tuple(int(n) for n in np.ravel(group.attrs.get("shape", ())))
    if kind not in _SPARSE or len(shape) != 2 or min(shape) < 1:
        raise UsageError(f"{what} is no sparse matrix that is known: write it anew with AnnData")
    data, indices, starts = (_array(group, name) for name in ("data", "indices", "indptr"))
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


def _column(table, name: str) -> np.ndarray:
    """A column of a table of AnnData: plain values, or categories with codes."""
    what = _path(table, name)
    if _link(table, name) == "array":
        return _array(table, name)
    column = table[name]
    if column.attrs.get("encoding-type") != "categorical":
        raise UsageError(
            f"{what} is a column of an unknown kind: make it categorical, astype('category'), or "
            "rename it"
        )
    codes, categories = (_array(column, part) for part in ("codes", "categories"))
    if codes.dtype.kind not in "iu" or codes.max(initial=-1) >= len(categories):
        raise UsageError(f"{what} is damaged: its codes do not fit its categories")
    names = np.append(categories.astype(str), "")  # -1 stands for none
    return names[codes]


def _path(group, *names: str) -> str:
    return files.shown("/".join([group.name, *names]).strip("/"))


if __name__ == "__main__":
    _main(*sys.argv[1:])
