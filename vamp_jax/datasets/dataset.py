"""`Dataset`, what every part of the project gets to see of the data; and `Found`, its raw form."""

from typing import Any, NamedTuple

import numpy as np

from vamp_jax.datasets import mapped
from vamp_jax.sequences import is_sequences, num_examples, values_of

SPLITS = ("train", "validation", "test")


class Dataset(NamedTuple):
    """The examples of three splits, and how they are to be read.

    A split is an array [N, ...] or, for sequences of several lengths, a dictionary
    {"values": [N, T, ...], "length": int32 [N]}, padded with zeros. A missing value is NaN:
    integers with missing values are held as float32 for that (exact up to 2^24), and there is no
    other mask.
    """

    name: str
    train: Any  # [N, H, W, C] (uint8 or float32), [N, D] (uint8, uint16, int32, float32), sequences
    validation: Any  # likewise; of a dynamic set drawn once, values 0 and max_value
    test: Any
    likelihood: str  # one of `values.LIKELIHOODS`
    dynamic: bool  # train / max_value are Bernoulli means, redrawn each time an example is seen
    max_value: int  # the stored value that stands for 1.0; 1 where values are taken as they are
    pseudo_input_mean: float | np.ndarray  # of an input as the network sees it; of vectors [D]
    pseudo_input_stddev: float | np.ndarray
    file_hashes: dict[str, str]  # source file, or array in it -> SHA-256 of what is inside
    kind: str = "images"  # or "vectors" or "sequences"
    labels: dict[str, np.ndarray] | None = None  # split -> [N], for pictures; None without
    num_classes: int | None = None  # of categorical values, which are 0 ... num_classes - 1
    alphabet: str | None = None  # of text: value v is the character alphabet[v]
    missing: bool = False  # whether any value is NaN
    library_size: float | None = None  # of vectors of counts: the median sum of a training example

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example (padded): (H, W, C), (D,), (T, 88) or (T,)."""
        return values_of(self.train).shape[1:]


class Found(NamedTuple):
    """What a file holds, before anybody has said what the values mean."""

    where: str  # what messages call it
    splits: dict[str, np.ndarray]  # of SPLITS, or 'x' alone; [N, ...] of any type of numbers
    masks: dict[str, np.ndarray]  # split -> 1 where a value is there, 0 where it is missing
    labels: dict[str, np.ndarray]  # split -> [N]
    hashes: dict[str, str]  # as `Dataset.file_hashes`
    grey_levels: bool = False  # known to be levels 0 to 255, as 8-bit picture files are
    notes: tuple[str, ...] = ()  # what was assumed, to be said
    lengths: dict[str, np.ndarray] | None = None  # split -> [N], of sequences alone


MOST = 100_000  # examples of a split that anything but training, or an estimate, looks at


def at_most(split: Any, wanted: int = MOST) -> Any:
    """The examples of a split, evenly spaced if there are more; few of a mapped file in memory."""
    count = num_examples(split)
    if count <= wanted:
        return split
    index = spaced(count, wanted)
    if is_sequences(split):
        return {name: mapped.rows(leaf, index) for name, leaf in split.items()}
    return mapped.rows(split, index)


def spaced(count: int, wanted: int | None) -> np.ndarray:
    """The numbers of `wanted` of `count` examples, evenly spaced; of all where None.

    The first ones would not do: some files are sorted by class.
    """
    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.arange(wanted) * count // wanted
