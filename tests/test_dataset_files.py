"""Readers of untrusted files: right data or a UsageError; no code, no hang, no memory blow-up."""

import gzip
import os
import pickle
import struct
import tracemalloc
import zlib

import hypothesis
import numpy as np
import pytest
import scipy.io
from hypothesis import strategies as st

from tests.hostile import FUZZ, bounded_memory, damaged  # noqa: F401 - a fixture of every test
from vamp_jax.datasets import files, pickles, readers
from vamp_jax.errors import UsageError

SHAPE = (4, 3)
IMAGES = np.random.default_rng(0).integers(0, 2, (5, *SHAPE)).astype(np.uint8)


def amat_file():
    rows = (" ".join(map(str, image.reshape(-1))) + "\n" for image in IMAGES)
    return "".join(rows).encode()


def idx_file():
    return struct.pack(">4I", 2051, *IMAGES.shape) + IMAGES.tobytes()


def mat_file(tmp_path, **options):
    path = tmp_path / "file.mat"
    scipy.io.savemat(path, {"data": IMAGES.reshape(5, 12), "more": [[0.5]]}, **options)
    return path.read_bytes()


def read_amat(data):
    return readers.amat(data, "f.amat", 5, SHAPE)


def read_idx(data):
    return readers.idx_images(data, "f-idx", 5, SHAPE)


def read_mat(data):
    return readers.mat(data, "f.mat", {"data": (5, 12)})["data"].reshape(5, *SHAPE)


def read_pickle(data):
    loaded = pickles.loads(data, "f.pkl")
    if not isinstance(loaded, list) or not loaded:
        raise UsageError("not a list")
    return readers.pickled_images(loaded[0], "f.pkl", 5, SHAPE)


def read_gzip(data, folder):
    (folder / "f.gz").write_bytes(data)
    source = files.Source("f", (), max_bytes=10_000)
    return read_idx(files.read(source, folder / "f.gz"))


def seeds(folder):
    """Reader -> well-formed files."""
    arrays = [IMAGES, IMAGES.astype(np.float64), list(IMAGES), np.asfortranarray(IMAGES)]
    arrays += [IMAGES.reshape(5, 12).tolist(), IMAGES.astype(">f4"), IMAGES.astype(bool)]
    return {
        "amat": (read_amat, [amat_file()]),
        "idx": (read_idx, [idx_file()]),
        "mat": (read_mat, [mat_file(folder), mat_file(folder, do_compression=True)]),
        "pickle": (
            read_pickle,
            [pickle.dumps([array], protocol=p) for array in arrays for p in range(6)],
        ),
        "gzip": (lambda data: read_gzip(data, folder), [gzip.compress(idx_file())]),
    }


KINDS = ("amat", "idx", "mat", "pickle", "gzip")


@pytest.mark.parametrize("kind", KINDS)
def test_well_formed(kind, tmp_path):
    read, good = seeds(tmp_path)[kind]
    for data in good:
        np.testing.assert_array_equal(read(data), IMAGES)


@pytest.mark.parametrize("kind", KINDS)
def test_every_truncation_is_refused(kind, tmp_path):
    read, good = seeds(tmp_path)[kind]
    for data in good[:: max(1, len(good) // 8)]:
        for size in range(0, len(data), max(1, len(data) // 60)):
            with pytest.raises(UsageError):
                read(data[:size])


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@hypothesis.given(data=st.data())
def test_damaged_bytes(kind, tmp_path_factory, data):
    """Flipped, inserted and removed bytes: right shape, or a UsageError."""
    read, good = seeds(tmp_path_factory.mktemp("fuzz"))[kind]
    try:
        images = read(data.draw(damaged(good)))
    except UsageError:
        return
    assert images.shape == IMAGES.shape


@pytest.mark.parametrize("kind", KINDS)
@FUZZ
@hypothesis.given(content=st.binary(max_size=300))
def test_any_bytes(kind, tmp_path_factory, content):
    read, _ = seeds(tmp_path_factory.mktemp("fuzz"))[kind]
    with pytest.raises(UsageError):
        read(content)


# Headers that promise too much


def test_idx_promises_2_to_the_40_images():
    header = struct.pack(">4I", 2051, 1 << 20, 1 << 10, 1 << 10)
    with pytest.raises(UsageError, match="instead of"):
        read_idx(header + bytes(100))


def mat_with(dimensions, body=b"", kind=6, compressed=False):
    """A MATLAB 5 file with one variable named data."""

    def element(number, payload):
        return struct.pack("<II", number, len(payload)) + payload + bytes(-len(payload) % 8)

    matrix = element(6, struct.pack("<II", kind, 0))
    matrix += element(5, struct.pack(f"<{len(dimensions)}i", *dimensions)) + element(1, b"data")
    matrix = element(14, matrix + body)
    if compressed:
        matrix = zlib.compress(matrix)
        matrix = struct.pack("<II", 15, len(matrix)) + matrix
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + matrix


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("kind", range(1, 19))
@pytest.mark.parametrize("dimensions", [(1 << 20, 1 << 20), (5, 12), (-1, 4), (1 << 30,)])
@pytest.mark.parametrize("promise", [0, 60, (1 << 32) - 8])
def test_mat_promises_too_much(dimensions, kind, compressed, promise):
    body = struct.pack("<II", 2, promise)
    with pytest.raises(UsageError):
        read_mat(mat_with(dimensions, body, kind, compressed))


def test_mat_bomb():
    bomb = zlib.compress(bytes(200_000_000), 9)
    data = mat_with((5, 12))[:128] + struct.pack("<II", 15, len(bomb)) + bomb
    tracemalloc.start()
    with pytest.raises(UsageError, match="unpacks to too much"):
        read_mat(data)
    assert tracemalloc.get_traced_memory()[1] < 60_000_000
    tracemalloc.stop()


def test_gzip_bomb_takes_no_memory(tmp_path):
    """A gigabyte of zeros in a megabyte, and one inside another: read up to the limit, no more."""
    bomb = gzip.compress(bytes(50_000_000), 9) * 20  # a file of several members is unpacked whole
    for name, content in (("f.gz", bomb), ("g.gz", gzip.compress(bomb))):
        (tmp_path / name).write_bytes(content)
        source = files.Source(name[:-3], (), max_bytes=10_000)
        tracemalloc.start()
        with pytest.raises(UsageError, match="more than 10000 bytes"):
            files.read(source, tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()


@pytest.mark.parametrize("size", [1 << 20, 1 << 40])
def test_plain_file_that_does_not_end(tmp_path, size):
    """A sparse file of a terabyte, under the name of one of ten kilobytes."""
    with open(tmp_path / "f", "wb") as file:
        file.truncate(size)
    with pytest.raises(UsageError, match="more than 10000 bytes"):
        files.read(files.Source("f", (), max_bytes=10_000), tmp_path / "f")


@pytest.mark.parametrize("count", [1 << 31, (1 << 32) - 1])
def test_amat_and_idx_of_an_impossible_count(count):
    with pytest.raises(UsageError, match="instead of"):
        readers.amat(amat_file(), "f.amat", count, SHAPE)
    with pytest.raises(UsageError, match="instead of"):
        readers.idx_images(idx_file(), "f-idx", count, SHAPE)


def test_mat_other_formats():
    for data in (b"\x89HDF\r\n\x1a\n".ljust(600), b"MATLAB 7.3 MAT-file".ljust(128) + b"\x89HDF"):
        with pytest.raises(UsageError, match="not a MATLAB 5 file"):
            read_mat(data)


# Pickles


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_hostile_pickle_does_not_run(tmp_path, protocol):
    target = tmp_path / "ran"
    for function, argument in (
        (os.system, f"touch {target}"),
        (eval, f"open({str(target)!r}, 'w')"),
    ):
        data = pickle.dumps([Hostile(function, argument)], protocol=protocol)
        with pytest.raises(UsageError, match="a reference to"):
            read_pickle(data)
    assert not target.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"]r\xff\xff\xff\x7f.",  # a memo index of 2^31
        b"]p99999999999999999999\n.",
        b"\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # 2^40 bytes
        b"\x96" + struct.pack("<Q", 1 << 40) + b"x.",
        b"X" + struct.pack("<I", (1 << 32) - 1) + b"x.",
        b"\x8b" + struct.pack("<I", (1 << 31) - 1) + b"1.",
        b"L" + b"9" * 100_000 + b"L\n.",
        b"cnumpy\nndarray\n(M\xff\xffM\xff\xfft\x85R.",  # ndarray(shape)
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x01tS'b'\ntRb.",
        b"cnumpy\ndtype\n(S'O8'\ntR.",
        b"cnumpy\ndtype\n(S'V2147483647'\ntR.",
        b"c_codecs\nencode\n(X\x01\x00\x00\x00xX\x05\x00\x00\x00idna5tR.",
        b"cnumpy\nload\n(S'x'\ntR.",
        b"cnumpy.core.multiarray\nfromfile\n.",
        b"cnumpy.core\nmultiarray._reconstruct\n.",
        b"(" + b"t(" * 10 + b"t.",
        b"\x82\x01.",  # the extension registry
        b"Pname\n.",  # a persistent id
        b"0.",
        b".",
        b"e.",
        b"((K\x01K\x02tK\x03d.",  # a tuple as a key
    ],
)
def test_cunning_pickles(data):
    with pytest.raises(UsageError):
        read_pickle(data)


def test_deep_and_shared_containers():
    """A million nested tuples; a list that stands for 10^30 references: no recursion, no copies."""
    deep = b")" + b"\x85" * 1_000_000
    with pytest.raises(UsageError):
        read_pickle(b"}" + deep + b"K\x01s.")
    with pytest.raises(UsageError):
        read_pickle(b"](" + deep + b"e.")
    shared = b"]q\x00"
    for level in range(1, 31):
        shared += b"](" + b"h" + bytes([level - 1]) + (b"h" + bytes([level - 1])) * 4
        shared += b"eq" + bytes([level])
    with pytest.raises(UsageError):
        read_pickle(b"](" + shared + b"e.")


def test_the_same_text_again_and_again():
    big = b"X" + struct.pack("<I", 1_000_000) + b"x" * 1_000_000 + b"q\x00"
    encode = b"c_codecs\nencode\n(h\x00X\x06\x00\x00\x00latin1tR"
    with pytest.raises(UsageError, match="again"):
        read_pickle(b"](" + big + encode * 10_000 + b"e.")


def test_array_that_promises_2_to_the_40_images():
    array = pickle.dumps([np.zeros((5, 4, 3), np.uint8)], protocol=2)
    at = array.index(b"K\x05K\x04K\x03")
    huge = array[:at] + b"\x8a\x06\x00\x00\x00\x00\x00\x01K\x04K\x03" + array[at + 6 :]
    with pytest.raises(UsageError):
        read_pickle(huge)


@pytest.mark.parametrize(
    "images",
    [
        np.array(7.0),
        np.zeros((5, 4, 4)),
        np.full((5, 4, 3), np.nan),
        [np.zeros(12)] * 4 + [np.zeros(11)],
        [["x"] * 12] * 5,
        [[10**400] * 12] * 5,
        [[0.5] * 11 + [np.inf]] * 5,
        {"a": 1},
        "12345",
        None,
    ],
)
def test_pickles_of_something_else(images):
    with pytest.raises(UsageError):
        readers.pickled_images(images, "f.pkl", 5, SHAPE)
