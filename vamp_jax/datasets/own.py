"""One's own data, named by where it lies: `load` makes the `Dataset` of it.

    data.npz          arrays train, validation, test, or x alone; labels_*, mask_*; length_* of
                      sequences [N, T, F]
    data.npy          one array
    big/              a folder of train.npy, validation.npy and test.npy, which stay in their files
                      (those of sequences are read)
    photos/           a folder of PNG or JPEG files, with train/, validation/, test/ or without
    counts.h5         X, and Y for labels; or arrays as in a .npz
    cells.h5ad        AnnData's X
    tfds:NAME         a set of TFDS that has been prepared before
    book.txt          text, cut into windows of characters; text:PATH for files of other names

What is given in one piece is split 80/10/10, always in the same way. Nothing in a file is run.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from vamp_jax import disk
from vamp_jax.datasets import arrays, files, moments, npy_files, own_sequences, values
from vamp_jax.datasets.dataset import SPLITS, Dataset, Found
from vamp_jax.errors import UsageError

TFDS, TEXT = "tfds:", "text:"
_MAX_NAME = 40  # of the part of a run's folder that stands for the data


def is_own(name: str) -> bool:
    """Whether this names data by the place where it lies."""
    if name.startswith((TFDS, TEXT, "~")) or os.sep in name:
        return True
    return pathlib.PurePath(name).suffix.lower() in (*_READERS, ".txt") or _is_folder(name)


def text_path(name: str) -> pathlib.Path | None:
    """The file of a text; None for data of another kind."""
    if name.startswith(TEXT) or (is_own(name) and name.lower().endswith(".txt")):
        return pathlib.Path(name.removeprefix(TEXT))
    return None


def _is_folder(name: str) -> bool:
    try:
        return os.path.isdir(name)
    except ValueError:  # a name that no file can have
        return False


def short_name(name: str) -> str:
    """The name of one's own data for a folder or a title: the file's, in letters that are safe."""
    if name.startswith(TFDS):
        stem = name.replace(":", "_")
    else:
        path = pathlib.PurePath(os.path.abspath(os.path.expanduser(name.removeprefix(TEXT))))
        stem = path.stem if path.suffix.lower() in (*_READERS, ".txt") else path.name
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", stem)[:_MAX_NAME].strip("._-")
    return safe or "data"


def load(
    name: str,
    *,
    likelihood: str | None = None,
    missing: str = "refuse",
    image_size: int | tuple[int, int] | None = None,
    data_dir: str | None = None,
) -> tuple[Dataset, list[str]]:
    """Reads one's own data.

    Args:
      name: where it lies, see above.
      likelihood: of `values.LIKELIHOODS`; None where it is to be guessed, which is done only for
        zeros and ones (bernoulli) and for images in 8 bits (discretised_logistic).
      missing: 'mask' if NaN stands for what is missing; 'refuse' if there is to be none.
      image_size: side, or (height, width), that the pictures of a folder are brought to.
      data_dir: TFDS's data folder.

    Returns:
      The data set (not a text: see `sequences`), and sentences about what was assumed.

    Raises:
      UsageError: whatever is wrong with the file, with its name, the array and the place.
    """
    if missing not in ("refuse", "mask"):
        raise UsageError(f"missing is {missing!r}; it must be 'refuse' or 'mask'.")
    return _made(name, _read(name, image_size, data_dir), likelihood, missing)


def of_arrays(
    name: str, held: Any, *, likelihood: str | None = None, missing: str = "refuse"
) -> tuple[Dataset, list[str]]:
    """Makes the data set of arrays that a program has made, named as in a .npz; see `load`."""
    if not isinstance(held, Mapping):
        raise UsageError(
            f"{name} gives a {type(held).__name__}; it must give a dict of arrays with the names "
            "of a .npz: train, validation and test, or x"
        )
    held = {str(key): np.asarray(array) for key, array in held.items()}
    known = {key: array for key, array in held.items() if arrays.role(key) is not None}
    found = arrays.found(name, known, sorted(held.keys() - known.keys()))
    return _made(name, found, likelihood, missing)


def _made(
    name: str, found: Found, likelihood: str | None, missing: str
) -> tuple[Dataset, list[str]]:
    """Checks what a file holds, splits it where it is in one piece, and says what it is."""
    if found.lengths:
        dataset, notes = own_sequences.made(short_name(name), found, likelihood, missing)
        return dataset, list(notes)
    given, kind = arrays.check(found)
    if missing == "refuse":
        values.refuse_nan(given.where, given.splits, given.masks)
    in_bytes = all(array.dtype == np.uint8 for array in given.splits.values())
    given = arrays.apply_masks(given)
    known = values.facts(
        given.where, kind, given.splits, in_bytes=in_bytes, grey_levels=given.grey_levels
    )
    # Before the splitting, so that messages name the places of the file.
    likelihood, note = values.choose(given.splits, known, likelihood)
    given = arrays.split(given)
    stored = values.store(given.splits, known, likelihood)
    mean, stddev = moments.moments(stored, kind)
    dataset = Dataset(
        name=short_name(name),
        **stored.splits,
        likelihood=stored.likelihood,
        dynamic=stored.dynamic,
        max_value=stored.max_value,
        pseudo_input_mean=mean,
        pseudo_input_stddev=stddev,
        file_hashes=given.hashes,
        kind=kind,
        labels=given.labels or None,
        num_classes=stored.num_classes,
        missing=known.missing,
        library_size=moments.library_size(stored, kind),
    )
    scale = moments.note_of_scale(given.where, stored.likelihood, mean, stddev)
    return dataset, [*given.notes, *filter(None, (note, scale))]


def _read(name: str, image_size: int | tuple[int, int] | None, data_dir: str | None) -> Found:
    with sentences(name):
        path = None if name.startswith(TFDS) else pathlib.Path(disk.expand_home(name))
        folder = path is not None and path.is_dir()
        holds_arrays = folder and (path / "train.npy").exists()
        if image_size and (holds_arrays or not folder):
            raise UsageError(f"image_size is for a folder of pictures, and {name} is none")
        if holds_arrays:
            return _npy_folder(path)
        if folder:
            from vamp_jax.datasets import image_folder

            return image_folder.read(path, image_size)
        if path is None:
            from vamp_jax.datasets import from_tfds

            return from_tfds.read(name.removeprefix(TFDS), data_dir)
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise UsageError(
                f"{files.shown(path)} is no folder and ends in none of {', '.join(_READERS)}, .txt"
            )
        return reader(path)


@contextlib.contextmanager
def sentences(name: str) -> Iterator[None]:
    """Makes one sentence of what the system says about a file."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, UsageError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{files.shown(name)[:200]} cannot be read ({reason})") from None


def _npz(path: pathlib.Path) -> Found:
    held, others = npy_files.read_npz(path, lambda name: arrays.role(name) is not None)
    return arrays.found(files.shown(path), held, others)


def _npy(path: pathlib.Path) -> Found:
    return arrays.found(files.shown(path), {"x": npy_files.read_npy(path)}, [])


def _npy_folder(path: pathlib.Path) -> Found:
    where, names = files.shown(path), sorted(file.stem for file in path.glob("*.npy"))
    small = [name for name in names if _role(name) in ("labels", "lengths")]
    has_lengths = any(_role(name) == "lengths" for name in small)
    read = npy_files.read_npy if has_lengths else npy_files.map_npy  # padding is made zeros
    held = {name: read(path / f"{name}.npy") for name in names if name in SPLITS}
    if lacking := [split for split in SPLITS if split not in held]:
        raise UsageError(
            f"{where} has no {lacking[0]}.npy: arrays that stay in their files are not split, so "
            "give train.npy, validation.npy and test.npy"
        )
    held |= {name: npy_files.read_npy(path / f"{name}.npy") for name in small}
    return arrays.found(where, held, [name for name in names if name not in held])


def _role(name: str) -> str | None:
    found = arrays.role(name)
    return found and found[0]


def _h5(path: pathlib.Path) -> Found:
    from vamp_jax.datasets import hdf5

    return hdf5.read(path)


_READERS: dict[str, Callable[[pathlib.Path], Found]] = {
    ".npz": _npz,
    ".npy": _npy,
    ".h5": _h5,
    ".hdf5": _h5,
    ".h5ad": _h5,
}
