"""Sequences of one's own: arrays [N, T, F] of zeros and ones, with the length of each example.

Steps past an example's end may hold any finite number; they are made zeros, as in the sets that
have a name, and what is padding in all examples is cut off.
"""

import numpy as np

from vamp_jax.datasets import arrays, files, sequences, values
from vamp_jax.datasets.dataset import SPLITS, Dataset, Found
from vamp_jax.errors import UsageError

LIKELIHOOD = "bernoulli"


def made(
    name: str, found: Found, likelihood: str | None, missing: str
) -> tuple[Dataset, tuple[str, ...]]:
    """Checks arrays with lengths, splits them where they are in one piece, and says what they are.

    Args:
      name: of the data set.
      found: arrays by name, of which some are lengths.
      likelihood: 'bernoulli', or None.
      missing: 'refuse'.

    Returns:
      The data set, and sentences about what was assumed.

    Raises:
      UsageError: another likelihood, missing values, arrays or lengths that do not fit.
    """
    _check_options(found, likelihood, missing)
    given = arrays.numbers(found)
    _check_shapes(given)
    lengths = {split: _lengths(given, split) for split in given.splits}
    longest = max(int(length.max()) for length in lengths.values())
    if longest == 1:
        raise UsageError(
            f"{given.where}: every sequence has one step: give vectors [N, F], without lengths"
        )
    together = sum(len(array) * array.shape[2] for array in given.splits.values())
    files.check_size(given.where, longest * together)  # one split may be much longer than others
    _check_finite(given)
    splits = {split: _silenced(given.splits[split], lengths[split], longest) for split in lengths}
    _check_binary(given.where, splits, lengths)
    given = arrays.split(given._replace(splits=splits, lengths=lengths))
    lengths = given.lengths or {}
    pairs = [
        {"values": _padded(given.splits[split], longest), "length": lengths[split]}
        for split in SPLITS
    ]
    note = f"{given.where}: all values are 0 or 1, so the likelihood is {LIKELIHOOD}."
    notes = given.notes if likelihood else (*given.notes, note)
    return sequences.of_rolls(name, pairs, given.hashes, given.labels or None), notes


def _check_options(found: Found, likelihood: str | None, missing: str) -> None:
    if likelihood not in (None, LIKELIHOOD):
        raise UsageError(
            f"{found.where} holds sequences, which go with likelihood {LIKELIHOOD} alone (zeros "
            f"and ones), not {likelihood!r}: leave the likelihood out"
        )
    if missing != "refuse" or found.masks:
        what = "a mask" if found.masks else f"missing={missing}"
        raise UsageError(
            f"{found.where} holds sequences, which have no missing values: leave out {what}"
        )


def _check_shapes(given: Found) -> None:
    """Raises a UsageError unless all are [N, T, F] with one F, and have lengths."""
    for split, array in given.splits.items():
        if array.ndim != 3:
            cure = "give arrays [N, T, F]"
            if array.ndim == 2:
                cure = "for sequences of one value a step give [N, T, 1], as by x[..., None]"
            raise UsageError(
                f"{given.where}: {split} has shape {array.shape} and comes with lengths, as "
                f"sequences do: {cure}, and for other data leave the lengths out"
            )
    if len({array.shape[2] for array in given.splits.values()}) > 1:
        several = ", ".join(f"{split} {array.shape}" for split, array in given.splits.items())
        raise UsageError(
            f"{given.where} has steps of several sizes ({several}): the last axes must be alike"
        )
    if lacking := [split for split in given.splits if split not in (given.lengths or {})]:
        raise UsageError(
            f"{given.where} has lengths, but none of {lacking[0]}: give length_{lacking[0]}, too"
        )


def _lengths(given: Found, split: str) -> np.ndarray:
    """The lengths of a split as int32 [N], checked."""
    where, length = f"{given.where}: the lengths of {split}", (given.lengths or {})[split]
    count, num_steps = given.splits[split].shape[:2]
    if length.shape != (count,):
        raise UsageError(f"{where} have shape {length.shape} instead of {(count,)}")
    if length.dtype.kind not in "iuf":
        raise UsageError(f"{where} hold {length.dtype} and not whole numbers")
    values.refuse_any(
        given.where,
        {"length" if split == "x" else f"length_{split}": length},
        lambda block: ~((block >= 1) & (block <= num_steps) & (block == np.floor(block))),
        f"is no whole number from 1 to {num_steps}, the steps that {split} has",
    )
    return length.astype(np.int32)


def _check_finite(given: Found) -> None:
    reals = {name: array for name, array in given.splits.items() if array.dtype.kind == "f"}
    values.refuse_any(
        given.where,
        reals,
        lambda block: ~np.isfinite(block),
        "is no finite number: there must be one in every place, and past the end any will do",
    )


def _check_binary(where: str, splits: dict, lengths: dict) -> None:
    """Raises a UsageError for a value other than 0 and 1, or a training set of one value."""
    values.refuse_any(
        where,
        splits,
        lambda block: (block != 0) & (block != 1),
        "is neither 0 nor 1, as all values of sequences have to be: make them so, as by x > 0.5",
    )
    split = "x" if "x" in splits else "train"
    share = np.count_nonzero(splits[split]) / (lengths[split].sum() * splits[split].shape[2])
    if share in (0, 1):
        raise UsageError(f"{where}: every value of {split} is {share:g}: there is nothing to learn")


def _silenced(array: np.ndarray, length: np.ndarray, longest: int) -> np.ndarray:
    """The array without what is past the longest, and with zeros past the end of each example."""
    array = array[:, :longest]
    real = np.arange(array.shape[1]) < length[:, None]
    return np.where(real[..., None], array, array.dtype.type(0))


def _padded(array: np.ndarray, num_steps: int) -> np.ndarray:
    """Zeros and ones as uint8, with so many steps."""
    result = np.zeros((len(array), num_steps, array.shape[2]), np.uint8)
    result[:, : array.shape[1]] = array
    return result
