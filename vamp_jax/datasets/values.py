"""What the values of one's own data are: which likelihoods fit, and how each wants them stored."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vamp_jax.datasets import mapped
from vamp_jax.datasets.moments import mean_and_deviation
from vamp_jax.datasets.protocols import draw_held_out
from vamp_jax.errors import UsageError, check_choice

Splits = dict[str, np.ndarray]

MAX_COUNT = 2**24  # whole numbers up to here are exact in float32
MAX_CLASSES = 2**16
GREY_LEVELS = 256
# Levels that stay below this may well be something else in 8 bits: counts, or digits of 0 to 16.
_SURELY_GREY = 128


class Facts(NamedTuple):
    """What all values of the three splits have in common; missing ones do not count."""

    where: str  # what messages call the data
    kind: str  # 'images' or 'vectors'
    low: float
    high: float
    whole: bool
    in_bytes: bool  # every split is uint8
    grey: bool  # known, or sure enough, to be grey levels or colours from 0 to 255
    missing: bool

    @property
    def top(self) -> int:
        """The value that stands for 1 where values are shares: of grey images, 255."""
        return GREY_LEVELS - 1 if self.in_bytes and self.high > 1 else 1


class Stored(NamedTuple):
    """The splits as `Dataset` wants them; its fields explain the rest."""

    splits: Splits
    likelihood: str
    dynamic: bool = False
    max_value: int = 1
    num_classes: int | None = None
    num_bins: int | None = None  # of levels, each of which stands for the centre of its bin


class _Fit(NamedTuple):
    meaning: str  # what values of this likelihood are
    wanted: str  # the same, for a value that is not
    outside: Callable[[np.ndarray, Facts], np.ndarray]  # which values are none of these
    store: Callable[[Splits, Facts], Stored]


def refuse_nan(where: str, splits: Splits, masks: Splits) -> None:
    """Raises a UsageError where a value is nan that no mask leaves out."""
    cure = "pass --config.missing=mask to leave missing values out, or fill them in"
    there = {
        name: np.where(masks[name] == 0, 0, array) if name in masks else array
        for name, array in splits.items()
        if array.dtype.kind == "f"
    }
    refuse_any(where, there, np.isnan, f"is not a number: {cure}")


def facts(where: str, kind: str, splits: Splits, *, in_bytes: bool, grey_levels: bool) -> Facts:
    """Looks at all values; nan is a missing one.

    Args:
      where: what messages call the data.
      kind: 'images' or 'vectors'.
      splits: any number of them.
      in_bytes: all arrays came as uint8.
      grey_levels: the values are known to be grey levels from 0 to 255, or colours.

    Raises:
      UsageError: infinity, nothing but one value.
    """
    floats = {name: a for name, a in splits.items() if a.dtype.kind == "f"}
    refuse_any(where, floats, np.isinf, "is infinite: every value must be a finite number")
    # fmin and fmax pass over nan, unless there is nothing else.
    ranges = {name: _range(where, name, array) for name, array in splits.items()}
    high = max(high for _, high in ranges.values())
    return Facts(
        where=where,
        kind=kind,
        low=min(low for low, _ in ranges.values()),
        high=high,
        whole=not any(mapped.any_of(fractional, a) for a in floats.values()),
        in_bytes=in_bytes,
        grey=in_bytes and (grey_levels or high >= _SURELY_GREY),
        missing=any(mapped.any_of(np.isnan, a) for a in floats.values()),
    )


def choose(splits: Splits, known: Facts, likelihood: str | None) -> tuple[str, str]:
    """The likelihood, checked; and a sentence where it has been guessed, else ''.

    Args:
      splits: any number of them.
      likelihood: of `LIKELIHOODS`; None where it is to be guessed.

    Raises:
      UsageError: an unknown likelihood, one that does not fit, none where several may be meant.
    """
    if likelihood is None:
        likelihood, reason = _guess(splits, known)
        return likelihood, f"{known.where}: {reason}, so the likelihood is {likelihood}."
    check_choice("likelihood", likelihood, LIKELIHOODS)
    fit = _FITS[likelihood]
    refuse_any(
        known.where,
        splits,
        lambda values: fit.outside(values, known),
        f"does not go with likelihood {likelihood}, which wants {fit.wanted}",
    )
    return likelihood, ""


def store(splits: Splits, known: Facts, likelihood: str) -> Stored:
    """Train, validation and test as the likelihood that was chosen wants them."""
    return _FITS[likelihood].store(splits, known)


def _guess(splits: Splits, known: Facts) -> tuple[str, str]:
    """The likelihood where it cannot be wrong, and why."""
    if _binary(splits, known.top):
        return "bernoulli", f"all values are 0 or {known.top}"
    if known.kind == "images" and known.grey:
        return "discretised_logistic", "images in 8 bits"
    fitting = [
        f"{name} ({fit.meaning})"
        for name, fit in _FITS.items()
        if not any(
            mapped.any_of(functools.partial(fit.outside, known=known), values)
            for values in splits.values()
        )
    ]
    numbers = "whole numbers" if known.whole else "numbers"
    raise UsageError(
        f"{known.where} holds {known.kind} of {numbers} from {known.low:g} to {known.high:g}: "
        f"say what they are with --config.likelihood={' or '.join(fitting)}"
    )


def refuse_any(
    where: str, splits: Splits, bad: Callable[[np.ndarray], np.ndarray], reason: str
) -> None:
    """Raises a UsageError that names the first value for which `bad` is true."""
    for split, values in splits.items():
        count, place = 0, []
        for start, block in mapped.blocks(values):
            which = bad(block)
            if not count and which.any():
                first, *rest = np.unravel_index(int(np.argmax(which)), which.shape)
                place = [start + int(first), *map(int, rest)]
            count += int(np.count_nonzero(which))
        if count:
            more = f" (and {count - 1:,} more)" if count > 1 else ""
            raise UsageError(
                f"{where}: {split}{place} = {_shown(values[tuple(place)])}{more} {reason}"
            )


def _shown(value: np.generic) -> str:
    """A whole number with all its digits, another with six."""
    return str(int(value)) if value.dtype.kind in "iu" else f"{value:g}"


def fractional(values: np.ndarray) -> np.ndarray:
    """Which values have digits after the point."""
    if values.dtype.kind != "f":
        return np.zeros(values.shape, bool)
    return values - np.floor(values) > 0  # nan is not


def _outside(low: float, high: float, whole: bool) -> Callable[[np.ndarray, Facts], np.ndarray]:
    def outside(values, known):
        del known
        which = (values < low) | (values > high)
        return which | fractional(values) if whole else which

    return outside


def _binary(splits: Splits, top: int) -> bool:
    def neither(a):
        return ~((a == 0) | (a == top) | (np.isnan(a) if a.dtype.kind == "f" else False))

    return not any(mapped.any_of(neither, a) for a in splits.values())


def _range(where: str, name: str, array: np.ndarray) -> tuple[float, float]:
    """The smallest and the largest value; a UsageError where there is none, or but one to learn."""
    low, high = _reduced(np.fmin, array), _reduced(np.fmax, array)
    if np.isnan(low):
        raise UsageError(f"{where}: every value of {name} is missing")
    if name in ("train", "x") and low == high:
        raise UsageError(f"{where}: every value of {name} is {low:g}: there is nothing to learn")
    if name in ("train", "x") and float(low) == float(high):
        raise UsageError(
            f"{where}: the values of {name} (all are from {_shown(low)} to {_shown(high)}) cannot "
            f"be told apart in 32 bits: subtract the smallest, as by {name} - {name}.min()"
        )
    return float(low), float(high)


def _reduced(function: np.ufunc, values: np.ndarray) -> np.generic:
    """A ufunc's reduction over all values."""
    return function.reduce([function.reduce(b, axis=None) for _, b in mapped.blocks(values)])


# How each likelihood has them.


def _no_share(values: np.ndarray, known: Facts) -> np.ndarray:
    return (values < 0) | (values > (known.top if known.grey else 1))


def _store_bernoulli(splits: Splits, known: Facts) -> Stored:
    """Zeros and ones as uint8; anything between as means, of which the held-out sets are drawn."""
    if _binary(splits, known.top):
        if known.top != 1:
            splits = {name: a / np.float32(known.top) for name, a in splits.items()}
        return Stored(_smallest(splits, 1, known), "bernoulli")
    if known.in_bytes:
        stored = splits
    else:
        stored = {name: a.astype(np.float32, copy=False) for name, a in splits.items()}
    means = [splits[name].astype(np.float64) / known.top for name in ("validation", "test")]
    gaps = [np.isnan(a) for a in means]
    drawn = draw_held_out(*map(np.nan_to_num, means), known.top)
    for name, values, gap in zip(("validation", "test"), drawn, gaps, strict=True):
        values = values.astype(stored[name].dtype)
        if gap.any():
            values[gap] = np.nan
        stored = stored | {name: values}
    return Stored(stored, "bernoulli", dynamic=True, max_value=known.top)


def _store_levels(splits: Splits, known: Facts) -> Stored:
    stored = _smallest(splits, GREY_LEVELS - 1, known)
    stands_for = dict(max_value=GREY_LEVELS - 1, num_bins=GREY_LEVELS)
    return Stored(stored, "discretised_logistic", **stands_for)


def _store_reals(splits: Splits, known: Facts) -> Stored:
    if known.in_bytes and known.kind == "images":
        return Stored(splits, "gaussian", max_value=GREY_LEVELS - 1)
    with np.errstate(over="ignore"):
        stored = {name: a.astype(np.float32, copy=False) for name, a in splits.items()}
    converted = {name: a for name, a in splits.items() if a.dtype != np.float32}
    _, spread = mean_and_deviation(splits["train"], known.kind) if converted else (0, 0)
    for name, values in converted.items():
        error = np.fmax(np.abs(stored[name] - values), 0)  # not of what is missing
        if ((error > 1e-3 * spread) & (spread > 0)).any() or np.isinf(stored[name]).any():
            raise UsageError(
                f"{known.where}: the values of {name} (all are from {known.low:.9g} to "
                f"{known.high:.9g}) cannot be told apart in 32 bits: subtract their mean, and "
                "divide by their deviation"
            )
    return Stored(stored, "gaussian")


def _store_counts(likelihood: str) -> Callable[[Splits, Facts], Stored]:
    return lambda splits, known: Stored(_smallest(splits, known.high, known), likelihood)


def _store_classes(splits: Splits, known: Facts) -> Stored:
    stored = _smallest(splits, known.high, known)
    return Stored(stored, "categorical", num_classes=int(known.high) + 1)


def _smallest(splits: Splits, high: float, known: Facts) -> Splits:
    """Whole numbers in the smallest type that holds them; with missing ones float32."""
    dtype = next(t for t in (np.uint8, np.uint16, np.int32) if high <= np.iinfo(t).max)
    dtype = np.float32 if known.missing else dtype
    return {name: values.astype(dtype, copy=False) for name, values in splits.items()}


_COUNTS = f"whole numbers from 0 to {MAX_COUNT}"
_FITS = {
    "bernoulli": _Fit(
        "0 and 1, or the chance of a 1",
        "0 and 1, chances between 0 and 1, or 8-bit grey levels that reach from 0 towards 255",
        _no_share,
        _store_bernoulli,
    ),
    "discretised_logistic": _Fit(
        "grey levels or colours from 0 to 255",
        "whole numbers from 0 to 255",
        _outside(0, GREY_LEVELS - 1, whole=True),
        _store_levels,
    ),
    "gaussian": _Fit(
        "real numbers", "real numbers", _outside(-np.inf, np.inf, False), _store_reals
    ),
    "poisson": _Fit(
        "counts", _COUNTS, _outside(0, MAX_COUNT, whole=True), _store_counts("poisson")
    ),
    "negative_binomial": _Fit(
        "counts that spread wider",
        _COUNTS,
        _outside(0, MAX_COUNT, whole=True),
        _store_counts("negative_binomial"),
    ),
    "categorical": _Fit(
        "class numbers",
        f"whole numbers from 0 to {MAX_CLASSES - 1}, the numbers of classes",
        _outside(0, MAX_CLASSES - 1, whole=True),
        _store_classes,
    ),
}
LIKELIHOODS = tuple(_FITS)
# Those of a model that are none of these, and whose values are stored as those of one.
STORED_AS = {"rgb_logistic_mixture": "discretised_logistic"}


def stored_as(likelihood: str) -> str:
    """The one of `LIKELIHOODS` that the values of a likelihood are stored for."""
    return STORED_AS.get(likelihood, likelihood)
