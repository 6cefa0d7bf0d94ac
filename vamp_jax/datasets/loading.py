"""The paper's image sets: prepared on the first call and read back on the later ones."""

import contextlib
import os
import pathlib
import shutil
import tempfile
from typing import NamedTuple

from vamp_jax import disk
from vamp_jax.datasets import arrays, files, protocols
from vamp_jax.datasets.dataset import SPLITS, Dataset
from vamp_jax.errors import UsageError

_HOME = "vamp_jax"  # subfolder of the data folder: TFDS's own sets of the same names stay apart


class Places(NamedTuple):
    """Folders: `given` and `cache` are searched, `target` is the one of them that is written to."""

    given: pathlib.Path
    cache: pathlib.Path
    target: pathlib.Path

    @property
    def downloads(self) -> pathlib.Path:
        return self.target / "downloads" / "manual"


def places(data_dir: str | None) -> Places:
    """Where data is looked for and prepared: in data_dir, by default ~/tensorflow_datasets, or,
    where that cannot be written to, in the user's cache folder.

    Raises:
      UsageError: data_dir is no local folder.
    """
    try:
        given = pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser().absolute()
        if "://" in str(data_dir) or (given.exists() and not given.is_dir()):
            raise UsageError(
                f"the data folder {data_dir} is not a local folder: pass --data_dir=FOLDER"
            )
        cache = _cache_folder(given)
        return Places(given, cache, given if _writable(given) else cache)
    except (OSError, TypeError, RuntimeError, ValueError) as error:  # a name that cannot be
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"the data folder {str(data_dir)[:80]!r} cannot be used "
            f"({getattr(error, 'strerror', None) or error}): pass --data_dir=FOLDER"
        ) from None


def load(name: str, where: Places) -> Dataset:
    """Loads a set of `protocols.SPECS`; prepares it first where that has not been done or the
    files have changed.

    Official files are looked for by name in data_dir/downloads/manual, one folder below that, in
    data_dir, and one folder below that; what is missing is downloaded.

    Raises:
      UsageError: a missing or wrong file, a folder that cannot be written to.
    """
    target = where.target
    try:
        dataset = _load(name, [where.given, where.cache], target)
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
    digests = {split: arrays.digest(images) for split, images in splits.items()}
    if metadata.get("contents", digests) != digests:
        print(
            f"{name}: what was prepared in {home} has changed since, and is not used.", flush=True
        )
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
