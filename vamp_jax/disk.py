"""Files and folders: written whole or not at all, read or refused with a sentence, locked."""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
import tempfile
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


def expand_home(path: str) -> str:
    """Replaces ~ and ~USER at the start of a path by that home, as a shell would.

    Raises:
      UsageError: when there is no such user.
    """
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise UsageError(f"{path} names no user's home; for a folder of this name write ./{path}.")
    return expanded


@contextlib.contextmanager
def plain_path(folder: str | os.PathLike) -> Iterator[str]:
    """Names a folder so that every library can read it: by letters, digits and / . _ - + = , @.

    Orbax, TensorStore and etils take `[1]`, `**`, `gs:` and `\\` in a name for patterns and
    addresses, and cannot take bytes that are not UTF-8. A folder with such a name is reached by a
    symbolic link in the system's temporary folder, which goes at the end.

    Raises:
      UsageError: when the temporary folder has such a name, too.
    """
    path = os.path.abspath(folder)
    if _is_plain(path):
        yield path
        return
    temporary = tempfile.mkdtemp(prefix="vamp_jax-")
    try:
        if not _is_plain(temporary):
            raise UsageError(
                f"{path} has characters in its name that cannot be used, and so has the temporary "
                f"folder {tempfile.gettempdir()}: name another folder, or set TMPDIR."
            )
        link = os.path.join(temporary, "link")
        os.symlink(path, link)
        yield link
    finally:
        shutil.rmtree(temporary, ignore_errors=True)  # removes the link, not what it points to


def _is_plain(path: str) -> bool:
    return re.fullmatch(r"[\w/.+=,@ -]*", path, re.ASCII) is not None and len(path) < 2000


def digest(text: str, letters: int = 8) -> str:
    """The first letters of the SHA-256 of a text, to tell the names of files and folders apart."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:letters]


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
