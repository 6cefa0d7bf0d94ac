"""What is computed of a training set: where pseudo-inputs start, and how large counts' rows are."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from vamp_jax.datasets import mapped
from vamp_jax.datasets.dataset import Dataset

if TYPE_CHECKING:
    from vamp_jax.datasets.values import Stored


def moments(stored: Stored, kind: str) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Mean and standard deviation of the training set as the network sees it.

    Returns:
      Of images one number each; of vectors [D], a number for each of their values.
    """
    if stored.num_classes is not None:  # each class is a one among zeros
        share = 1 / stored.num_classes
        return share, (share * (1 - share)) ** 0.5
    mean, stddev = mean_and_deviation(stored.splits["train"], kind)
    if stored.num_bins is not None:
        mean, stddev = (mean + 0.5) / stored.num_bins, stddev / stored.num_bins
    else:
        mean, stddev = mean / stored.max_value, stddev / stored.max_value
    return (float(mean), float(stddev)) if kind != "vectors" else _with_room(mean, stddev)


def _with_room(mean: np.ndarray, stddev: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same with a little room for what never changes."""
    stddev = np.maximum(stddev, 0.01 * stddev.mean())
    return mean.astype(np.float32), stddev.astype(np.float32)


def library_size(stored: Stored, kind: str) -> float | None:
    """The median sum of a training example of counts [N, D], at least 1; None of other data."""
    if stored.likelihood not in ("poisson", "negative_binomial") or kind != "vectors":
        return None
    sums = np.nansum(stored.splits["train"], axis=-1, dtype=np.float64)
    return max(1.0, float(np.median(sums)))


def as_encoded(dataset: Dataset, seen: Callable[[Any], Any]) -> Dataset:
    """Vectors of counts with the mean and the deviation, [D] each, of what an encoder sees of them.

    Args:
      seen: x -> what the encoder sees of it.
    """
    if dataset.kind != "vectors":  # config_checks refuses it
        return dataset
    train = np.asarray(seen(np.asarray(dataset.train, np.float32)))
    mean, stddev = _with_room(*mean_and_deviation(train, dataset.kind))
    return dataset._replace(pseudo_input_mean=mean, pseudo_input_stddev=stddev)


def note_of_scale(
    where: str, likelihood: str, mean: float | np.ndarray, stddev: float | np.ndarray
) -> str | None:
    """What to say of real numbers that are far from the size that the networks start for.

    The starting weights expect values of a deviation near one: with far larger ones training
    begins far away, with far smaller ones z stays unused.

    Args:
      where: what the message calls the data.
      likelihood: as in `Stored`; None is returned for all but "gaussian".
      mean, stddev: of `moments`.
    """
    smallest, largest = float(np.min(stddev)), float(np.max(stddev))
    shift = float(np.max(np.abs(mean)))
    if likelihood != "gaussian" or (0.05 <= largest <= 5.0 and shift <= 20.0):
        return None
    deviations = f"{smallest:.3g}" if smallest == largest else f"{smallest:.3g} to {largest:.3g}"
    return (
        f"Note: the values of {where} have a deviation of {deviations} and means of up to "
        f"{shift:.3g} in size; networks start for about 1 and 0, and train badly otherwise: "
        "subtract the mean, and divide by the deviation."
    )


def mean_and_deviation(values: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Over all values of images, over the examples of vectors; in float64, of what is there."""
    axis = 0 if kind == "vectors" else None
    blocks = np.array_split(values, max(1, values.nbytes >> 24))  # not all in float64 at once

    def mean_of(function):
        totals = []
        for block in blocks:
            totals.append(np.nansum(function(block.astype(np.float64)), axis=axis))
            mapped.release(values)
        return np.sum(totals, axis=0) / np.maximum(count, 1)

    counts = []
    for block in blocks:
        counts.append(np.sum(block == block, axis=axis))
        mapped.release(values)
    count = np.sum(counts, axis=0)
    mean = mean_of(lambda block: block)
    return mean, np.sqrt(mean_of(lambda block: (block - mean) ** 2))
