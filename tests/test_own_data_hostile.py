"""One's own files from anywhere: right arrays or a sentence; no code, no hang, little memory."""

import contextlib
import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.hostile import FUZZ, bounded_memory, damaged  # noqa: F401 - a fixture of every test
from vamp_jax import datasets
from vamp_jax.errors import UsageError

X = np.random.default_rng(0).integers(0, 256, (12, 6, 5), dtype=np.uint8)


def npy_file(array=X, **options) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, array, **options)
    return file.getvalue()


def npz_file(save=np.savez, **held) -> bytes:
    file = io.BytesIO()
    save(file, **(held or {"x": X}))
    return file.getvalue()


def image_file(kind, array=X[0]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    return file.getvalue()


# Suffix -> well-formed files.
FILES = {
    "npy": [npy_file(), npy_file(np.asfortranarray(X.astype(">f4"))), npy_file(X > 9)],
    "npz": [
        npz_file(),
        npz_file(np.savez_compressed),
        npz_file(train=X, test=X, labels_test=X[:, 0, 0]),
    ],
    "png": [image_file("PNG"), image_file("PNG", np.stack([X[0]] * 3, -1))],
    "jpg": [image_file("JPEG"), image_file("JPEG", np.stack([X[0]] * 3, -1))],
}


def load(folder, suffix, content):
    """The file, or the folder of pictures whose last one it is."""
    path = folder / f"x.{suffix}"
    path.write_bytes(content)
    if suffix in ("png", "jpg"):
        colour = content.find(b"IHDR") < 0 or content[25:26] == b"\x02"
        for index in range(9):
            place = folder / f"a{index}.png"
            place.write_bytes(FILES["png"][1 if colour else 0])
        path = folder
    with contextlib.redirect_stdout(io.StringIO()):
        return datasets.load(str(path), likelihood="gaussian")


def load_or_none(folder, suffix, content):
    try:
        return load(folder, suffix, content)
    except UsageError as error:
        assert str(error).isprintable() and len(str(error)) < 900
        return None


@pytest.mark.parametrize("suffix", FILES)
def test_well_formed(suffix, tmp_path):
    for number, content in enumerate(FILES[suffix]):
        folder = tmp_path / str(number)
        folder.mkdir()
        if suffix == "jpg" and number == 0:
            continue  # a grey one among colours
        assert load(folder, suffix, content).shape[:2] == (6, 5)


@pytest.mark.parametrize("suffix", ["npy", "npz", "png"])
def test_every_truncation_is_refused(suffix, tmp_path):
    for content in FILES[suffix]:
        for size in range(0, len(content), max(1, len(content) // 40)):
            loaded = load_or_none(tmp_path, suffix, content[:size])
            only_end_mark = suffix == "png" and size >= len(content) - 12  # nothing is missing
            assert loaded is None or only_end_mark


@pytest.mark.parametrize("suffix", FILES)
@FUZZ
@given(data=st.data())
def test_damaged_bytes(suffix, tmp_path_factory, data):
    content = data.draw(damaged(FILES[suffix]))
    loaded = load_or_none(tmp_path_factory.mktemp("fuzz"), suffix, content)
    if loaded is None:
        return
    assert loaded.train.dtype in (np.uint8, np.float32) and np.isfinite(loaded.train).all()
    if suffix in ("npz", "png"):  # which have check sums
        held = [loaded.train, loaded.validation, loaded.test]
        whole = np.concatenate(held).astype(np.int64)
        assert whole.reshape(-1, 6, 5, whole.shape[-1]).shape[1:3] == (6, 5)
        originals = {image.tobytes() for image in X}
        assert {image[..., 0].astype(np.uint8).tobytes() for image in whole} <= originals


@pytest.mark.parametrize("suffix", FILES)
@FUZZ
@given(content=st.binary(max_size=300))
def test_any_bytes(suffix, tmp_path_factory, content):
    assert load_or_none(tmp_path_factory.mktemp("fuzz"), suffix, content) is None


@FUZZ
@given(
    descr=st.text(max_size=40),
    shape=st.text("0123456789(),L -", max_size=40),
    order=st.sampled_from(["True", "False", "1"]),
    body=st.binary(max_size=64),
)
def test_any_header(tmp_path_factory, descr, shape, order, body):
    text = f"{{'descr': {descr!r}, 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    content = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(text)) + text + body
    load_or_none(tmp_path_factory.mktemp("fuzz"), "npy", content)


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 1099511627776), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 18446744073709551616), }",
        "{'descr': '<U999999999', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (" + "1," * 100 + "), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1, 3), }",
        "{'descr': '<f3', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': 'O', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': '|V8', 'fortran_order': False, 'shape': (2, 3), }",
        "{'descr': [('a', '|O')], 'fortran_order': False, 'shape': (2,), }",
        "{'descr': ('|O', (2,)), 'fortran_order': False, 'shape': (2,), }",
        "__import__('os').system('touch ran')",
        "(" * 9_000,
        "",
    ],
)
def test_cunning_headers(tmp_path, header):
    start = b"\x93NUMPY\x02\x00" + struct.pack("<I", len(header)) + header.encode()
    with zipfile.ZipFile(tmp_path / "y.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", start + bytes(48))
    packed = (tmp_path / "y.npz").read_bytes()
    tracemalloc.start()
    assert load_or_none(tmp_path, "npy", start + bytes(48)) is None
    assert load_or_none(tmp_path, "npz", packed) is None
    assert tracemalloc.get_traced_memory()[1] < 10_000_000
    tracemalloc.stop()


def test_a_bomb_takes_no_memory(tmp_path):
    """Ten gigabytes of zeros in a hundred kilobytes, declared in the header or everywhere."""
    header = npy_file(np.zeros((10, 1)))[:128].replace(b"(10, 1)", b"(10, 134217728)", 1)
    header = header[:118].rstrip() + b" " * (127 - len(header[:118].rstrip())) + b"\n"
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = deflate.compress(header)
    for _ in range(100):
        packed += deflate.compress(bytes(1 << 20))
    packed += deflate.flush()
    for declared, says in (
        (100 << 20, "should have 10,737,418,368 bytes"),
        (10 << 30, "promises more than the file holds"),
    ):
        content = one_member(packed, len(header) + declared)
        tracemalloc.start()
        with pytest.raises(UsageError, match=says):
            load(tmp_path, "npz", content)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        tracemalloc.stop()


def one_member(packed: bytes, size: int, name: bytes = b"x.npy") -> bytes:
    """A zip archive of one deflated file whose size is what it says it is."""
    extra = struct.pack("<HHQQ", 1, 16, size, len(packed))  # Zip64
    fields = struct.pack("<HHHHHI", 45, 0, 8, 0, 0, 0) + struct.pack("<II", *[0xFFFFFFFF] * 2)
    local = b"PK\x03\x04" + fields + struct.pack("<HH", len(name), len(extra)) + name + extra
    central = b"PK\x01\x02" + struct.pack("<H", 45) + fields
    central += struct.pack("<HHHHHII", len(name), len(extra), 0, 0, 0, 0, 0) + name + extra
    at = len(local) + len(packed)
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 1, 1, len(central), at, 0)
    return local + packed + central + end


def test_a_member_that_is_longer_or_shorter_than_it_says(tmp_path):
    for wrong in (npy_file()[:-1], npy_file() + b"x"):
        with zipfile.ZipFile(tmp_path / "y.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("x.npy", wrong)
        assert load_or_none(tmp_path, "npz", (tmp_path / "y.npz").read_bytes()) is None


def test_text_chunks_that_unpack_to_too_much(tmp_path):
    """A PNG comment of 200 megabytes in 200 kilobytes."""

    def chunk(kind, body):
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    comment = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(200_000_000), 9))
    content = FILES["png"][0]
    tracemalloc.start()
    load_or_none(tmp_path, "png", content[:33] + comment + content[33:])
    assert tracemalloc.get_traced_memory()[1] < 20_000_000
    tracemalloc.stop()
