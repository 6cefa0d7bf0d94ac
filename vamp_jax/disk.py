"""Files and folders: written whole or not at all, read or refused with a sentence, locked."""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from typing import IO, Any

from vamp_jax import bucket
from vamp_jax.errors import UsageError, first_line

DAMAGED = "the run's folder is damaged"
KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a folder",
}
# What the system, or a library that passes it on, says of a disk without space and of one that
# may not be written.
FULL = ("No space left", "quota exceeded", "File too large", "RESOURCE_EXHAUSTED")
FORBIDDEN = ("Permission denied", "not permitted", "Read-only file system", "PERMISSION_DENIED")


@contextlib.contextmanager
def whole_file(path: str | os.PathLike, mode: str = "w", *, shared: bool = False) -> Iterator[IO]:
    """Opens a file that gets its name only once it is complete and on the disk.

    Args:
      path: the file; what it held before stays until then, and for good after an exception.
      mode: "w" (UTF-8) or "wb", or these with "+".
      shared: another process may be writing the same file, since no lock keeps it out.
    """
    if bucket.is_address(path):
        with bucket.whole_object(os.fspath(path), mode) as file:
            yield file
        return
    partial = f"{os.fspath(path)}.{os.getpid()}.partial" if shared else f"{os.fspath(path)}.partial"
    encoding = None if "b" in mode else "utf-8"
    with contextlib.suppress(FileNotFoundError):
        os.remove(partial)  # of a killed process; never written through, if it is a link or a pipe
    try:
        with open(partial, mode.replace("w", "x"), encoding=encoding) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.remove(partial)
        raise


def open_file(path: str | os.PathLike, mode: str = "r", **kwargs: Any) -> IO:
    """Opens a file for reading; a named pipe, a socket or a device in its place is an OSError.

    Opening such a thing as if it were a file could wait forever.
    """
    _refuse_unless_file(os.stat(path).st_mode, path)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return _opened(descriptor, path, mode, **kwargs)


def _opened(descriptor: int, path: str | os.PathLike, mode: str, **kwargs: Any) -> IO:
    try:
        _refuse_unless_file(os.fstat(descriptor).st_mode, path)
        return open(descriptor, mode, **kwargs)
    except BaseException:
        os.close(descriptor)
        raise


def _refuse_unless_file(mode: int, path: str | os.PathLike) -> None:
    if not stat.S_ISREG(mode):
        kind = KINDS.get(stat.S_IFMT(mode), "of an unknown kind")
        raise OSError(errno.EINVAL, f"it is {kind}, not a file", os.fspath(path))


def check_files(folder: str) -> None:
    """Raises a UsageError for anything below a folder that is neither a file nor a folder."""
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            try:
                _refuse_unless_file(os.stat(path).st_mode, path)
            except FileNotFoundError:  # a link to nowhere, or gone by now
                continue
            except OSError as error:
                raise UsageError(f"{path} cannot be read: {error.strerror}.") from None


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
        with open_file(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or first_line(error)
        raise UsageError(f"{path} cannot be read ({reason}); {otherwise}.") from None
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


def local_folder(path: str) -> str:
    """`expand_home` of a folder that has to lie on a disk.

    Raises:
      UsageError: when it is the address of a bucket.
    """
    if bucket.is_address(path):
        raise UsageError(f"{path} is in a bucket; name a folder on this machine here.")
    return expand_home(path)


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


def advice(error: BaseException, folder: str) -> str:
    """What to do about a folder in which something could not be written; begins a sentence's end.

    Args:
      error: of the system, or of a library that quotes it.
      folder: where it happened.
    """
    text = str(error)
    if not os.path.isdir(folder):
        return "it was removed or moved in the meantime: put it back"
    if any(words in text for words in FORBIDDEN):
        return "allow this user to write there"
    if any(words in text for words in FULL):
        return "make room there"
    return "see to it"


@contextlib.contextmanager
def locked(path: str | os.PathLike, *, wait: bool) -> Iterator[None]:
    """Holds a lock file for this process alone; the lock goes when the process does.

    On a file system without locks there is none.

    Args:
      path: of the lock file, which says who holds it; its folder must exist.
      wait: until another process has let it go, saying so; otherwise that is a BlockingIOError,
        whose strerror names the process.
    Raises:
      OSError: when the file cannot be opened for writing, or is not a file.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            error.strerror = f"{os.path.basename(path)} is a symbolic link, not a file"
        raise
    with _opened(descriptor, path, "r+", encoding="utf-8", errors="replace") as lock:
        try:
            _take(lock)
        except BlockingIOError:
            holder = lock.read(200).strip() or "another process"
            if not wait:
                raise BlockingIOError(errno.EWOULDBLOCK, holder) from None
            print(f"Waiting for {holder}, which holds {path}.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError:  # no locks here
            pass
        with contextlib.suppress(OSError):  # of a full disk
            lock.seek(0)
            lock.truncate()
            lock.write(f"process {os.getpid()} on {socket.gethostname()}, since {_now()}\n")
            lock.flush()
        yield


def _take(lock: IO[str]) -> None:
    """Takes a lock, or raises a BlockingIOError; who only looks has it for no time."""
    for _ in range(4):
        with contextlib.suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(0.05)
    return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def is_locked(path: str | os.PathLike) -> bool:
    """Whether a process holds this lock file; not, where there is none."""
    try:
        with open_file(path) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # no file, or no locks here
        return False
    return False


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %Z")
