"""Objects in a bucket by their address, gs://BUCKET/NAME: read, written whole or not at all.

By TensorStore, which orbax brings, so that nothing more has to be installed. An object appears
whole or not at all, and every write may say which generation of the object it replaces: the server
refuses it when there is another by now. What a folder is in a bucket, the start of names, is a
`Bucket` here. No other module knows how a bucket is reached.
"""

import contextlib
import hashlib
import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from typing import IO, Any, NamedTuple

from vamp_jax.errors import UsageError, first_line

SCHEME = "gs://"
ABSENT = b"\x02"  # the generation of an object that is not there
# Of one request: seven tries over about a minute. What is tried for longer, tries again.
RETRIES = {"max_retries": 6, "initial_delay": "1s", "max_delay": "16s"}
AT_ONCE = 64 << 20  # bytes that are under way together


class BucketError(UsageError):
    """What a bucket did not do; `passing` if it may do so later."""

    passing = False


class Changed(BucketError):
    """An object is no longer the one that was to be replaced."""


class Read(NamedTuple):
    """An object as it is: None, and the generation `ABSENT`, where there is none."""

    value: bytes | None
    generation: bytes


def is_address(path: Any) -> bool:
    """Whether a path is the address of a bucket; `gs:/x` and `./gs://x` are local.

    Raises:
      UsageError: for the address of a place of another kind, or one without a bucket.
    """
    if not isinstance(path, str | bytes | os.PathLike):
        return False
    path = os.fsdecode(path)
    scheme = re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path)
    if scheme is None:
        return False
    if scheme[0] != SCHEME:
        raise UsageError(
            f"{path} is an address of a kind that cannot be used: name a folder or "
            f"{SCHEME}BUCKET/NAME (a local folder of this name is ./{path})."
        )
    if not re.fullmatch(r"gs://[a-z0-9][a-z0-9._-]+(/.*)?", path, re.DOTALL):
        raise UsageError(f"{path} names no bucket: write {SCHEME}BUCKET/NAME.")
    return True


class Bucket:
    """The objects whose names begin with an address and a slash."""

    def __init__(self, address: str):
        import tensorstore  # late: not needed to import the package, nor on a disk

        bucket, _, path = address.removeprefix(SCHEME).partition("/")
        path = path.strip("/")
        self.address = f"{SCHEME}{bucket}/{path}".rstrip("/")
        self._bucket = bucket
        self._tried: dict[str, list[bytes]] = {}  # digests of what may have been written
        with self._explained("reached"):
            self._objects = tensorstore.KvStore.open(
                {"driver": "gcs", "bucket": bucket, "path": path and path + "/"},
                context=tensorstore.Context({"gcs_request_retries": RETRIES}),
            ).result()

    def names(self, sign: str = "config.json") -> list[str]:
        """The names of all objects, without the address, in order.

        Args:
          sign: of an object that may be there. A list that is refused looks empty to TensorStore:
            reading this one says so, or it is missing in the list.
        """
        known = self.read(sign).value is not None
        with self._explained("read"):
            names = sorted(os.fsdecode(name) for name in self._objects.list().result())
        if known and sign not in names:
            raise BucketError(
                f"{self.address} cannot be listed: give this account the role storage.objectUser "
                f"on {self._bucket!r}."
            )
        return [name for name in names if not name.endswith("/")]  # a folder that a page made

    def read(self, name: str, unless: bytes = b"") -> Read:
        """Reads an object; its value is b"" where it has the generation `unless`."""
        with self._explained("read"):
            key = os.fsencode(name)
            found = self._objects.read(key, if_not_equal=unless or None).result()
        there = found.state != "missing"
        return Read(found.value if there else None, found.stamp.generation if there else ABSENT)

    def write(self, name: str, value: bytes | None, instead_of: bytes) -> bytes:
        """Writes an object in place of this generation, or removes it; returns the new one.

        Raises:
          Changed: there is another by now.
        """
        return self.write_all({name: value}, {name: instead_of})[name]

    def write_all(
        self, values: Mapping[str, bytes | None], instead_of: Mapping[str, bytes]
    ) -> dict[str, bytes]:
        """`write` of several objects at the same time."""
        with self._explained("written"):
            futures = {}
            for name, value in values.items():
                self._tried.setdefault(name, []).append(_digest(value))
                key = os.fsencode(name)
                futures[name] = self._objects.write(key, value, if_equal=instead_of[name])
            new = {name: future.result().generation for name, future in futures.items()}
        for name, generation in new.items():
            new[name] = generation or self._again(name, values[name])
            del self._tried[name]
        return new

    def _again(self, name: str, value: bytes | None) -> bytes:
        """Writes an object that is another by now, if it is one of ours whose answer was lost."""
        found = self.read(name)
        if found.value == value:
            return found.generation
        if _digest(found.value) in self._tried[name][:-1]:
            with self._explained("written"):
                key = os.fsencode(name)
                write = self._objects.write(key, value, if_equal=found.generation)
                if generation := write.result().generation:
                    return generation
        raise Changed(f"{self.address}/{name} was changed by another process.")

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Makes a sentence of what the server, or the way to it, says."""
        try:
            yield
        except UsageError:
            raise
        except Exception as error:  # TensorStore raises ValueError for nearly all
            reason, passing = self._advice(str(error))
            raised = BucketError(f"{self.address} cannot be {what}: {reason}.")
            raised.passing = passing
            raise raised from None

    def _advice(self, text: str) -> tuple[str, bool]:
        said = first_line(ValueError(text.split(" [")[0]))
        if "NOT_FOUND" in text:
            return f"there is no bucket {self._bucket!r}; make it, or name another", False
        if "UNAUTHENTICATED" in text or "code='401'" in text or "credentials" in text:
            return (
                "no credentials were accepted (on a Cloud TPU VM its service account's; elsewhere "
                f"run gcloud auth application-default login; {said})"
            ), False
        if "PERMISSION_DENIED" in text or "code='403'" in text:
            return (
                f"this account may not; give it the role storage.objectUser on {self._bucket!r} "
                f"({said})"
            ), False
        return f"the network or the server fails ({said}); try again later", True


def _digest(value: bytes | None) -> bytes:
    return b"" if value is None else hashlib.sha256(value).digest()


@contextlib.contextmanager
def whole_object(address: str, mode: str = "w") -> Iterator[IO]:
    """Opens a file that becomes the object of this address once it is complete."""
    folder, _, name = address.rpartition("/")
    if not is_address(f"{folder}/") or not name:
        raise UsageError(f"{address} names no object: write {SCHEME}BUCKET/NAME.")
    with tempfile.TemporaryFile(mode if "+" in mode else f"{mode}+") as file:
        yield file
        file.seek(0)
        value = file.read()
    bucket = Bucket(folder)
    value = value if "b" in mode else value.encode()
    bucket.write(name, value, bucket.read(name).generation)


def place_of_copy(address: str, name: str, folder: str) -> str:
    """Returns the path of an object's copy in a folder.

    Raises:
      UsageError: when its name leads out of the folder.
    """
    path = os.path.join(folder, name)
    if not os.path.realpath(path).startswith(os.path.realpath(folder) + os.sep):
        raise UsageError(f"{address} has an object named {name!r}: remove it.")
    return path


def in_parts(sizes: Iterable[tuple[str, int]]) -> Iterator[list[str]]:
    """Names of some objects after others, each time as many as may be under way together."""
    part, total = [], 0
    for name, size in sizes:
        if part and total + size > AT_ONCE:
            yield part
            part, total = [], 0
        part.append(name)
        total += size
    if part:
        yield part
