"""The data sets: splits, protocols, orientation."""

import hashlib
import os
import pathlib
import pickle

import numpy as np
import pytest

from tests.data_files import GLYPH, small, write_freyfaces, write_omniglot
from vamp_jax import datasets
from vamp_jax.datasets import files, protocols
from vamp_jax.datasets.resizing import area_averages

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
REAL = pathlib.Path(os.environ.get("VAMP_JAX_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
pytestmark = pytest.mark.usefixtures("no_network", "own_cache")


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """Loads from the real files; each set is prepared once for all tests of this module."""
    folder = tmp_path_factory.mktemp("real")
    if REAL.is_dir():
        for source in REAL.iterdir():
            (folder / source.name).symlink_to(source)
    loaded = {}

    def load(name):
        spec = protocols.SPECS[name]
        for source in spec.sources:
            if files.find(source, [REAL]) is None:
                pytest.skip(f"{source.name} is not in {REAL} (VAMP_JAX_TEST_DATA names the folder)")
        if name not in loaded:
            loaded[name] = datasets.load(name, str(folder))
        return loaded[name]

    return load


def real_bytes(name):
    path = files.find(protocols.SPECS["dynamic_mnist"].sources[0]._replace(name=name), [REAL])
    return files.read(files.Source(name, (), 1 << 27), path)


@pytest.mark.parametrize("name", protocols.SPECS)
def test_spec(name):
    spec = protocols.SPECS[name]
    assert spec.likelihood in ("bernoulli", "discretised_logistic")
    assert not spec.dynamic or spec.likelihood == "bernoulli"
    assert spec.shape[0] % 4 == 0 and spec.shape[1] % 4 == 0


@pytest.mark.parametrize(
    "name, sizes, shape, values",
    [
        ("static_mnist", (50000, 10000, 10000), (28, 28, 1), 1),
        ("dynamic_mnist", (50000, 10000, 10000), (28, 28, 1), 255),
        ("omniglot_originals", (23000, 1345, 8115), (28, 28, 1), 225),
        ("caltech101_silhouettes", (4100, 2264, 2307), (28, 28, 1), 1),
        ("freyfaces", (1565, 200, 200), (28, 20, 1), 255),
        ("digits", (1000, 300, 497), (8, 8, 1), 16),
    ],
)
def test_splits(real, name, sizes, shape, values):
    data = real(name)
    assert data.name == name and data.shape == shape and data.max_value == values
    for split, size in zip((data.train, data.validation, data.test), sizes, strict=True):
        assert split.shape == (size, *shape) and split.dtype == np.uint8 and split.max() <= values
    if data.dynamic:
        for split in (data.validation, data.test):
            assert set(np.unique(split)) == {0, values}


def test_static_mnist(real):
    data = real("static_mnist")
    known = "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"
    assert data.file_hashes["binarized_mnist_train.amat"] == known
    text = real_bytes("binarized_mnist_valid.amat").decode()
    first, last = text[: 2 * 784].split(), text[-2 * 784 :].split()
    np.testing.assert_array_equal(data.validation[0].reshape(-1), [int(value) for value in first])
    np.testing.assert_array_equal(data.validation[-1].reshape(-1), [int(value) for value in last])
    assert data.train[:, 0].mean() < 0.001 < 0.12 < data.train.mean() < 0.14  # ink is 1


def test_dynamic_mnist_is_the_authors_draw(real):
    data = real("dynamic_mnist")
    raw = [real_bytes(f"{part}-images-idx3-ubyte") for part in ("train", "t10k")]
    train, test = (np.frombuffer(r, np.uint8)[16:].reshape(-1, 784) for r in raw)
    np.testing.assert_array_equal(data.train.reshape(-1, 784), train[:50000])
    np.random.seed(777)  # the very calls of the authors' code
    validation = np.random.binomial(1, train[50000:].astype("float32") / 255.0)
    test = np.random.binomial(1, test.astype("float32") / 255.0)
    np.testing.assert_array_equal(data.validation.reshape(-1, 784) // 255, validation)
    np.testing.assert_array_equal(data.test.reshape(-1, 784) // 255, test)


def test_the_two_mnists_look_alike(real):
    """Larochelle's file and LeCun's hold the same digits: same orientation, same polarity."""
    static = real("static_mnist").train.mean(axis=(0, 3))
    dynamic = real("dynamic_mnist").train.mean(axis=(0, 3)) / 255
    assert np.abs(static - dynamic).max() < 0.03
    assert np.abs(static - dynamic.T).max() > 0.15


def test_caltech_objects_are_bright_and_upright(real):
    images = real("caltech101_silhouettes").train[..., 0].astype(float)
    corners = images[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean()
    assert images[:, 10:18, 10:18].mean() > 0.8 > 0.2 > corners
    # Things and animals are more symmetric left to right than top to bottom.
    sideways = np.abs(images - images[:, :, ::-1]).mean()
    assert sideways < 0.9 * np.abs(images - images[:, ::-1]).mean()


def test_freyfaces_are_upright_and_shuffled_by_seed(real):
    data = real("freyfaces")
    images = pickle.loads(real_bytes("freyfaces.pkl"), encoding="latin1")[0]
    images = images[np.random.RandomState(0).permutation(1965)].reshape(-1, 28, 20, 1)
    joined = np.concatenate([data.train, data.validation, data.test])
    np.testing.assert_array_equal(joined, images)
    # A face is smoother along its rows' neighbours than pixels of a wrongly cut row would be.
    mean = data.train[..., 0].mean(axis=0)
    assert np.abs(np.diff(mean, axis=0)).mean() < 15 and np.abs(np.diff(mean, axis=1)).mean() < 15
    assert np.abs(mean - mean[:, ::-1]).mean() < np.abs(mean - mean[::-1]).mean()


def test_digits_are_upright(real):
    from sklearn.datasets import load_digits

    data = real("digits")
    order = np.random.RandomState(0).permutation(1797)
    images = load_digits().images[order]
    np.testing.assert_array_equal(data.train[..., 0], images[:1000])
    rng = np.random.RandomState(777)
    np.testing.assert_array_equal(
        data.validation[..., 0], 16 * rng.binomial(1, images[1000:1300] / 16)
    )
    np.testing.assert_array_equal(data.test[..., 0], 16 * rng.binomial(1, images[1300:] / 16))
    digest = hashlib.sha256(load_digits().images.astype(np.uint8).tobytes()).hexdigest()
    assert data.file_hashes == {"load_digits": digest}


def test_omniglot_layout(monkeypatch, tmp_path):
    small(monkeypatch, "omniglot", (23, 7, 10))
    train, test = write_omniglot(tmp_path, np.random.default_rng(0))
    data = datasets.load("omniglot", str(tmp_path))
    train = train[np.random.RandomState(123).permutation(30)].astype(np.float32)
    np.testing.assert_array_equal(data.train[..., 0], np.rint(255 * train[:23]))
    rng = np.random.RandomState(777)
    np.testing.assert_array_equal(data.validation[..., 0], 255 * rng.binomial(1, train[23:]))
    np.testing.assert_array_equal(data.test[..., 0], 255 * rng.binomial(1, test.astype(np.float32)))
    assert data.train[0, 5, 18, 0] > 100 and data.train[0, 18, 5, 0] == 0  # the bar of the F


@pytest.mark.parametrize("sizes", [(105, 28), (12, 4), (7, 7), (3, 5), (10, 1)])
def test_area_averages_are_those_of_a_finer_grid(sizes):
    side, size = sizes
    images = np.random.default_rng(0).integers(0, 2, (4, side, side))
    fine = images.repeat(size, axis=1).repeat(size, axis=2)  # cells have whole sides in this one
    cells = fine.reshape(4, size, side, size, side).sum((2, 4))
    unit = np.gcd(side, size)
    np.testing.assert_array_equal(area_averages(images, size) * unit**2, cells)


def test_omniglot_originals_layout(monkeypatch, tmp_path):
    """Fifteen drawers of each character in train and validation, the other five in the test set."""
    spec = small(monkeypatch, "omniglot_originals", (40, 5, 15))
    unpinned = tuple(source._replace(size=None, sha256=None) for source in spec.sources)
    monkeypatch.setitem(protocols.SPECS, "omniglot_originals", spec._replace(sources=unpinned))
    paper = np.ones((3, 20, 105, 105), bool)
    ink = np.kron(GLYPH, np.ones((3, 3)))[:105, :105] > 0
    for character, drawer in np.ndindex(3, 20):  # told apart by a dot
        paper[character, drawer, :84, :84] = ~ink
        paper[character, drawer, 100 - drawer, 90 + character] = False
    for source, part in zip(spec.sources, (paper[:2], paper[2:]), strict=True):
        np.savez_compressed(tmp_path / source.name, images=part, labels=np.zeros((len(part), 20)))
    data = datasets.load("omniglot_originals", str(tmp_path))
    small_images = area_averages(1 - paper.astype(int), 28)
    first = small_images[:, :15].reshape(45, 28, 28)[np.random.RandomState(123).permutation(45)]
    np.testing.assert_array_equal(data.train[..., 0], first[:40])
    rng = np.random.RandomState(777)
    np.testing.assert_array_equal(data.validation[..., 0], 225 * rng.binomial(1, first[40:] / 225))
    test = small_images[:, 15:].reshape(15, 28, 28)
    np.testing.assert_array_equal(data.test[..., 0], 225 * rng.binomial(1, test / 225))
    assert data.dynamic and data.max_value == 225 == data.train.max()
    assert data.train[0, 15, 6, 0] == 225 and data.train[0, 6, 15, 0] == 0  # the stem of the F


def test_omniglot_originals_keep_their_ink(real, real_data_dir):
    data = real("omniglot_originals")
    with np.load(real_data_dir / "omniglot_originals" / "images_background.npz") as held:
        drawings = ~held["images"][:3, :15].reshape(-1, 105, 105)
    seen = {image.tobytes() for image in data.train}
    found = [a for a in area_averages(drawings, 28) if a.astype(np.uint8).tobytes() in seen]
    assert len(found) > 35  # the others went into the validation set
    np.testing.assert_array_equal(
        area_averages(drawings, 28).sum((1, 2)), 16 * drawings.sum((1, 2))
    )  # a pixel is 4 x 4 parts of the 15 x 15 of a cell
    assert 0.07 < data.train.mean() / 225 < 0.09


@pytest.mark.parametrize("layout", ["flat arrays", "square arrays", "floats", "one array"])
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_histopathology_layout(monkeypatch, tmp_path, layout, protocol):
    spec = small(monkeypatch, "histopathology", (6, 2, 2))
    images = GLYPH * np.random.default_rng(0).uniform(0.5, 1, (10, 1, 1))
    images[0, 0, :2] = 1 / 1024, 1.0
    flat = images.reshape(10, 784)
    rows = {
        "flat arrays": list(flat),
        "square arrays": list(images),
        "floats": flat.tolist(),
        "one array": flat,
    }[layout]
    data = {"training": rows[:6], "validation": rows[6:8], "test": rows[8:]}
    contents = {"histopathology.pkl": pickle.dumps(data, protocol=protocol)}
    splits = spec.prepare(contents, spec)
    joined = np.concatenate(list(splits.values()))[..., 0]
    np.testing.assert_array_equal(joined, np.clip(np.floor(256 * images), 0, 255))
    assert joined[0, 0, 0] == 0 and joined[0, 0, 1] == 255


def test_histopathology_is_loaded(monkeypatch, tmp_path):
    small(monkeypatch, "histopathology", (6, 2, 2))
    images = np.random.default_rng(0).uniform(0, 1, (10, 784))
    data = {"training": list(images[:6]), "validation": list(images[6:8]), "test": list(images[8:])}
    (tmp_path / "histopathology.pkl").write_bytes(pickle.dumps(data, protocol=2))
    loaded = datasets.load("histopathology", str(tmp_path))
    assert loaded.likelihood == "discretised_logistic" and loaded.train.shape == (6, 28, 28, 1)
    np.testing.assert_array_equal(loaded.test.reshape(2, 784), np.floor(256 * images[8:]))


# Where files are found, and when a set is prepared anew


@pytest.mark.parametrize("place", [".", "any", "downloads/manual", "downloads/manual/any"])
def test_manual_folders(tmp_path, place):
    folder = tmp_path / place
    folder.mkdir(parents=True, exist_ok=True)
    write_freyfaces(folder)
    first = datasets.load("freyfaces", str(tmp_path))
    (folder / "freyfaces.pkl").unlink()  # what has been prepared stays usable
    second = datasets.load("freyfaces", str(tmp_path))
    for one, two in zip(first[1:4], second[1:4], strict=True):
        np.testing.assert_array_equal(one, two)
    assert first.file_hashes == second.file_hashes
