"""Files and folders: written whole or not at all, read or refused with a sentence, locked."""

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from typing import IO, Any

from vamp_jax.errors import UsageError

DAMAGED = "the run's folder is damaged"


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w", *, shared: bool = False) -> Iterator[IO]:
    """Opens a file that gets its name only once it is complete and on the disk.

    Args:
      path: the file; what it held before stays until then, and for good after an exception.
      mode: "w" (UTF-8) or "wb", or these with "+".
      shared: another process may be writing the same file, since no lock keeps it out.
    """
    partial = f"{os.fspath(path)}.{os.getpid()}.partial" if shared else f"{os.fspath(path)}.partial"
    encoding = None if "b" in mode else "utf-8"
    try:
        with open(partial, mode, encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def write_json(path: str, values: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    with whole_file(path) as file:
        json.dump(values, file, indent=2, sort_keys=True)
        file.write("\n")


def read_json(path: str, otherwise: str = DAMAGED) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
      otherwise: what it means, or what to do, when the file is not one; ends the sentence.
    Raises:
      UsageError: when the file is not one.
    """
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}); {otherwise}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a JSON object; {otherwise}.")
    return values


def make_folder(folder: str) -> None:
    """Makes a folder and those above it, or raises a UsageError."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}).") from None


def digest(text: str, letters: int = 8) -> str:
    """The first letters of the SHA-256 of a text, to tell the names of files and folders apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:letters]


def digest_of_values(values: Any) -> str:
    """`digest` of JSON values."""
    return digest(json.dumps(values, sort_keys=True))


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, wait: bool) -> Iterator[None]:
    """Holds a lock file for this process alone; the lock goes when the process does.

    On a file system without locks there is none.

    Args:
      path: of the lock file; its folder must exist.
      wait: until another process has let it go; otherwise that is a BlockingIOError.
    Raises:
      OSError: when the file cannot be opened for writing.
    """
    with open(path, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass
        yield
