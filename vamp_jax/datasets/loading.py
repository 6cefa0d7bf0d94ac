"""`load`: a data set as arrays, prepared on the first call and read back on the later ones."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from vamp_jax import disk
from vamp_jax.datasets import files, own, protocols, values
from vamp_jax.datasets.dataset import SPLITS, Dataset
from vamp_jax.errors import UsageError

NAMES = tuple(protocols.SPECS)
_HOME = "vamp_jax"  # subfolder of the data folder: TFDS's own sets of the same names stay apart


def check_name(name: str) -> None:
    """Raises a UsageError unless this is one of `NAMES` or names one's own data."""
    if name not in NAMES and not (isinstance(name, str) and own.is_own(name)):
        raise UsageError(
            f"there is no data set {name!r}: choose one of {', '.join(NAMES)}, or name your own "
            "data (a .npz, .npy, .h5 or .h5ad file, a folder of images, tfds:NAME)"
        )


def short_name(name: str) -> str:
    """The name for a run's folder: the data set's, or of one's own data the file's, made safe."""
    if name in NAMES:
        return name
    short = own.short_name(name)
    return f"own_{short}" if short in NAMES else short


def load(
    name: str,
    data_dir: str | None = None,
    *,
    likelihood: str | None = None,
    missing: str = "refuse",
    image_size: int | tuple[int, int] | None = None,
) -> Dataset:
    """Loads a data set, and says what it assumed of one's own.

    Args:
      name: one of `NAMES`, or one's own data (see `own`).
      data_dir: TFDS's data folder, by default ~/tensorflow_datasets.
      likelihood: None for the data set's own, or where it can be guessed.
      missing: 'mask' if NaN stands for what is missing.
      image_size: of one's own folder of images, where they are to be scaled.

    Raises:
      UsageError: an unknown name, a missing or wrong file, a folder that cannot be written to.
    """
    check_name(name)
    if name in NAMES:
        if image_size:
            raise UsageError(f"image_size is for a folder of pictures, and {name} is none")
        dataset = _load_named(name, data_dir)
        return dataset if likelihood is None else _with_likelihood(dataset, likelihood)
    dataset, notes = own.load(
        name, likelihood=likelihood, missing=missing, image_size=image_size, data_dir=data_dir
    )
    for note in notes:
        print(note, flush=True)
    return dataset._replace(name=short_name(name))


def _with_likelihood(dataset: Dataset, likelihood: str) -> Dataset:
    """The same images for another likelihood, where their values fit."""
    if likelihood == dataset.likelihood:
        return dataset
    if dataset.dynamic:
        raise UsageError(
            f"the images of {dataset.name} are chances of a 1, for likelihood "
            f"{dataset.likelihood} alone: leave out --config.likelihood={likelihood}"
        )
    splits = {split: getattr(dataset, split) for split in SPLITS}
    known = values.facts(
        dataset.name,
        dataset.kind,
        splits,
        in_bytes=True,
        grey_levels=dataset.max_value == values.GREY_LEVELS - 1,
    )
    values.choose(splits, known, likelihood)
    stored = values.store(splits, known, likelihood)
    mean, stddev = values.moments(stored, dataset.kind)
    return dataset._replace(
        **stored.splits,
        likelihood=stored.likelihood,
        dynamic=stored.dynamic,
        max_value=stored.max_value,
        num_classes=stored.num_classes,
        pseudo_input_mean=mean,
        pseudo_input_stddev=stddev,
    )


def _load_named(name: str, data_dir: str | None) -> Dataset:
    """Prepares a set first where that has not been done or the files have changed.

    Official files are looked for by name in data_dir/downloads/manual, one folder below that, in
    data_dir, and one folder below that; what is missing is downloaded. The prepared set goes into
    data_dir/vamp_jax, or, where data_dir cannot be written to, into the user's cache folder.
    """
    try:
        given = pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser().absolute()
        if "://" in str(data_dir) or (given.exists() and not given.is_dir()):
            raise UsageError(
                f"the data folder {data_dir} is not a local folder: pass --data_dir=FOLDER"
            )
        cache = _cache_folder(given)
        target = given if _writable(given) else cache
    except (OSError, TypeError, RuntimeError, ValueError) as error:  # a name that cannot be
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"the data folder {str(data_dir)[:80]!r} cannot be used "
            f"({getattr(error, 'strerror', None) or error}): pass --data_dir=FOLDER"
        ) from None
    try:
        dataset = _load(name, [given, cache], target)
    except OSError as error:
        raise UsageError(
            f"{name} cannot be prepared in {target} ({error}): "
            "make room there or pass --data_dir=FOLDER with another folder"
        ) from None
    if dataset is None:
        raise UsageError(f"{name} was prepared in {target} but cannot be read back: check the disk")
    return dataset


def _load(name: str, folders: list[pathlib.Path], target: pathlib.Path) -> Dataset | None:
    """Reads what has been prepared below one of `folders`, or else prepares it below `target`."""
    sources = protocols.SPECS[name].sources
    found = {source.name: files.find(source, folders) for source in sources}
    found = {source: path for source, path in found.items() if path is not None}
    for source in sources:
        for other in files.find_others(source, folders):
            print(f"{name}: {found[source.name]} is taken, and {other} is not.", flush=True)
    for folder in folders:
        with _lock(folder / _HOME, name):
            dataset = _read(name, folder / _HOME, found)
        if dataset is not None:
            return dataset

    paths = files.obtain(name, sources, folders, target / "downloads" / "manual")
    home = target / _HOME
    home.mkdir(parents=True, exist_ok=True)
    with _lock(home, name):
        dataset = _read(name, home, paths)  # another process may have been first
        if dataset is None:
            _prepare(name, home, paths)
            dataset = _read(name, home, paths)
    return dataset


def _cache_folder(data_dir: pathlib.Path) -> pathlib.Path:
    """Where sets are prepared whose files lie in a read-only `data_dir`; one folder for each."""
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    digest = disk.digest(str(data_dir.resolve()), letters=12)
    return pathlib.Path(root).expanduser().absolute() / "vamp_jax" / digest


def _writable(folder: pathlib.Path) -> bool:
    """Whether files may be made in it, or it may be made. A folder that is marked read-only stays
    untouched even when root, who could, runs this."""
    while not folder.exists():
        folder = folder.parent
    return folder.stat().st_mode & 0o222 != 0 and os.access(folder, os.W_OK | os.X_OK)


@contextlib.contextmanager
def _lock(home: pathlib.Path, name: str):
    """One process at a time; none where no lock can be had (nothing there yet, or read-only)."""
    with contextlib.ExitStack() as stack:
        if _writable(home):
            with contextlib.suppress(OSError):
                stack.enter_context(disk.locked(home / f"{name}.lock", wait=True))
        yield


def _read(name: str, home: pathlib.Path, found: dict[str, pathlib.Path]) -> Dataset | None:
    """The prepared set, or None where there is none, it is damaged, or `found` files differ."""
    if not (home / name / protocols.VERSION / "dataset_info.json").is_file():
        return None
    from vamp_jax.datasets import builders  # imports TFDS, which takes a while

    spec = protocols.SPECS[name]
    try:
        with disk.plain_path(home) as path:
            splits, metadata = builders.read(name, pathlib.Path(path))
        hashes, signatures = metadata["sha256"], metadata["signatures"]
    except Exception:  # whatever TFDS stumbles over, preparing anew is the cure
        return None
    for split, size in zip(SPLITS, spec.sizes, strict=True):
        if splits[split].shape != (size, *spec.shape, 1):
            return None
    for source in spec.sources:
        if (
            source.name not in found
            or files.signature(found[source.name]) == signatures[source.name]
        ):
            continue
        if files.sha256(files.read(source, found[source.name])) != hashes[source.name]:
            return None
    return Dataset(
        name=name,
        **splits,
        likelihood=spec.likelihood,
        dynamic=spec.dynamic,
        max_value=spec.max_value,
        pseudo_input_mean=spec.pseudo_input_mean,
        pseudo_input_stddev=spec.pseudo_input_stddev,
        file_hashes=dict(hashes),
    )


def _prepare(name: str, home: pathlib.Path, paths: dict[str, pathlib.Path]) -> None:
    """Prepares into a temporary folder, and only a finished one takes the place of the old."""
    from vamp_jax.datasets import builders

    for leftover in home.glob(f".{name}-*"):  # of a process that was killed; we hold the lock
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=home, prefix=f".{name}-") as scratch:
        try:
            with disk.plain_path(scratch) as path:
                builders.prepare(name, pathlib.Path(path), paths)
        except (UsageError, OSError):
            raise
        except Exception as error:  # array_record's own, of a full disk for one
            raise OSError(str(error)) from error
        final = home / name / protocols.VERSION
        final.parent.mkdir(exist_ok=True)
        if final.exists():
            final.rename(pathlib.Path(scratch) / "replaced")
        (pathlib.Path(scratch) / name / protocols.VERSION).rename(final)
