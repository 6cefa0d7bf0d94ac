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
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from vamp_jax import disk
from vamp_jax.bucket import ABSENT, Bucket, BucketError, Changed, in_parts, is_address
from vamp_jax.errors import Stopped, UsageError
from vamp_jax.run.folder import LOCK
from vamp_jax.run.lease import BEAT, EXPIRES, Lease

COMPLETE = "commit_success.txt"  # the name that orbax gives it in a bucket
KEPT = 2  # checkpoints
SECONDS_BETWEEN_ROUNDS = 10.0  # at most; and at least one, as often as an object may be written
PATIENCE = 600.0  # seconds that a bucket may be out of reach
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
            with _Keeper(mirror, lease, seconds):
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
            path = os.path.join(self._folder, name)
            if not os.path.realpath(path).startswith(os.path.realpath(self._folder) + os.sep):
                raise UsageError(f"{self._bucket.address} has an object named {name!r}; remove it.")
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
        files = self._files()
        steps = {step for name in files if (step := _step(name))}
        self._write([name for name in files if not _step(name)], self._folder)
        if steps:
            self._take_checkpoint(max(steps, key=int), files)
        gone = [name for name in self._held if not _step(name) and name not in files]
        self._remove(gone)
        complete = sorted(_steps(self._held), key=int)
        for step in {step for name in self._held if (step := _step(name))} - steps:
            after = steps and int(step) > max(map(int, steps))  # removed, as it was damaged
            if after or step not in complete[-KEPT:]:
                self._remove_step(step)

    def _take_checkpoint(self, step: str, files: dict[str, tuple[int, ...]]) -> None:
        """Takes a checkpoint, from links to its files: orbax may remove it meanwhile."""
        marker = f"checkpoints/{step}/{COMPLETE}"
        names = [name for name in files if _step(name) == step and name != marker]
        known = all(self._is_held(name, files[name]) for name in names)
        if known and marker in self._held:
            return
        self._remove([marker] if marker in self._held else [])
        with tempfile.TemporaryDirectory(dir=os.path.dirname(self._folder)) as links:
            try:
                for name in names:
                    os.makedirs(os.path.dirname(os.path.join(links, name)), exist_ok=True)
                    os.link(os.path.join(self._folder, name), os.path.join(links, name))
            except FileNotFoundError:  # removed in this moment: a newer one comes
                return
            self._write(names, links)
            path = os.path.join(links, marker)
            with open(path, "wb"):
                pass
            self._write([marker], links)

    def _write(self, names: Iterable[str], folder: str) -> None:
        """Writes the objects of those files in a folder that have changed."""
        changed = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # gone by now
                signature = _signature(os.path.join(folder, name))
                if not self._is_held(name, signature):
                    changed[name] = signature
        for part in in_parts((name, signature[0]) for name, signature in changed.items()):
            values = {}
            for name in part:
                with (
                    contextlib.suppress(FileNotFoundError),
                    open(os.path.join(folder, name), "rb") as file,
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
        found = {}
        for parent, _, names in os.walk(self._folder):
            for path in (os.path.join(parent, name) for name in names):
                name = os.path.relpath(path, self._folder)
                if not _is_left_out(name) and os.path.isfile(path):
                    with contextlib.suppress(FileNotFoundError):
                        found[name] = _signature(path)
        return found


class _Keeper:
    """Threads that renew the lock and take what changes to the bucket; a context manager."""

    def __init__(self, mirror: Mirror, lease: Lease, seconds: float):
        self._failed: Exception | None = None
        self._good = time.monotonic()  # when the bucket was last reached
        self._taking = _Repeated(
            max(1.0, min(seconds, SECONDS_BETWEEN_ROUNDS)), self._told(mirror.take)
        )
        self._beating = _Repeated(BEAT, self._told(lease.renew))
        self._take = self._guarded(mirror.take)

    def __enter__(self):
        self._taking.start()
        self._beating.start()
        return self

    def __exit__(self, kind, error, trace):
        self._taking.end()
        while self._failed is None and not self._take():
            time.sleep(1.0)
        self._beating.end()
        if self._failed is None:
            return
        # Stopped and KeyboardInterrupt were the way to be heard.
        if kind is None or issubclass(kind, Stopped | KeyboardInterrupt):
            raise self._failed from None
        print(self._failed, file=sys.stderr, flush=True)

    def _told(self, function: Callable[[], None]) -> Callable[[], bool]:
        """`_guarded`, for a thread: returns whether to go on, and tells the main one if not."""
        guarded = self._guarded(function)

        def go_on() -> bool:
            if self._failed is None:
                guarded()
                if self._failed is not None:
                    # As Ctrl-C: training ends after the epoch, and what waits is woken.
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return self._failed is None

        return go_on

    def _guarded(self, function: Callable[[], None]) -> Callable[[], bool]:
        """Returns whether it was done, and keeps what cannot be mended by waiting."""

        def done() -> bool:
            try:
                function()
                self._good = time.monotonic()
                return True
            except Changed as error:
                self._failed = Changed(
                    f"{str(error).rstrip('.')} in the meantime, as a lock that is not renewed for "
                    f"{EXPIRES:.0f} s may be taken: see what is at work there, and give the same "
                    "command again."
                )
            except BucketError as error:
                if not error.passing or time.monotonic() - self._good > PATIENCE:
                    self._failed = BucketError(
                        f"{error} Then give the same command again; it goes on from the last "
                        "checkpoint in the bucket."
                    )
            except Exception as error:  # of the local disk
                self._failed = error
            return False

        return done


class _Repeated:
    """A thread that calls a function every so many seconds, while it returns True."""

    def __init__(self, seconds: float, function: Callable[[], bool]):
        self._seconds, self._function = seconds, function
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _repeat(self) -> None:
        while not self._ended.wait(self._seconds) and self._function():
            pass

    def end(self) -> None:
        """Returns when the last call has."""
        self._ended.set()
        self._thread.join()


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
    return {_step(name) for name in names if _step(name) and name.endswith(f"/{COMPLETE}")}


def _is_left_out(name: str) -> bool:
    """Whether a file is of this process alone: a lock, or one that is being written."""
    parts = name.split("/")
    writing = parts[0] == "checkpoints" and len(parts) > 2 and not parts[1].isdigit()
    return parts[-1] == LOCK or name.endswith(".partial") or writing
