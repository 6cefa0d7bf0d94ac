"""Arrays by name -> three splits, checked; whatever file they come from."""

import hashlib
import os
import re

import numpy as np

from vamp_jax.datasets import mapped
from vamp_jax.datasets.dataset import SPLITS, Found
from vamp_jax.errors import UsageError

MIN_TO_SPLIT = 10  # fewer cannot be split 80/10/10
_SEED = 0  # of the split of what is given in one piece
_NAMES = (
    "train, validation and test (or x alone, to be split), with labels_train, mask_train, "
    "length_train and so on"
)
# A name -> what it is, and the split it is of ('' for all of it).
_PATTERNS = (
    ("values", re.compile(r"(?:x_)?(train|validation|valid|val|test)")),
    ("values", re.compile(r"x()")),
    ("labels", re.compile(r"(?:labels?|y)(?:_(train|validation|valid|val|test|x))?")),
    ("masks", re.compile(r"mask(?:_(train|validation|valid|val|test|x))?")),
    ("lengths", re.compile(r"lengths?(?:_(train|validation|valid|val|test|x))?")),
)
_SPLIT_OF = {"valid": "validation", "val": "validation", None: "x", "": "x"}


def role(name: str) -> tuple[str, str] | None:
    """What an array of this name is: (a key of `_PATTERNS`, split or 'x'), or None."""
    for what, pattern in _PATTERNS:
        if match := pattern.fullmatch(name.lower()):
            return what, _SPLIT_OF.get(match[1], match[1])
    return None


def found(where: str, arrays: dict[str, np.ndarray], others: list[str]) -> Found:
    """Sorts arrays out by their names.

    Args:
      where: what messages call the file.
      arrays: those whose name has a `role`.
      others: the names of what the file holds besides, which is said and not used.

    Raises:
      UsageError: no array of values, two of one kind, a split without a test set.
    """
    sorted_out = {what: {} for what, _ in _PATTERNS}
    for name, array in arrays.items():
        what, split = role(name)
        if split in sorted_out[what]:
            raise UsageError(f"{where} has two arrays of {what} for {split}: leave one of them out")
        sorted_out[what][split] = array
    splits = sorted_out["values"]
    held = ", ".join(sorted([*arrays, *others])) or "nothing"
    if not splits:
        raise UsageError(f"{where} holds {held[:200]}: name its arrays {_NAMES}")
    if "x" in splits and len(splits) > 1:
        raise UsageError(f"{where} has both x and splits: name its arrays {_NAMES}")
    if "x" not in splits and not {"train", "test"} <= splits.keys():
        absent = next(split for split in ("train", "test") if split not in splits)
        raise UsageError(f"{where} has no array {absent} (it holds {held[:200]}): give {_NAMES}")
    for what in ("labels", "masks", "lengths"):
        if stray := sorted_out[what].keys() - splits.keys():
            raise UsageError(f"{where} has {what} for {min(stray)}, of which it has no values")
    close = [name for name in others if re.match(r"(?i)mask|label|length|train|test|val", name)]
    if close:
        raise UsageError(
            f"{where} has an array {close[0][:80]!r} that is not known: name arrays {_NAMES}"
        )
    note = f"{where}: not used: {', '.join(sorted(others))[:200]}."
    return Found(
        where=where,
        splits=splits,
        masks=sorted_out["masks"],
        labels=sorted_out["labels"],
        hashes=_hashes(os.path.basename(where), sorted_out),
        notes=(note,) if others else (),
        lengths=sorted_out["lengths"] or None,
    )


def _hashes(file: str, sorted_out: dict) -> dict[str, str]:
    named = dict(sorted_out["values"])
    for what, start in (("masks", "mask"), ("lengths", "length")):
        named |= {f"{start}_{name}": array for name, array in sorted_out[what].items()}
    return {f"{file}/{name}": digest(array) for name, array in named.items()}


def digest(array: np.ndarray) -> str:
    """SHA-256 of an array's type, shape and values."""
    start = f"{array.dtype.kind}{array.dtype.itemsize} {array.shape}\n".encode()
    result = hashlib.sha256(start)
    for _, block in mapped.blocks(np.atleast_1d(array)):
        values = block.astype(array.dtype.newbyteorder("<"), copy=False)
        result.update(np.ascontiguousarray(values).data)
    return result.hexdigest()


def check(given: Found) -> tuple[Found, str]:
    """The same arrays as numbers, with labels as whole numbers or text; and what they are.

    Returns:
      The arrays, not split yet and with the axes that they came with; 'images' or 'vectors'.

    Raises:
      UsageError: arrays that are not numbers, or whose shapes do not fit one another.
    """
    given = numbers(given)
    splits = given.splits
    for name, mask in given.masks.items():
        _check_mask(given.where, name, mask, splits[name].shape)
    if len({array.shape[1:] for array in splits.values()}) > 1:
        several = ", ".join(f"{name} {array.shape}" for name, array in splits.items())
        raise UsageError(f"{given.where} has examples of several shapes ({several}): make them one")
    name, array = next(iter(splits.items()))
    return given, _kind(given.where, name, array.shape)


def numbers(given: Found) -> Found:
    """The same arrays as numbers, with labels as whole numbers or text.

    Raises:
      UsageError: arrays that are not numbers, labels that are none or do not fit.
    """
    splits = {name: _numbers(given.where, name, array) for name, array in given.splits.items()}
    labels = {
        name: _labels(given.where, name, array, len(splits[name]))
        for name, array in given.labels.items()
    }
    return given._replace(splits=splits, labels=labels)


def apply_masks(given: Found) -> Found:
    """The same with NaN where a mask is 0, whole numbers as floats there."""
    splits, notes = dict(given.splits), list(given.notes)
    for name, mask in given.masks.items():
        array, gap = splits[name], mask == 0
        if array.dtype.kind != "f":
            exact = array.dtype.itemsize < 4 or abs(array).max() <= 2**24
            array = array.astype(np.float32 if exact else np.float64)
        splits[name] = np.where(gap, np.array(np.nan, array.dtype), array)
        notes.append(f"{given.where}: the mask of {name} leaves out {gap.mean():.1%} of it.")
    return given._replace(splits=splits, masks={}, notes=tuple(notes))


def _numbers(where: str, name: str, array: np.ndarray) -> np.ndarray:
    if array.dtype.kind not in "biuf":
        raise UsageError(f"{where}: {name} holds {array.dtype} and not numbers")
    if not array.size or array.ndim == 0:
        raise UsageError(f"{where}: {name} has shape {array.shape}, and so no examples")
    return array.astype(np.uint8) if array.dtype.kind == "b" else array


def _labels(where: str, name: str, array: np.ndarray, count: int) -> np.ndarray:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (count,):
        raise UsageError(
            f"{where}: the labels of {name} have shape {array.shape} instead of {(count,)}"
        )
    if array.dtype.kind == "f" and (array == np.floor(array)).all() and (abs(array) < 2**53).all():
        array = array.astype(np.int64)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "replace")
    if array.dtype.kind not in "biuU":
        raise UsageError(f"{where}: the labels of {name} are neither whole numbers nor text")
    return array


def _check_mask(where: str, name: str, mask: np.ndarray, shape: tuple[int, ...]) -> None:
    if mask.shape != shape:
        raise UsageError(f"{where}: the mask of {name} has shape {mask.shape} instead of {shape}")
    if mask.dtype.kind not in "biuf" or not np.isin(mask, (0, 1)).all():
        raise UsageError(
            f"{where}: the mask of {name} must be 1 where a value is there and 0 where none is"
        )


def _kind(where: str, name: str, shape: tuple[int, ...]) -> str:
    if len(shape) <= 2:
        return "vectors"
    if len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3)):
        return "images"
    cure = "give vectors [N, D], grey images [N, H, W] or colour images [N, H, W, 3]"
    if len(shape) == 4 and shape[1] in (1, 3):
        cure = "put the channels last, as by numpy.moveaxis(x, 1, -1)"
    raise UsageError(f"{where}: {name} has shape {shape}: {cure}")


def split(given: Found) -> Found:
    """Three splits, [N, H, W, C], [N, D] or, of sequences, as they are: x is split 80/10/10, and
    where there is no validation set a tenth of train becomes it, always in the same way."""
    splits = {
        name: array[..., None] if array.ndim in (1, 3) and not given.lengths else array
        for name, array in given.splits.items()
    }
    if splits.keys() == set(SPLITS):
        return given._replace(splits={name: splits[name] for name in SPLITS})
    source = "x" if "x" in splits else "train"
    count = len(splits[source])
    if count < MIN_TO_SPLIT:
        raise UsageError(
            f"{given.where} has {count} examples in {source}: at least {MIN_TO_SPLIT} are needed "
            "to take others from, so give more, or all of train, validation and test"
        )
    order = np.random.RandomState(_SEED).permutation(count)
    tenth = count // 10
    if source == "x":
        parts = np.split(order, [-2 * tenth, -tenth])
        note = f"{given.where}: the {count:,} examples are split 80/10/10."
    else:
        parts = np.split(order, [-tenth])
        note = f"{given.where}: no validation set, so a tenth of train is taken for it."

    def cut(arrays: dict) -> dict:
        if source not in arrays:
            return arrays
        new = dict(zip(SPLITS, (arrays[source][part] for part in parts), strict=False))
        return {name: (arrays | new)[name] for name in SPLITS if name in arrays | new}

    lengths = None if given.lengths is None else cut(given.lengths)
    return given._replace(
        splits=cut(splits),
        labels=cut(given.labels),
        notes=(*given.notes, note),
        lengths=lengths,
    )
