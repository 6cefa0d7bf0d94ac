"""A folder of PNG and JPEG files as a data set: what comes out, and what is refused."""

import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data_files import npz, picture, refusal
from vamp_jax import datasets
from vamp_jax.datasets import files

GREY = np.random.default_rng(0).integers(0, 256, (40, 6, 5), dtype=np.uint8)


def test_a_folder_of_pictures(tmp_path):
    colours = np.stack([GREY, GREY[::-1], 255 - GREY], -1)
    for index, image in enumerate(colours[:20]):
        picture(tmp_path / "p" / ("cat" if index % 2 else "dog") / f"{index:02}.PNG", image)
    (tmp_path / "p" / ".DS_Store").write_text("")
    data = datasets.load(str(tmp_path / "p"))
    assert data.shape == (6, 5, 3) and data.likelihood == "discretised_logistic"
    together = np.concatenate([getattr(data, split) for split in datasets.SPLITS])
    flat = {image.tobytes() for image in colours[:20]}
    assert {image.tobytes() for image in together} == flat and len(flat) == 20
    index = [image.tobytes() for image in colours[:20]].index(data.train[0].tobytes())
    assert data.labels["train"][0] == ("cat" if index % 2 else "dog")
    assert data.name == "p" and list(data.file_hashes) == ["p/x"]


def test_splits_of_pictures(tmp_path, capsys):
    for split, part in (("train", GREY[:12]), ("val", GREY[12:16]), ("test", GREY[16:20])):
        for index, image in enumerate(part):
            picture(tmp_path / split / f"{index:02}.png", image)
    (tmp_path / "README.md").write_text("")
    data = datasets.load(str(tmp_path))
    for split, part in zip(datasets.SPLITS, (GREY[:12], GREY[12:16], GREY[16:20]), strict=True):
        np.testing.assert_array_equal(getattr(data, split)[..., 0], part)
    assert data.labels is None and "1 files that are no pictures" in capsys.readouterr().out
    before = data.file_hashes
    os.utime(tmp_path / "train" / "00.png", (1, 1))
    assert datasets.load(str(tmp_path)).file_hashes == before
    picture(tmp_path / "train" / "00.png", GREY[20])
    assert datasets.load(str(tmp_path)).file_hashes != before


def test_conversions_that_are_exact(tmp_path):
    colour = np.stack([GREY[0], GREY[1], GREY[2]], -1)
    opaque = np.dstack([colour, np.full((6, 5), 255, np.uint8)])
    bits = GREY[0] > 100
    for name, image, expected in (
        ("palette", Image.fromarray(GREY[0] % 16).convert("P"), np.stack([GREY[0] % 16] * 3, -1)),
        ("alpha", Image.fromarray(opaque), colour),
        ("bits", Image.fromarray(bits), bits[..., None] * 255),
        ("grey alpha", Image.fromarray(GREY[0]).convert("LA"), GREY[0][..., None]),
    ):
        folder = tmp_path / name
        picture(folder / "00.png", np.zeros(expected.squeeze().shape, np.uint8))
        for index in range(1, 20):
            image.save(folder / f"{index:02}.png")
        together = np.concatenate(datasets.load(str(folder))[1:4])
        scale = 255 if together.max() == 1 else 1
        counts = sum((row * scale == expected).all() for row in together)
        assert counts == 19, name


def test_jpeg_stands_upright(tmp_path):
    image = np.zeros((16, 8), np.uint8)
    image[:8] = 255  # bright above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    for index in range(20):
        picture(tmp_path / f"{index}.jpg", np.rot90(image), exif=exif, quality=95)
    data = datasets.load(str(tmp_path), likelihood="discretised_logistic")
    assert data.shape == (16, 8, 1)
    assert data.train[:, :7].min() > 200 and data.train[:, 9:].max() < 50


def test_pictures_are_scaled_by_areas_only_when_asked(tmp_path):
    big = np.kron(GREY[0, :4, :4], np.ones((3, 3), np.uint8))
    for index in range(10):
        picture(tmp_path / f"{index}.png", big if index else np.pad(big, ((0, 0), (6, 6))))
    message = refusal(str(tmp_path))
    assert "1.png is 12x12 grey and" in message and "0.png is 24x12 grey" in message
    assert "image_size" in message
    data = datasets.load(str(tmp_path), image_size=4)
    assert (data.train[..., 0] == GREY[0, :4, :4]).all()  # the wide one is cut in the middle
    assert datasets.load(str(tmp_path), image_size=(2, 6)).shape == (2, 6, 1)
    for size in (-1, 5000, (4, 0)):
        assert "from 1 to 4096" in refusal(str(tmp_path), image_size=size)
    assert "image_size is for a folder" in refusal(npz(tmp_path, x=GREY), image_size=4)
    assert "image_size is for a folder" in refusal("digits", image_size=4)


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda f: (f / "03.png").write_bytes((f / "03.png").read_bytes()[:-20]), "03.png cannot"),
        (lambda f: (f / "03.png").write_bytes(b""), "03.png cannot be read (it is no PNG"),
        (lambda f: picture(f / "03.png", np.zeros((6, 4), np.uint8)), "03.png is 4x6 grey and"),
        (lambda f: picture(f / "03.png", np.zeros((6, 5, 3), np.uint8)), "make them all grey or"),
        (lambda f: picture(f / "03.png", np.zeros((6, 5), np.uint16)), "03.png has 16 bits"),
        (lambda f: picture(f / "03.png", np.zeros((6, 5, 4), np.uint8)), "partly transparent"),
        (
            lambda f: Image.new("CMYK", (5, 6)).save(f / "03.jpg"),
            "03.jpg is in colour mode CMYK",
        ),
        (lambda f: Image.new("L", (5, 6)).save(f / "03.jpg", "GIF"), "it is no PNG or JPEG"),
        (lambda f: (f / "03.png").unlink() or (f / "03.png").symlink_to("02.png"), "symbolic link"),
        (lambda f: (f / "loop").symlink_to(f), "symbolic link"),
        (lambda f: os.mkfifo(f / "03.jpeg"), "03.jpeg is a named pipe"),
        (lambda f: picture(f / "train" / "1.png", GREY[0]), "has pictures beside train/ and test/"),
    ],
)
def test_mistakes_in_a_folder(tmp_path, spoil, says):
    for index, image in enumerate(GREY[:12]):
        picture(tmp_path / f"{index:02}.png", image)
    spoil(tmp_path)
    assert says in refusal(str(tmp_path))


def test_folders_without_what_is_needed(tmp_path):
    assert "holds no picture" in refusal(str(tmp_path))
    picture(tmp_path / "train" / "1.png", GREY[0])
    assert "has no pictures in test/" in refusal(str(tmp_path))
    for index in range(3):
        picture(tmp_path / "three" / f"{index}.png", GREY[index])
    assert "has 3 examples in x: at least 10" in refusal(str(tmp_path / "three"))
    deep = tmp_path / "deep" / "/".join("abcdefghijkl")
    picture(deep / "1.png", GREY[0])
    assert "lies too deep" in refusal(str(tmp_path / "deep"))


def test_names_that_are_no_text(tmp_path):
    folder = os.fsencode(tmp_path) + b"/\xff\n"
    os.mkdir(folder)
    with open(folder + b"/\xfe.png", "wb") as file:
        file.write(b"broken")
    assert "\\udcff\\n/\\udcfe.png cannot be read" in refusal(os.fsdecode(folder))


def test_an_image_of_too_many_pixels(tmp_path):
    """A header of a gigapixel, and one that is not quite too large for Pillow."""

    def chunk(kind, body):
        summed = kind + body
        return struct.pack(">I", len(body)) + summed + struct.pack(">I", zlib.crc32(summed))

    for side in (32_000, 12_000):
        header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
        rows = chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
        (tmp_path / "0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + rows)
        assert "0.png cannot be read" in refusal(str(tmp_path))


def test_more_than_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "memory_limit", lambda: 1000)
    for index in range(20):
        picture(tmp_path / f"{index}.png", np.zeros((10, 10), np.uint8))
    assert "make it smaller" in refusal(str(tmp_path))
