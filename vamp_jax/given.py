"""What a user gives, as arrays of numbers and whole numbers, or a sentence."""

import operator
from typing import Any

import jax.numpy as jnp
import numpy as np

LARGEST = float(np.finfo(np.float32).max)


def numbers(name: str, what: str, array: Any) -> np.ndarray:
    """Makes an array of numbers, of types that JAX takes and keeps the values of.

    Whole numbers beyond 32 bits become float64, which JAX rounds but does not wrap.

    Raises:
      ValueError: in the name of a function, for what are no real numbers.
    """
    try:
        array = np.asarray(array)
    except (TypeError, ValueError):  # of rows that differ, or of what has no rows
        raise ValueError(
            f"{name}: {what} cannot be made an array of numbers: give it rows of one shape."
        ) from None
    dtype = array.dtype
    small = dtype.kind == "V" and not dtype.names and jnp.issubdtype(dtype, np.number)
    if dtype.kind not in "biuf" and not small:
        raise ValueError(
            f"{name}: {what} holds {dtype} and not numbers: make it an array of real numbers."
        )
    if small:  # bfloat16 and its like, which are strangers to NumPy
        return array.astype(np.float32)
    if dtype.kind in "iu" and not np.can_cast(dtype, np.int32):
        limits = np.iinfo(np.int32)
        fit = not array.size or (array.min() >= limits.min and array.max() <= limits.max)
        return array.astype(np.int32 if fit else np.float64)
    if dtype.kind == "f" and dtype.itemsize > 8:
        return array.astype(np.float64)
    return array.astype(dtype.newbyteorder("="), copy=False)


def check_finite(name: str, what: str, array: np.ndarray, *, missing: bool = False) -> None:
    """Raises a ValueError for infinity, as what is too large for 32 bits is, and for NaN.

    Args:
      name, what: the function and its argument, in the sentence.
      array: numbers, one at least.
      missing: NaN is a missing value, and fine.
    """
    if not missing and np.any(which := np.isnan(array)):
        place = list(map(int, np.argwhere(which)[0]))
        raise ValueError(
            f"{name}: {what}{place} is NaN, and nothing may be missing here: fill it in, or leave "
            "the example out."
        )
    smallest, largest = extremes(array)
    if smallest < -LARGEST or largest > LARGEST:
        raise ValueError(
            f"{name}: {what} must be finite in 32 bits, but goes from {smallest:g} to {largest:g}."
        )


def extremes(array: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest number, past NaN unless there is nothing else."""
    return float(np.fmin.reduce(array, axis=None)), float(np.fmax.reduce(array, axis=None))


def whole(name: str, what: str, number: Any, least: int, below: int | None = None) -> int:
    """Makes an int, or raises a ValueError for what is no whole number of this range."""
    try:
        found = None if isinstance(number, bool | np.bool_) else operator.index(number)
    except TypeError:
        found = None
    if found is None or found < least or (below is not None and found >= below):
        wanted = f"at least {least}" if below is None else f"from {least} to {below - 1}"
        raise ValueError(f"{name}: {what} is {number!r}; it must be a whole number, {wanted}.")
    return found
