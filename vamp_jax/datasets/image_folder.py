"""A folder of PNG and JPEG files -> arrays. Every file is decoded within bounds, or refused."""

import hashlib
import io
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vamp_jax.datasets import files
from vamp_jax.datasets.dataset import SPLITS, Found
from vamp_jax.errors import UsageError

_SUFFIXES = (".png", ".jpg", ".jpeg")
_SPLIT_OF = {name: name for name in SPLITS} | {"valid": "validation", "val": "validation"}
_MANY = 5_000  # files, from which on it is said that they are being read
_MAX_DEPTH = 8


class _File(NamedTuple):
    parts: tuple[str, ...]  # the path within its split
    path: pathlib.Path


def read(folder: pathlib.Path, image_size: int | tuple[int, int] | None = None) -> Found:
    """All pictures of a folder, sorted by their paths.

    Folders train/, validation/ (or valid/, val/) and test/ are the splits; without them all is
    still to be split. Where all pictures of a split lie in folders, these are their labels.

    Args:
      image_size: side, or (height, width): larger or smaller pictures are scaled by averages over
        areas, and cut in the middle to the shape. None: all must have one size.

    Raises:
      UsageError: a picture that cannot be read, with transparency or 16 bits, or unlike the first.
    """
    where = files.shown(folder)
    if isinstance(image_size, int) and image_size:
        image_size = (image_size, image_size)
    if image_size and not all(1 <= side <= 4096 for side in image_size):
        raise UsageError(f"image_size is {image_size}; its sides must be from 1 to 4096")
    listed, num_others = _splits(folder, where)
    total = sum(len(entries) for entries in listed.values())
    if total > _MANY:
        print(f"Reading the {total:,} pictures of {where}.", flush=True)
    splits, hashes, first = {}, {}, None
    for split, entries in listed.items():
        digest = hashlib.sha256()
        for index, entry in enumerate(entries):
            contents = _contents(entry.path)
            name = "/".join(entry.parts)
            digest.update(os.fsencode(name) + b"\0" + hashlib.sha256(contents).digest())
            image = _decode(contents, files.shown(entry.path), image_size or None)
            if first is None:
                first = (files.shown(entry.path), image.shape)
                files.check_size(where, total * image.nbytes)
            if image.shape != first[1]:
                raise UsageError(_unlike(entry.path, image.shape, *first))
            if not index:
                splits[split] = np.empty((len(entries), *image.shape), np.uint8)
            splits[split][index] = image
        hashes[f"{folder.absolute().name}/{split}"] = digest.hexdigest()
    note = f"{where}: {num_others:,} files that are no pictures are not used."
    return Found(
        where=where,
        splits=splits,
        masks={},
        labels=_labels(listed),
        hashes=hashes,
        grey_levels=True,
        notes=(note,) if num_others else (),
    )


def _splits(folder: pathlib.Path, where: str) -> tuple[dict[str, list[_File]], int]:
    """The pictures of each split, or of 'x', and how many other files there are."""
    listed, num_others = {}, 0
    for entry in _walk(folder, ()):
        if entry.path.suffix.lower() not in _SUFFIXES:
            num_others += 1
            continue
        split = _SPLIT_OF.get(entry.parts[0].lower()) if len(entry.parts) > 1 else None
        parts = entry.parts[1:] if split else entry.parts
        listed.setdefault(split or "x", []).append(_File(parts, entry.path))
    if not listed:
        raise UsageError(f"{where} holds no picture: put files ending in .png or .jpg there")
    if "x" in listed and len(listed) > 1:
        raise UsageError(
            f"{where} has pictures beside train/ and test/, such as "
            f"{files.shown(listed['x'][0].path)}: move them"
        )
    if "x" not in listed and not {"train", "test"} <= listed.keys():
        absent = next(split for split in ("train", "test") if split not in listed)
        raise UsageError(f"{where} has no pictures in {absent}/: put some there")
    return listed, num_others


def _walk(folder: pathlib.Path, parts: tuple[str, ...]) -> Iterator[_File]:
    """All files below, in the order of their paths; hidden ones are left out."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: os.fsencode(entry.name))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        path = pathlib.Path(entry.path)
        if entry.is_symlink():
            raise UsageError(f"{files.shown(path)} is a symbolic link: put the file itself there")
        if not entry.is_dir(follow_symlinks=False):
            yield _File((*parts, entry.name), path)
        elif len(parts) < _MAX_DEPTH:
            yield from _walk(path, (*parts, entry.name))
        else:
            raise UsageError(f"{files.shown(path)} lies too deep: move the pictures up")


def _labels(listed: dict[str, list[_File]]) -> dict[str, np.ndarray]:
    if not all(len(entry.parts) > 1 for entries in listed.values() for entry in entries):
        return {}
    return {
        split: np.array([files.shown(entry.parts[0]) for entry in entries])
        for split, entries in listed.items()
    }


def _contents(path: pathlib.Path) -> bytes:
    with files.open_regular(path, follow_links=False) as file:
        files.check_size(files.shown(path), os.fstat(file.fileno()).st_size)
        return file.read()


def _unlike(path: pathlib.Path, shape: tuple, first: str, first_shape: tuple) -> str:
    def told(shape):
        return f"{shape[1]}x{shape[0]} {'grey' if shape[2] == 1 else 'colour'}"

    cure = "pass --config.image_size=SIDE to have them scaled, or make them alike"
    if shape[2] != first_shape[2]:
        cure = "make them all grey or all colour"
    return f"{files.shown(path)} is {told(shape)} and {first} is {told(first_shape)}: {cure}"


def _decode(contents: bytes, where: str, size: tuple[int, int] | None) -> np.ndarray:
    """uint8 [H, W, 1] or [H, W, 3], upright as the camera says."""
    from PIL import Image, ImageOps

    if contents[:8] == b"\x89PNG\r\n\x1a\n" and contents[24:25] == b"\x10":
        raise UsageError(f"{where} has 16 bits a channel: convert it to 8")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(contents), formats=("PNG", "JPEG")) as image:
                image.verify()  # a PNG's check sums, which decoding does not look at
            with Image.open(io.BytesIO(contents), formats=("PNG", "JPEG")) as image:
                files.check_size(where, 8 * image.width * image.height)
                image = _opaque(ImageOps.exif_transpose(image), where)
                if size:
                    image = ImageOps.fit(image, size[::-1], Image.Resampling.BOX)
                array = np.asarray(image)
    except UsageError:
        raise
    except Exception as error:  # Pillow raises whatever it stumbles over
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        reason = "it is no PNG or JPEG file" if "cannot identify" in reason else reason
        raise UsageError(f"{where} cannot be read ({reason}): replace it or take it away") from None
    return array[..., None] if array.ndim == 2 else array


def _opaque(image, where: str):
    """The picture in mode L or RGB; every conversion made here is exact."""
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        image = image.convert("LA" if image.mode in ("1", "L", "LA") else "RGBA")
        if image.getextrema()[-1][0] < 255:
            raise UsageError(f"{where} is partly transparent: lay it on a background")
        return image.convert("L" if image.mode == "LA" else "RGB")
    if image.mode in ("1", "L"):
        return image.convert("L")
    if image.mode in ("P", "RGB"):
        return image.convert("RGB")
    raise UsageError(f"{where} is in colour mode {image.mode}: convert it to grey or RGB in 8 bits")
