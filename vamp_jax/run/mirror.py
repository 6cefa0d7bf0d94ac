"""A run's folder that lies in a bucket: a copy on this machine, and the bucket kept like it.

All that a run promises of its folder (locks, renames, what is appended) holds in a copy on the
local disk. A thread takes what changes there to the bucket, in an order that lets any moment be the
last: a checkpoint counts once its `commit_success.txt` is there, which comes after its files and
after the rows of the log up to it, and goes before them. So the bucket holds the run as it was some
seconds ago, and what a lost machine costs is trained again, to the same bits.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from vamp_jax import disk
from vamp_jax.bucket import ABSENT, Bucket, BucketError, in_parts, is_address, place_of_copy
from vamp_jax.errors import UsageError
from vamp_jax.run.folder import LOCK
from vamp_jax.run.keeper import SECONDS_BETWEEN_ROUNDS, Keeper
from vamp_jax.run.lease import Lease

COMPLETE = "commit_success.txt"  # the name that orbax gives it in a bucket
KEPT = 2  # checkpoints
PREFIX = "vamp_jax-bucket-"


class Held(NamedTuple):
    """An object of the bucket, and the file here that it is equal to."""

    generation: bytes
    signature: tuple[int, ...]


@contextlib.contextmanager
def at_hand(
    folder: str, lock: str | None = LOCK, seconds: float = SECONDS_BETWEEN_ROUNDS
) -> Iterator[str]:
    """Yields a folder on this machine: the one named, or a copy of what lies at an address.

    What changes in a copy is taken to the bucket, at the latest at the end. What is printed and
    raised meanwhile has the address in place of the copy's name.

    Args:
      folder: its name or address.
      lock: of the bucket, so that one process alone is at work there; None where nothing is
        written. (Of a folder on a disk others take care.)
      seconds: from one look at what has changed to the next, within bounds.
    Raises:
      UsageError: the bucket cannot be read or written, or another process is at work there.
    """
    if not is_address(folder):
        yield folder
        return
    bucket = Bucket(folder)
    with contextlib.ExitStack() as stack:
        if lock is not None:
            lease = _lease(bucket, lock)
            stack.callback(_let_go, lease)
        copy = stack.enter_context(_scratch(os.path.basename(bucket.address)))
        with _called(copy, bucket.address):
            mirror = Mirror(bucket, copy)
            mirror.fetch(tidy=lock == LOCK, sign=lock or "config.json")
            if lock is None:
                yield copy
                return
            with Keeper(mirror.take, lease, seconds):
                yield copy


def fetch_file(address: str, folder: str) -> str:
    """Copies one object into a folder; returns the path of the file.

    Raises:
      UsageError: when there is none, or the bucket cannot be read.
    """
    where, _, name = address.rpartition("/")
    value = Bucket(where).read(name).value if name else None
    if value is None:
        raise UsageError(f"{address} is missing.")
    path = os.path.join(folder, name)
    with disk.whole_file(path, "wb") as file:
        file.write(value)
    return path


def _lease(bucket: Bucket, lock: str) -> Lease:
    try:
        return Lease(bucket, lock)
    except BlockingIOError as error:
        raise UsageError(
            f"Another process is at work in {bucket.address} ({error.strerror}): wait for it, or "
            "name another folder with --workdir."
        ) from None


def _let_go(lease: Lease) -> None:
    with contextlib.suppress(BucketError):  # then it expires
        lease.let_go()


class Mirror:
    """The objects of a bucket and the files of a folder, made equal either way."""

    def __init__(self, bucket: Bucket, folder: str):
        self._bucket, self._folder = bucket, folder
        self._held: dict[str, Held] = {}

    def fetch(self, tidy: bool, sign: str) -> None:
        """Copies what is in the bucket: checkpoints that are complete, then all the rest.

        Args:
          tidy: remove parts of checkpoints from the bucket, which nobody else is writing.
          sign: see `Bucket.names`.
        """
        names = [name for name in self._bucket.names(sign) if not _is_left_out(name)]
        steps = _steps(names)
        parts = [name for name in names if _step(name) and _step(name) not in steps]
        if tidy:
            self._remove(parts, {name: self._bucket.read(name).generation for name in parts})
        rest = [name for name in names if name not in parts]
        for name in sorted(rest, key=lambda name: (not _step(name), name == "metrics.jsonl")):
            found = self._bucket.read(name)
            if found.value is None:  # gone by now
                continue
            path = place_of_copy(self._bucket.address, name, self._folder)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(found.value)
            self._held[name] = Held(found.generation, _signature(path))
        for step in _steps(self._held):  # one that was removed while it was read
            if not all(name in self._held for name in rest if _step(name) == step):
                shutil.rmtree(os.path.join(self._folder, "checkpoints", step))
                self._held = {n: held for n, held in self._held.items() if _step(n) != step}

    def take(self) -> None:
        """Takes what has changed to the bucket.

        Raises:
          Changed: another process has written there.
          BucketError: it cannot be written now; this can be tried again.
        """
        with tempfile.TemporaryDirectory(dir=os.path.dirname(self._folder)) as links:
            newest = self._link_newest(links)
            files = self._files()  # later, so that the log has the rows of the checkpoint
            self._write([name for name in files if not _step(name)], self._folder)
            if newest:
                self._take_checkpoint(newest, links)
        steps = {step for name in files if (step := _step(name))}
        gone = [name for name in self._held if not _step(name) and name not in files]
        self._remove(gone)
        complete = sorted(_steps(self._held), key=int)
        for step in {step for name in self._held if (step := _step(name))} - steps:
            after = steps and int(step) > max(map(int, steps))  # removed, as it was damaged
            if after or step not in complete[-KEPT:]:
                self._remove_step(step)

    def _link_newest(self, links: str) -> str:
        """Makes links to the files of the newest checkpoint, which orbax may remove; its step.

        Orbax removes one once two newer are there: what is among the newest two still is whole.
        """
        folder = os.path.join(self._folder, "checkpoints")
        for _ in range(20):
            if not (there := self._local_steps()):
                break
            source, target = (os.path.join(top, there[-1]) for top in (folder, links))
            with contextlib.suppress(FileNotFoundError, shutil.Error):
                shutil.copytree(source, target, copy_function=os.link)
                if there[-1] in self._local_steps()[-KEPT:]:
                    return there[-1]
            shutil.rmtree(target, ignore_errors=True)
        return ""

    def _local_steps(self) -> list[str]:
        with contextlib.suppress(FileNotFoundError):
            names = os.listdir(os.path.join(self._folder, "checkpoints"))
            return sorted((name for name in names if name.isdigit()), key=int)
        return []

    def _take_checkpoint(self, step: str, links: str) -> None:
        """Takes a checkpoint from the links to its files, and then says that it is complete."""
        there = _files(links)
        names = {f"checkpoints/{name}": signature for name, signature in there.items()}
        marker = f"checkpoints/{step}/{COMPLETE}"
        names.pop(marker, None)
        if marker in self._held and all(self._is_held(*item) for item in names.items()):
            return
        self._remove([marker] if marker in self._held else [])
        self._write(names, links, "checkpoints/")
        with open(os.path.join(links, step, COMPLETE), "ab"):  # makes it, where there is none
            pass
        self._write([marker], links, "checkpoints/")

    def _write(self, names: Iterable[str], folder: str, start: str = "") -> None:
        """Writes the objects of those files in a folder that have changed.

        Args:
          start: what the names begin with and the files in the folder do not.
        """
        changed = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # gone by now
                signature = _signature(os.path.join(folder, name.removeprefix(start)))
                if not self._is_held(name, signature):
                    changed[name] = signature
        for part in in_parts((name, signature[0]) for name, signature in changed.items()):
            values = {}
            for name in part:
                with (
                    contextlib.suppress(FileNotFoundError),
                    open(os.path.join(folder, name.removeprefix(start)), "rb") as file,
                ):
                    values[name] = file.read()
            generations = self._bucket.write_all(values, {name: self._of(name) for name in values})
            for name, generation in generations.items():
                self._held[name] = Held(generation, changed[name])

    def _remove_step(self, step: str) -> None:
        marker = f"checkpoints/{step}/{COMPLETE}"
        self._remove([marker] if marker in self._held else [])
        self._remove([name for name in self._held if _step(name) == step])

    def _remove(self, names: list[str], generations: dict[str, bytes] | None = None) -> None:
        generations = generations or {name: self._of(name) for name in names}
        self._bucket.write_all(dict.fromkeys(names), generations)
        for name in names:
            self._held.pop(name, None)

    def _of(self, name: str) -> bytes:
        return self._held[name].generation if name in self._held else ABSENT

    def _is_held(self, name: str, signature: tuple[int, ...]) -> bool:
        return name in self._held and self._held[name].signature == signature

    def _files(self) -> dict[str, tuple[int, ...]]:
        """The files here that belong into the bucket, with their signatures."""
        found = _files(self._folder)
        return {name: signature for name, signature in found.items() if not _is_left_out(name)}


def _files(folder: str) -> dict[str, tuple[int, ...]]:
    """The files below a folder, with their signatures."""
    found = {}
    for parent, _, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                if os.path.isfile(path):
                    found[os.path.relpath(path, folder)] = _signature(path)
    return found


@contextlib.contextmanager
def _scratch(name: str) -> Iterator[str]:
    """Makes a folder of this name in the temporary folder, which goes at the end.

    Those of processes that were killed go now.
    """
    parent = tempfile.gettempdir()
    for left in os.listdir(parent):
        lock = os.path.join(parent, left, "lock")
        if left.startswith(PREFIX) and os.path.exists(lock) and not disk.is_locked(lock):
            shutil.rmtree(os.path.dirname(lock), ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as folder:
        with disk.locked(os.path.join(folder, "lock"), wait=False):
            copy = os.path.join(folder, name or "run")
            os.mkdir(copy)
            yield copy


class _Stream:
    """A stream in which one name stands for another."""

    def __init__(self, stream: Any, name: str, called: str):
        self._stream, self._name, self._called = stream, name, called

    def write(self, text: str) -> int:
        self._stream.write(text.replace(self._name, self._called))
        return len(text)

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self._stream, attribute)


@contextlib.contextmanager
def _called(copy: str, address: str) -> Iterator[None]:
    """Prints and raises an address in place of the name of its copy."""
    try:
        with contextlib.redirect_stdout(_Stream(sys.stdout, copy, address)):
            yield
    except Exception as error:
        # A disk that is full is the local one.
        if hasattr(error, "exit_code") and "make room" not in str(error):
            error.args = tuple(str(part).replace(copy, address) for part in error.args)
        raise


def _signature(path: str) -> tuple[int, ...]:
    status = os.stat(path)
    return status.st_size, status.st_mtime_ns, status.st_ino


def _step(name: str) -> str:
    """The checkpoint that a file belongs to; '' if it belongs to none."""
    parts = name.split("/")
    return parts[1] if len(parts) > 2 and parts[0] == "checkpoints" and parts[1].isdigit() else ""


def _steps(names: Iterable[str]) -> set[str]:
    """The checkpoints that are complete."""
    # Not what orbax leaves under the same name in the folders of its items.
    found = {(step, name) for name in names if (step := _step(name))}
    return {step for step, name in found if name == f"checkpoints/{step}/{COMPLETE}"}


def _is_left_out(name: str) -> bool:
    """Whether a file is of this process alone: a lock, or one that is being written."""
    parts = name.split("/")
    writing = parts[0] == "checkpoints" and len(parts) > 2 and not parts[1].isdigit()
    return parts[-1] == LOCK or name.endswith(".partial") or writing
