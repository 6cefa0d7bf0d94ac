"""Source files: where they are looked for, how they are downloaded, how they are checked.

TFDS's own download manager is not used: it pins the bytes of a container (MNIST's gzip files differ
between mirrors in a time stamp), where we pin what is inside, and its errors run over many lines.
"""

import contextlib
import gzip
import hashlib
import os
import pathlib
import resource
import stat
import urllib.request
import zlib
from collections.abc import Iterator, Sequence
from typing import BinaryIO, NamedTuple

from vamp_jax import disk
from vamp_jax.errors import UsageError

_DOWNLOAD_TIMEOUT_S = 10  # per connection and per read, not for the whole file
_CHUNK = 1 << 20


class Source(NamedTuple):
    """One official file. Sizes and the hash are those of the unpacked contents."""

    name: str  # of the unpacked file
    urls: tuple[str, ...]  # tried in this order; one that ends in .gz is unpacked on reading
    max_bytes: int  # nothing longer is ever read into memory
    size: int | None = None  # exact size, where known
    sha256: str | None = None  # where known


def find(source: Source, folders: Sequence[pathlib.Path]) -> pathlib.Path | None:
    """The file (plain or gzipped) in the first place that has it, see `_searched`."""
    return next(_found(source, folders), None)


def find_others(source: Source, folders: Sequence[pathlib.Path]) -> list[pathlib.Path]:
    """More files of that name in other places, which `find` leaves alone."""
    found = list(_found(source, folders))
    return [
        path for path in found[1:] if path.parent != found[0].parent and not path.samefile(found[0])
    ]


def _found(source: Source, folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    for folder in _searched(folders):
        for name in (source.name, source.name + ".gz"):
            if (folder / name).is_file():
                yield folder / name


def _searched(folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
    """TFDS's manual folder, one level below it, the data folder, one level below it."""
    for data_dir in folders:
        for top in (data_dir / "downloads" / "manual", data_dir):
            yield top
            try:
                yield from sorted(path for path in top.iterdir() if path.is_dir())
            except OSError:  # absent or unreadable: nothing to find there
                continue


def obtain(
    name: str,
    sources: Sequence[Source],
    folders: Sequence[pathlib.Path],
    download_dir: pathlib.Path,
) -> dict[str, pathlib.Path]:
    """Finds each source file of the data set `name`, or downloads it into `download_dir`.

    Returns:
      Source name -> path.

    Raises:
      UsageError: a file is neither there nor to be had; says where it belongs.
    """
    paths = {}
    for source in sources:
        path = find(source, folders)
        if path is None:
            path = _download(name, source, folders, download_dir)
        paths[source.name] = path
    return paths


def _download(
    name: str, source: Source, folders: Sequence[pathlib.Path], download_dir: pathlib.Path
) -> pathlib.Path:
    reasons = []
    for url in source.urls:
        target = download_dir / (source.name + (".gz" if url.endswith(".gz") else ""))
        try:
            return _fetch(source, url, target)
        except (OSError, ValueError) as error:  # URLError and timeouts are OSErrors
            reasons.append(f"{url} ({getattr(error, 'reason', None) or error})")
        except Exception as error:  # http.client's own family
            reasons.append(f"{url} ({type(error).__name__})")
    where = " or ".join(str(folder) for folder in folders)
    raise UsageError(
        f"{name} needs the file {source.name}, which is not in {where} (nor in downloads/manual "
        f"there, nor one folder below) and could not be downloaded from {' or '.join(reasons)}: "
        f"put it into {folders[0]} or pass --data_dir=FOLDER with the folder that holds it"
    )


def _fetch(source: Source, url: str, target: pathlib.Path) -> pathlib.Path:
    """Downloads to a temporary file, checks it, and only then gives it its name."""
    with urllib.request.urlopen(url, timeout=_DOWNLOAD_TIMEOUT_S) as response:
        print(f"Downloading {url}.", flush=True)  # some are minutes
        target.parent.mkdir(parents=True, exist_ok=True)
        with disk.whole_file(target, "wb", shared=True) as part:
            received = 0
            while chunk := response.read(_CHUNK):
                received += len(chunk)
                if received > source.max_bytes:
                    raise UsageError(f"longer than {source.max_bytes} bytes")
                part.write(chunk)
            part.flush()
            read(source, pathlib.Path(part.name), gzipped=url.endswith(".gz"))
    return target


def read(source: Source, path: pathlib.Path, gzipped: bool | None = None) -> bytes:
    """The unpacked contents of a source file, at most `max_bytes` of them, size and hash checked.

    Raises:
      UsageError: unreadable, too long, of another size or with another hash than the official file.
    """
    if gzipped is None:
        gzipped = path.suffix == ".gz"
    limit = source.max_bytes if source.size is None else source.size
    try:
        with open_regular(path) as raw:
            if gzipped:
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    contents = unpacked.read(limit + 1)
            else:
                contents = raw.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(
            f"{path} cannot be read ({error}): replace it by {_official(source)}"
        ) from None
    if len(contents) > limit or (source.size is not None and len(contents) != source.size):
        found = f"more than {limit}" if len(contents) > limit else len(contents)
        expected = f"at most {limit}" if source.size is None else source.size
        raise UsageError(
            f"{path} holds {found} bytes instead of {expected}: replace it by {_official(source)}"
        )
    if source.sha256 is not None and (digest := sha256(contents)) != source.sha256:
        raise UsageError(
            f"{path} has SHA-256 {digest} instead of {source.sha256}: "
            f"replace it by {_official(source)}"
        )
    return contents


def _official(source: Source) -> str:
    return f"the official file, {source.urls[0]}" if source.urls else "the official file"


def sha256(contents: bytes) -> str:
    return hashlib.sha256(contents).hexdigest()


def signature(path: pathlib.Path) -> list[int]:
    """Changes whenever the file is written to; the change time cannot be set back by a program."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def open_regular(path: pathlib.Path, *, follow_links: bool = True) -> BinaryIO:
    """Opens a file for reading; never waits for a FIFO and never touches a device.

    Raises:
      UsageError: it is no regular file, or a link that is not to be followed.
      OSError: it cannot be opened.
    """
    status = os.stat(path) if follow_links else os.lstat(path)
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "a device or socket")
        raise UsageError(f"{shown(path)} is {kind}, not a file: put the file itself there")
    flags = os.O_RDONLY | os.O_NONBLOCK | (0 if follow_links else os.O_NOFOLLOW)
    file = os.fdopen(os.open(path, flags), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):  # it was replaced in between
        file.close()
        raise UsageError(f"{shown(path)} is not a file: put the file itself there")
    return file


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
)


def shown(path: str | os.PathLike) -> str:
    """A path for a message: on one line, whatever bytes the name has."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in os.fsdecode(path)
    )


def memory_limit() -> int:
    """How many bytes a data set may take: half of what this machine, or this process, may have."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    with contextlib.suppress(OSError, ValueError):  # of a container, where there is one
        limits.append(int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    if soft != resource.RLIM_INFINITY:
        limits.append(soft)
    return min(limits) // 2


def check_size(what: str, num_bytes: int) -> None:
    """Raises a UsageError where a data set would take more than `memory_limit`."""
    if num_bytes > (limit := memory_limit()):
        raise UsageError(
            f"{what} would take {num_bytes / 1e9:,.1f} GB of memory, and at most half of what "
            f"there is, {limit / 1e9:,.1f} GB, may be taken: make it smaller"
        )
