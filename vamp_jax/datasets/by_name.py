"""`load`: a data set by its name, or one's own by the place where it lies."""

import os
import pathlib
from typing import Any

from vamp_jax import disk
from vamp_jax.datasets import from_bucket, loading, moments, own, protocols, sequences, values
from vamp_jax.datasets.dataset import SPLITS, Dataset
from vamp_jax.errors import UsageError

NAMES = (*protocols.SPECS, *sequences.NAMES)


def check_name(name: str) -> None:
    """Raises a UsageError unless this is one of `NAMES` or names one's own data."""
    if name not in NAMES and not (isinstance(name, str) and own.is_own(name)):
        raise UsageError(
            f"there is no data set {name!r}: choose one of {', '.join(NAMES)}, or name your own "
            "data (a .npz, .npy, .h5, .h5ad or .txt file, a folder of images, tfds:NAME)"
        )
    if name == own.TEXT:
        raise UsageError(f"data set {name!r} names no file: write {own.TEXT}PATH")


def short_name(name: str) -> str:
    """The name for a run's folder: the data set's, or of one's own data the file's, made safe."""
    if name in NAMES:
        return name
    short = own.short_name(name)
    return f"own_{short}" if short in NAMES else short


def load(
    name: str | os.PathLike[str],
    data_dir: str | None = None,
    *,
    likelihood: str | None = None,
    missing: str = "refuse",
    image_size: int | tuple[int, int] | None = None,
    window: int | None = None,
) -> Dataset:
    """Loads a data set, and says in a printed line what it assumed of one's own.

    Args:
      name: one of `NAMES`, or one's own data (see `own`), also as a path.
      data_dir: TFDS's data folder, by default ~/tensorflow_datasets.
      likelihood: of `values.LIKELIHOODS`, or of a model whose values are stored as those of one;
        None for the set's own, or where it can be guessed.
      missing: 'mask' if NaN in one's own data stands for what is missing; else 'refuse'.
      image_size: side, or (height, width), that one's own folder of images is brought to.
      window: characters of an example of text, by default `sequences.WINDOW`.

    Raises:
      UsageError: an unknown name, a missing or wrong file, a folder that cannot be written to.
    """
    if isinstance(name, os.PathLike):  # which is a place, and never one of `NAMES`
        name = os.fspath(name)
        name = os.path.join(os.curdir, name) if name in NAMES else name
    check_name(name)
    if likelihood is not None:
        likelihood = values.stored_as(likelihood)
    given, (data_dir, name) = name, from_bucket.local(data_dir, name)
    text = own.text_path(name)
    if window is not None and text is None and name != "tiny_shakespeare":
        raise UsageError(f"window is for text, and {name} is none")
    if image_size and (text is not None or name in NAMES):
        raise UsageError(f"image_size is for a folder of pictures, and {name} is none")
    if missing != "refuse" and (text is not None or name in NAMES):
        raise UsageError(f"missing={missing} is for arrays of one's own, and {name} has no NaN")
    notes: list[str] = []
    if name in protocols.SPECS:
        dataset = loading.load(name, loading.places(data_dir))
    elif name in NAMES:
        where = loading.places(data_dir)
        folders = [where.given, where.cache]
        dataset = sequences.load(name, folders, where.downloads, window)
    elif text is not None:
        with own.sentences(name):
            path = pathlib.Path(disk.expand_home(str(text)))
            dataset, notes = sequences.text(name, path, window)
    else:
        dataset, notes = own.load(
            name, likelihood=likelihood, missing=missing, image_size=image_size, data_dir=data_dir
        )
    dataset = _noted(given, dataset, notes)
    return dataset if likelihood is None else _with_likelihood(dataset, likelihood)


def of_arrays(
    name: str, held: Any, *, likelihood: str | None = None, missing: str = "refuse"
) -> Dataset:
    """Makes a data set of a dict of arrays, named and checked as those of a .npz; see `load`."""
    return _noted(name, *own.of_arrays(name, held, likelihood=likelihood, missing=missing))


def _noted(name: str, dataset: Dataset, notes: list[str]) -> Dataset:
    for note in notes:
        print(note, flush=True)
    return dataset._replace(name=short_name(name))


def _with_likelihood(dataset: Dataset, likelihood: str) -> Dataset:
    """The same examples for another likelihood, where their values fit."""
    if likelihood == dataset.likelihood:
        return dataset
    if dataset.dynamic or dataset.kind == "sequences":
        raise UsageError(
            f"{dataset.name} is made for likelihood {dataset.likelihood} alone: leave out "
            f"--config.likelihood={likelihood}"
        )
    splits = {split: getattr(dataset, split) for split in SPLITS}
    grey = dataset.max_value == values.GREY_LEVELS - 1
    known = values.facts(dataset.name, dataset.kind, splits, in_bytes=True, grey_levels=grey)
    values.choose(splits, known, likelihood)
    stored = values.store(splits, known, likelihood)
    mean, stddev = moments.moments(stored, dataset.kind)
    return dataset._replace(
        **stored.splits,
        likelihood=stored.likelihood,
        dynamic=stored.dynamic,
        max_value=stored.max_value,
        num_classes=stored.num_classes,
        pseudo_input_mean=mean,
        pseudo_input_stddev=stddev,
    )
