"""Bytes of the official files -> arrays. A file is either read right or refused with a UsageError.

Every size is checked against what the data set must have before anything of that size is allocated.
"""

import io
import struct
import zlib

import numpy as np

from vamp_jax.datasets import npy_files
from vamp_jax.errors import UsageError


def _refuse(name: str, reason: str):
    raise UsageError(f"{name} {reason}: replace it by the official file")


def amat(data: bytes, name: str, num_images: int, shape: tuple[int, int]) -> np.ndarray:
    """Larochelle's text files: a line an image, pixels 0 or 1 with a space between.

    Returns:
      uint8 [num_images, H, W].
    """
    num_pixels = shape[0] * shape[1]
    if len(data) != 2 * num_images * num_pixels:
        _refuse(name, f"holds {len(data)} bytes instead of {2 * num_images * num_pixels}")
    cells = np.frombuffer(data, np.uint8).reshape(num_images, num_pixels, 2)
    pixels = cells[:, :, 0] - np.uint8(ord("0"))  # wraps around for what is no digit
    separators_right = (cells[:, :-1, 1] == ord(" ")).all() and (cells[:, -1, 1] == ord("\n")).all()
    if pixels.max() > 1 or not separators_right:
        _refuse(name, f"is not lines of {num_pixels} zeros and ones with spaces between")
    return pixels.reshape(num_images, *shape)


def idx_images(data: bytes, name: str, num_images: int, shape: tuple[int, int]) -> np.ndarray:
    """MNIST's image format: four big-endian integers (2051, N, H, W), then bytes.

    Returns:
      uint8 [num_images, H, W].
    """
    if len(data) < 16:
        _refuse(name, "is too short for an idx file")
    header = struct.unpack(">4I", data[:16])
    if header != (2051, num_images, *shape):
        _refuse(name, f"begins with {header} instead of {(2051, num_images, *shape)}")
    if len(data) != 16 + num_images * shape[0] * shape[1]:
        _refuse(name, f"holds {len(data)} bytes instead of {16 + num_images * shape[0] * shape[1]}")
    return np.frombuffer(data, np.uint8, offset=16).reshape(num_images, *shape)


def mat(data: bytes, name: str, shapes: dict[str, tuple[int, int]]) -> dict[str, np.ndarray]:
    """Real matrices of a MATLAB 5 file.

    Args:
      data: the file.
      name: what the error calls it.
      shapes: the variables wanted and the shape each must have.

    Returns:
      Variable -> array of that shape, of the file's number type.
    """
    import scipy.io  # takes a while, and is needed only to prepare a data set

    wanted = sum(rows * columns for rows, columns in shapes.values())
    plain = _inflate_mat(data, name, limit=8 * wanted + (16 << 20))
    try:
        variables = scipy.io.whosmat(io.BytesIO(plain))
    except Exception as error:  # scipy raises whatever it stumbles over
        _refuse(name, f"cannot be read as a MATLAB file ({error})")
    found = {key: shape for key, shape, _ in variables}
    kinds = {key: kind for key, _, kind in variables}
    for key, shape in shapes.items():
        if key not in found:
            _refuse(name, f"has no variable {key}")
        if found[key] != shape:
            _refuse(name, f"has {key} of shape {found[key]} instead of {shape}")
        if not kinds[key].startswith(("double", "single", "int", "uint", "logical")):
            _refuse(name, f"has {key} of type {kinds[key]} instead of numbers")
    try:
        matrices = scipy.io.loadmat(io.BytesIO(plain), variable_names=list(shapes))
    except Exception as error:
        _refuse(name, f"cannot be read as a MATLAB file ({error})")
    for key, shape in shapes.items():
        matrix = matrices.get(key)
        if (
            not isinstance(matrix, np.ndarray)
            or matrix.shape != shape
            or matrix.dtype.kind not in "biuf"
        ):
            _refuse(name, f"has a damaged {key}")
    return {key: matrices[key] for key in shapes}


def mat_rolls(data: bytes, name: str, keys: tuple[str, ...]) -> list[list[np.ndarray]]:
    """Cell arrays of piano rolls in a MATLAB 5 file whose hash is known.

    Returns:
      For each key a list of uint8 [T, 88] of zeros and ones, T at least 1.
    """
    import scipy.io

    plain = _inflate_mat(data, name, limit=64 << 20)
    try:
        variables = scipy.io.loadmat(io.BytesIO(plain), variable_names=list(keys))
        rolls = [[np.asarray(cell) for cell in variables[key].ravel()] for key in keys]
    except Exception as error:  # scipy raises whatever it stumbles over
        _refuse(name, f"cannot be read as a MATLAB file ({error})")
    for key, pieces in zip(keys, rolls, strict=True):
        for number, piece in enumerate(pieces):
            right = piece.ndim == 2 and len(piece) and piece.shape[1] == 88
            if not right or piece.dtype.kind not in "biuf" or not np.isin(piece, (0, 1)).all():
                _refuse(name, f"has no piano roll of 88 keys in {key}[{number}]")
        if not pieces:
            _refuse(name, f"has nothing in {key}")
    return [[piece.astype(np.uint8) for piece in pieces] for pieces in rolls]


def _inflate_mat(data: bytes, name: str, limit: int) -> bytes:
    """The same file without compression, at most `limit` bytes, so that scipy cannot be made to
    allocate more than that."""
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None:
        _refuse(name, "is not a MATLAB 5 file")
    parts, total, position = [data[:128]], 128, 128
    while position < len(data):
        tag = data[position : position + 8]
        if len(tag) < 8:
            _refuse(name, "is truncated")
        kind, count = struct.unpack(order + "II", tag)
        body = data[position + 8 : position + 8 + count]
        if len(body) < count:
            _refuse(name, "is truncated")
        position += 8 + count
        if kind == 15:  # miCOMPRESSED
            inflater = zlib.decompressobj()
            try:
                part = inflater.decompress(body, limit)
            except zlib.error as error:
                _refuse(name, f"is damaged ({error})")
            if not inflater.eof:
                _refuse(name, "is truncated" if len(part) < limit else "unpacks to too much")
        elif kind == 14:  # miMATRIX
            part = tag + body
        else:
            _refuse(name, f"has an element of unknown type {kind}")
        parts.append(part)
        total += len(part)
        if total > limit:
            _refuse(name, "unpacks to too much")
    return b"".join(parts)


def npz(data: bytes, name: str, shapes: dict[str, tuple[int | None, ...]]) -> dict[str, np.ndarray]:
    """Arrays of zeros and ones of a .npz file.

    Args:
      data: the file.
      name: what the error calls it.
      shapes: the arrays wanted and the shape each must have; None where any size will do.

    Returns:
      Variable -> array of that shape, of the file's number type.
    """
    try:
        held, _ = npy_files.unpack_npz(io.BytesIO(data), shapes.__contains__, name)
    except UsageError as error:
        raise UsageError(f"{error}: replace it by the official file") from None
    for key, shape in shapes.items():
        if key not in held:
            _refuse(name, f"has no array {key}")
        sizes = held[key].shape
        if len(sizes) != len(shape) or any(
            wanted not in (None, size) for wanted, size in zip(shape, sizes, strict=True)
        ):
            _refuse(name, f"has {key} of shape {sizes} instead of {shape}")
        kind = held[key].dtype.kind
        if kind not in "biuf" or (kind != "b" and not np.isin(held[key], (0, 1)).all()):
            _refuse(name, f"has values other than 0 and 1 in {key}")
    return held


def pickled_images(images, name: str, num_images: int, shape: tuple[int, int]) -> np.ndarray:
    """An array, or a list of arrays or of lists of numbers, as `pickles.loads` returns it.

    Returns:
      float64 or the pickle's number type, [num_images, H, W], finite.
    """
    num_pixels = shape[0] * shape[1]
    if not isinstance(images, np.ndarray | list | tuple) or getattr(images, "ndim", 1) == 0:
        _refuse(name, "does not hold a list of images")
    if len(images) != num_images:
        _refuse(name, f"holds {len(images)} images instead of {num_images}")
    if not isinstance(images, np.ndarray):
        images = np.stack([_pickled_row(image, name, num_pixels) for image in images])
    if images.size != num_images * num_pixels:
        _refuse(name, f"holds images of shape {images.shape[1:]} instead of {shape}")
    if images.dtype.kind not in "biuf" or not np.isfinite(images).all():
        _refuse(name, "holds pixels that are not finite numbers")
    return images.reshape(num_images, *shape)


def _pickled_row(image, name: str, num_pixels: int) -> np.ndarray:
    """One image, flat. Lists are checked item by item: nested ones could stand for far more."""
    if isinstance(image, np.ndarray) and image.size == num_pixels:
        return image.reshape(-1).astype(np.float64)
    if isinstance(image, list | tuple) and len(image) == num_pixels:
        if all(type(pixel) in (int, float, bool) for pixel in image):
            try:
                return np.array(image, np.float64)
            except OverflowError:
                pass
    _refuse(name, f"holds an image that is not {num_pixels} numbers")


def check_images(images: np.ndarray, name: str, top: float) -> None:
    """Refuses what cannot be photographs or drawings; for files whose hash is not known.

    Args:
      images: [N, H, W], pixels from 0 to `top`.
      name: what the error calls them.

    Raises:
      UsageError: black, white, flat or repeated images, or pixels that use little of their range.
    """
    flat = images.reshape(len(images), -1).astype(np.float32) / top
    low, high, deviation = flat.min(axis=1), flat.max(axis=1), flat.std(axis=1)
    if (constant := int((low == high).sum())) > len(flat) / 100:
        _refuse(name, f"holds {constant} images of one colour")
    if high.max() - low.min() < 0.5:
        _refuse(
            name, f"uses little of the range of its pixels ({low.min():.2f} to {high.max():.2f})"
        )
    if not 0.02 < (mean := flat.mean()) < 0.98:
        _refuse(name, f"is nearly all black or white (its mean is {mean:.3f})")
    if (middle := np.median(deviation)) < 0.02:
        _refuse(name, f"holds images without contrast (their deviation is {middle:.3f})")
    if (distinct := len({image.tobytes() for image in flat})) < len(flat) / 2:
        _refuse(name, f"holds only {distinct} different images among {len(flat)}")
