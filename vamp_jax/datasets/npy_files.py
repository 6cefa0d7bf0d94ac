"""NumPy's .npy and .npz files from anywhere: plain numbers and text, never a pickle.

A file cannot make us take more memory than its contents need: sizes are checked against what is
really there before anything is allocated, and what a compressed array may unpack to is bounded.
"""

import contextlib
import math
import os
import pathlib
import re
import zipfile
from collections.abc import Callable
from typing import BinaryIO

import numpy as np

from vamp_jax.datasets import files
from vamp_jax.errors import UsageError

_MAGIC = b"\x93NUMPY"
_MAX_HEADER = 10_000
_CHUNK = 1 << 20
_DEFLATE = 1032  # DEFLATE makes nothing longer than this many times its size
_REASONS = {
    "O": "is an array of Python objects, which are never loaded",
    "V": "is a structured array",
    "c": "is an array of complex numbers",
    "M": "is an array of dates",
    "m": "is an array of times",
}


def read_npy(path: pathlib.Path) -> np.ndarray:
    """The array of a .npy file.

    Raises:
      UsageError: it is damaged, or holds something other than numbers or text.
    """
    where = files.shown(path)
    with files.open_regular(path) as file, _one_sentence(where, "numpy.save"):
        size = file.seek(0, 2)
        file.seek(0)
        return _array(file, size, where, files.memory_limit())


def map_npy(path: pathlib.Path) -> np.memmap:
    """The array of a .npy file, left in its file: read where it is looked at.

    Raises:
      UsageError: it is damaged, or holds what would have to be converted.
    """
    where = files.shown(path)
    with files.open_regular(path) as file, _one_sentence(where, "numpy.save"):
        size = file.seek(0, 2)
        file.seek(0)
        dtype, shape, fortran, consumed = _header(file, where)
        _check_size(where, dtype, shape, consumed, size)
        if not math.prod(shape):
            raise UsageError(f"{where} has shape {shape}, and so no examples")
        if fortran or dtype.kind not in "iuf":
            raise UsageError(
                f"{where} cannot stay in its file: write numbers (of logical values, "
                "array.astype(numpy.uint8)) with numpy.save(path, numpy.ascontiguousarray(array))"
            )
        if not dtype.isnative:
            raise UsageError(
                f"{where} cannot stay in its file, whose numbers are in another byte order: write "
                'it with numpy.save(path, array.astype(array.dtype.newbyteorder("=")))'
            )
        array = np.memmap(file, dtype, "r", consumed, shape)
        array.filename = os.path.abspath(path)  # of views, too; see mapped.py
        return array


def read_npz(
    path: pathlib.Path, wanted: Callable[[str], bool], where: str | None = None
) -> tuple[dict[str, np.ndarray], list[str]]:
    """The arrays of a .npz file whose names are `wanted`, and the names of the others.

    Args:
      where: what messages call the file; None for its path.

    Raises:
      UsageError: it is damaged, or holds something other than numbers or text.
    """
    with files.open_regular(path) as file:
        return unpack_npz(file, wanted, where or files.shown(path))


def unpack_npz(
    file: BinaryIO, wanted: Callable[[str], bool], where: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """As `read_npz`, of an open file."""
    with _one_sentence(where, "numpy.savez"), zipfile.ZipFile(file) as archive:
        return _arrays(archive, file.seek(0, 2), where, wanted)


@contextlib.contextmanager
def _one_sentence(where: str, writer: str):
    try:
        yield
    except UsageError:
        raise
    except MemoryError:
        raise UsageError(f"{where} needs more memory than there is: make it smaller") from None
    except Exception as error:  # whatever zipfile, zlib and NumPy stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UsageError(
            f"{where} cannot be read ({reason}): write it anew with {writer}"
        ) from None


def _arrays(archive: zipfile.ZipFile, size: int, where: str, wanted: Callable[[str], bool]):
    arrays, others, left = {}, [], files.memory_limit()
    for member in archive.infolist():
        name = member.filename.removesuffix(".npy")
        if not member.filename.endswith(".npy") or not wanted(name):
            others.append(member.filename)
            continue
        what = f"{where}: the array {files.shown(name)}"
        if name in arrays:
            raise UsageError(f"{what} is there twice: write the file anew with numpy.savez")
        ratio = {zipfile.ZIP_STORED: 1, zipfile.ZIP_DEFLATED: _DEFLATE}.get(member.compress_type)
        if ratio is None or member.flag_bits & 1:
            raise UsageError(
                f"{what} is encrypted, or compressed in a way that NumPy does not use: "
                "write the file anew with numpy.savez"
            )
        if member.compress_size > size or member.file_size > ratio * member.compress_size + _CHUNK:
            raise UsageError(f"{what} promises more than the file holds: write it anew")
        with archive.open(member) as stream:
            arrays[name] = _array(stream, member.file_size, what, left)
        left -= arrays[name].nbytes
    return arrays, others


def _array(stream: BinaryIO, size: int, what: str, limit: int) -> np.ndarray:
    """One array of `size` bytes with its header, in C order and this machine's byte order."""
    dtype, shape, fortran, consumed = _header(stream, what)
    num_bytes = _check_size(what, dtype, shape, consumed, size)
    if num_bytes > limit:
        files.check_size(what, num_bytes)
        raise UsageError(f"{what} does not fit in memory beside the arrays before it")
    raw = np.empty(num_bytes, np.uint8)
    _fill(memoryview(raw), stream, what)
    _check_bytes(raw, dtype, what)
    array = raw.view(dtype) if num_bytes else np.empty(0, dtype)
    array = array.reshape(shape, order="F" if fortran else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="), copy=False)).reshape(shape)


def _check_size(
    what: str, dtype: np.dtype, shape: tuple[int, ...], consumed: int, size: int
) -> int:
    """Returns the bytes of an array; a UsageError unless the file has just these."""
    num_bytes = math.prod(shape) * dtype.itemsize
    if consumed + num_bytes != size:
        raise UsageError(
            f"{what} should have {consumed + num_bytes:,} bytes for its shape {shape} and has "
            f"{size:,}: the file is damaged"
        )
    return num_bytes


def _header(stream: BinaryIO, what: str) -> tuple[np.dtype, tuple[int, ...], bool, int]:
    """Reads the header: type, shape, whether in Fortran's order, and its length in bytes.

    Without Python's evaluation of it, as NumPy does: three patterns are all that it may contain.
    """
    start = stream.read(8)
    if len(start) < 8 or start[:6] != _MAGIC:
        raise UsageError(f"{what} is not in NumPy's format: write it with numpy.save or savez")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _MAX_HEADER or len(text := stream.read(length)) != length:
        raise UsageError(f"{what} has a damaged header: write the file anew")
    text = text.decode("latin1")
    kind = re.search(r"'descr'\s*:\s*'([<>|=]?)([a-zA-Z])(\d{0,9})", text)
    order = re.search(r"'fortran_order'\s*:\s*(True|False)", text)
    sizes = re.search(r"'shape'\s*:\s*\(([\d,L ]{0,400})\)", text)
    if re.search(r"'descr'\s*:\s*\[", text):
        raise UsageError(f"{what} {_REASONS['V']}: save plain numbers")
    if not (kind and order and sizes):
        raise UsageError(f"{what} has a damaged header: write the file anew")
    if kind[2] in _REASONS:
        raise UsageError(f"{what} {_REASONS[kind[2]]}: save plain numbers")
    try:
        dtype = np.dtype("".join(kind.groups()))
    except TypeError:
        dtype = np.dtype("V1")
    if dtype.kind not in "biufUS" or dtype.itemsize == 0:
        raise UsageError(f"{what} holds neither numbers nor text: save plain numbers")
    shape = tuple(int(n) for n in re.findall(r"\d+", sizes[1]))
    if len(shape) > 16:
        raise UsageError(f"{what} has {len(shape)} axes: save vectors or images")
    return dtype, shape, order[1] == "True", 8 + width + length


def _fill(target: memoryview, stream: BinaryIO, what: str) -> None:
    position = 0
    while position < len(target):
        chunk = stream.read(min(_CHUNK, len(target) - position))
        if not chunk:
            raise UsageError(f"{what} ends too early: the file is damaged")
        target[position : position + len(chunk)] = chunk
        position += len(chunk)
    if stream.read(1):  # and so that zipfile checks the sum at the end
        raise UsageError(f"{what} is longer than its header says: the file is damaged")


def _check_bytes(raw: np.ndarray, dtype: np.dtype, what: str) -> None:
    """Refuses letters that Unicode does not have; makes every truth 0 or 1, as Pillow does not."""
    if dtype.kind == "b":
        raw[:] = raw != 0
    if dtype.kind == "U":
        points = raw.view(np.dtype(np.uint32).newbyteorder(dtype.byteorder))
        if ((points > 0x10FFFF) | ((points >= 0xD800) & (points < 0xE000))).any():
            raise UsageError(f"{what} has letters that Unicode does not have: the file is damaged")
