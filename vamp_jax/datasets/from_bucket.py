"""Data in a bucket: what a set needs is copied to the user's cache folder, once, and read there."""

import os
import pathlib
import re
from typing import NamedTuple

from vamp_jax import disk
from vamp_jax.bucket import Bucket, is_address, place_of_copy
from vamp_jax.datasets import own, protocols, sequences
from vamp_jax.errors import UsageError

GENERATIONS = ".generations.json"  # of the objects that have been copied


class Local(NamedTuple):
    """A data folder and the name of a set, as `by_name.load` takes them."""

    data_dir: str | None
    name: str


def local(data_dir: str | None, name: str) -> Local:
    """Copies from addresses what the set needs; all else is returned as it is.

    Raises:
      UsageError: a bucket that cannot be read, or nothing there of one's own data.
    """
    kind = own.TEXT if name.startswith(own.TEXT) else ""
    if is_address(path := name.removeprefix(kind)):
        where, _, last = path.rstrip("/").rpartition("/")
        pattern = rf"{re.escape(last)}(/.*)?"
        folder = _copied(where, pattern)
        if not os.path.exists(os.path.join(folder, last)):
            raise UsageError(f"{path} is not there")
        return Local(data_dir, kind + os.path.join(folder, last))
    if data_dir is None or not is_address(data_dir):
        return Local(data_dir, name)
    return Local(_copied(data_dir.rstrip("/"), _needed(name)), name)


def _needed(name: str) -> str:
    """A pattern of the objects that a set may be made from, or has been."""
    if name.startswith(own.TFDS):
        return rf"{re.escape(name.removeprefix(own.TFDS).split('/')[0].split(':')[0])}/.*"
    spec = protocols.SPECS.get(name)
    sources = spec.sources if spec else sequences.SOURCES.get(name, ())
    files = "|".join(re.escape(source.name) for source in sources)
    prepared = rf"vamp_jax/{re.escape(name)}/.*"
    return rf"(downloads/manual/)?([^/]+/)?({files})(\.gz)?|{prepared}" if files else prepared


def _copied(address: str, pattern: str) -> str:
    """A folder with copies of the objects below an address whose names match."""
    root = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = str(root.absolute() / "vamp_jax" / disk.digest(address, letters=12))
    disk.make_folder(folder)
    bucket = Bucket(address)
    known = os.path.join(folder, GENERATIONS)
    with disk.locked(os.path.join(folder, ".copying"), wait=True):
        held = disk.read_json(known, "remove it") if os.path.exists(known) else {}
        wanted = [name for name in bucket.names() if re.fullmatch(pattern, name, re.DOTALL)]
        for name in wanted:
            path = place_of_copy(address, name, folder)
            there = name in held and os.path.exists(path)
            found = bucket.read(name, unless=bytes.fromhex(held[name]) if there else b"")
            if found.value is None or (there and found.generation.hex() == held[name]):
                continue
            print(f"Copying {address}/{name} to {path}.", flush=True)
            disk.make_folder(os.path.dirname(path))
            with disk.whole_file(path, "wb") as file:
                file.write(found.value)
            held[name] = found.generation.hex()
            disk.write_json(known, held)
    return folder
