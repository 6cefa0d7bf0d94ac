"""Data sets: splits, protocols, orientation, and what happens to prepared and source files."""

import hashlib
import http.server
import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import threading
import urllib.error

import numpy as np
import pytest
import scipy.io

from vamp_jax import datasets
from vamp_jax.datasets import files, loading, protocols, sequences
from vamp_jax.datasets.resizing import area_averages
from vamp_jax.errors import UsageError

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
REAL = pathlib.Path(os.environ.get("VAMP_JAX_TEST_DATA") or REPOSITORY.parent / "shared" / "data")

# An upright capital F: no symmetry maps it to itself.
GLYPH = np.zeros((28, 28))
GLYPH[4:24, 6:9] = GLYPH[4:7, 6:20] = GLYPH[12:15, 6:16] = 1


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(url, timeout):
        raise urllib.error.URLError("no network in tests")

    monkeypatch.setattr("urllib.request.urlopen", refuse)


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path_factory):
    """Every test has a cache folder of its own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


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


def small(monkeypatch, name, sizes):
    """Makes the data set `name` expect these split sizes."""
    spec = protocols.SPECS[name]._replace(sizes=sizes)
    monkeypatch.setitem(protocols.SPECS, name, spec)
    return spec


def write_omniglot(folder, rng, num_train=30, num_test=10, glyph=GLYPH):
    """chardata.mat in the official layout: 784 x N, each column an image in Fortran order."""
    images = glyph * rng.uniform(0.5, 1, (num_train + num_test, 1, 1))
    columns = np.stack([image.flatten(order="F") for image in images], axis=1)
    data = {"data": columns[:, :num_train], "testdata": columns[:, num_train:]}
    scipy.io.savemat(folder / "chardata.mat", data, do_compression=True)
    return images[:num_train], images[num_train:]


def write_freyfaces(folder, seed=0, num=1965):
    images = np.random.default_rng(seed).integers(0, 256, (num, 560)).astype(np.uint8)
    with open(folder / "freyfaces.pkl", "wb") as file:
        pickle.dump([images], file, protocol=2)
    return images


# What comes out


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


def test_import_is_light():
    code = (
        "import sys; from vamp_jax import datasets; "
        "print([m for m in ('jax', 'scipy', 'sklearn', 'tensorflow_datasets') if m in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"


def test_prepared_set_is_not_prepared_again_and_quiet(tmp_path, monkeypatch, capfd):
    write_freyfaces(tmp_path)
    datasets.load("freyfaces", str(tmp_path))
    monkeypatch.setattr(loading, "_prepare", None)
    monkeypatch.setattr(files, "read", None)  # an untouched file is not even read
    datasets.load("freyfaces", str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_touched_file_is_not_prepared_again(tmp_path, monkeypatch):
    write_freyfaces(tmp_path)
    datasets.load("freyfaces", str(tmp_path))
    os.utime(tmp_path / "freyfaces.pkl", (1, 1))
    monkeypatch.setattr(loading, "_prepare", None)
    datasets.load("freyfaces", str(tmp_path))


def test_changed_file_is_prepared_again(tmp_path):
    write_freyfaces(tmp_path, seed=0)
    status = (tmp_path / "freyfaces.pkl").stat()
    old = datasets.load("freyfaces", str(tmp_path))
    images = write_freyfaces(tmp_path, seed=1)  # protocol 2 in latin1: lengths differ slightly
    os.utime(tmp_path / "freyfaces.pkl", ns=(status.st_atime_ns, status.st_mtime_ns))
    new = datasets.load("freyfaces", str(tmp_path))
    assert old.file_hashes != new.file_hashes
    order = np.random.RandomState(0).permutation(1965)
    np.testing.assert_array_equal(new.train.reshape(-1, 560), images[order[:1565]])


def test_broken_file_is_not_papered_over(tmp_path):
    write_freyfaces(tmp_path)
    datasets.load("freyfaces", str(tmp_path))
    path = tmp_path / "freyfaces.pkl"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(UsageError, match="freyfaces.pkl is not a pickle"):
        datasets.load("freyfaces", str(tmp_path))


def test_damaged_preparation_is_made_anew(tmp_path):
    write_freyfaces(tmp_path)
    first = datasets.load("freyfaces", str(tmp_path))
    home = tmp_path / "vamp_jax" / "freyfaces" / protocols.VERSION
    for damage in ("truncate", "remove", "metadata", "info"):
        (shard,) = home.glob("*train*")
        if damage == "truncate":
            shard.write_bytes(shard.read_bytes()[:1000])
        elif damage == "remove":
            shard.unlink()
        elif damage == "metadata":
            (home / "metadata.json").write_text("{")
        else:
            (home / "dataset_info.json").unlink()
        again = datasets.load("freyfaces", str(tmp_path))
        np.testing.assert_array_equal(again.train, first.train)


def test_swapped_splits_are_noticed(tmp_path, capsys):
    """Validation and test set of a prepared set change places: both have 200 faces."""
    write_freyfaces(tmp_path)
    first = datasets.load("freyfaces", str(tmp_path))
    home = tmp_path / "vamp_jax" / "freyfaces" / protocols.VERSION
    (one,), (two,) = home.glob("*validation*"), home.glob("*test*")
    held = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(held)
    again = datasets.load("freyfaces", str(tmp_path))
    np.testing.assert_array_equal(again.test, first.test)
    assert "freyfaces: what was prepared in" in capsys.readouterr().out


def test_sets_that_older_code_has_prepared_are_read(tmp_path, monkeypatch):
    write_freyfaces(tmp_path)
    first = datasets.load("freyfaces", str(tmp_path))
    path = tmp_path / "vamp_jax" / "freyfaces" / protocols.VERSION / "metadata.json"
    metadata = json.loads(path.read_text())
    del metadata["contents"]
    path.write_text(json.dumps(metadata))
    monkeypatch.setattr(loading, "_prepare", None)
    np.testing.assert_array_equal(datasets.load("freyfaces", str(tmp_path)).test, first.test)


def test_killed_preparation(tmp_path):
    """SIGKILL half way: the next load finishes the work, and clears up."""
    write_freyfaces(tmp_path)
    code = (
        "import os, signal, sys\n"
        "from vamp_jax import datasets\n"
        "from vamp_jax.datasets import builders\n"
        "def die(self, images):\n"
        "    for index, image in enumerate(images):\n"
        "        if index == 100: os.kill(os.getpid(), signal.SIGKILL)\n"
        "        yield index, {'image': image}\n"
        "builders.ImageBuilder._generate_examples = die\n"
        "datasets.load('freyfaces', sys.argv[1])"
    )
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY)
    assert result.returncode == -9
    home = tmp_path / "vamp_jax"
    assert list(home.glob(".freyfaces-*"))
    assert datasets.load("freyfaces", str(tmp_path)).train.shape == (1565, 28, 20, 1)
    assert not list(home.glob(".freyfaces-*"))


def test_two_processes_at_once(tmp_path):
    write_freyfaces(tmp_path)
    code = (
        "import sys; from vamp_jax import datasets; "
        "print(datasets.load('freyfaces', sys.argv[1]).train.astype(int).sum())"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    workers = [
        subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(3)
    ]
    outputs = [worker.communicate(timeout=60) for worker in workers]
    total = datasets.load("freyfaces", str(tmp_path)).train.astype(int).sum()
    last = [(out.splitlines()[-1], err) for out, err in outputs]  # others may be told to wait
    assert last == [(str(total).encode(), b"")] * 3


def test_read_only_data_dir(tmp_path, cache):
    write_freyfaces(tmp_path)
    tmp_path.chmod(0o555)
    try:
        first = datasets.load("freyfaces", str(tmp_path))
        second = datasets.load("freyfaces", str(tmp_path))
        assert [path.name for path in tmp_path.iterdir()] == ["freyfaces.pkl"]
    finally:
        tmp_path.chmod(0o755)
    np.testing.assert_array_equal(first.train, second.train)
    assert list((cache / "vamp_jax").iterdir())


def test_read_only_data_dirs_do_not_mix(tmp_path):
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        folder.mkdir()
        write_freyfaces(folder, seed=seed)
        folder.chmod(0o555)
    one, two = (datasets.load("freyfaces", str(tmp_path / str(seed))) for seed in (0, 1))
    assert (one.train != two.train).any()
    for seed in (0, 1):
        (tmp_path / str(seed)).chmod(0o755)


def test_full_disk(tmp_path):
    write_freyfaces(tmp_path)
    code = (
        "import resource, signal, sys; from vamp_jax import datasets\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))\n"
        "try: datasets.load('freyfaces', sys.argv[1])\n"
        "except datasets.loading.UsageError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert "freyfaces cannot be prepared in" in result.stdout, result.stderr
    assert datasets.load("freyfaces", str(tmp_path)).train.shape == (1565, 28, 20, 1)


def test_builder_is_a_tfds_builder(tmp_path):
    from vamp_jax.datasets import builders

    images = write_freyfaces(tmp_path)
    builder = builders.Freyfaces(data_dir=tmp_path)
    builder.download_and_prepare()
    source = builder.as_data_source("test")
    assert len(source) == 200 and builder.info.features["image"].shape == (28, 20, 1)
    last = np.random.RandomState(0).permutation(1965)[-1]
    np.testing.assert_array_equal(source[199]["image"].reshape(-1), images[last])
    assert set(builders.BUILDERS) == set(protocols.SPECS)


# Mistakes


def test_unknown_name():
    with pytest.raises(
        UsageError, match="no data set 'mnist': choose one of static_mnist, dynamic"
    ):
        datasets.load("mnist")


SOURCES = {name: spec.sources for name, spec in protocols.SPECS.items()} | sequences.SOURCES


@pytest.mark.parametrize("name", [name for name in datasets.NAMES if SOURCES[name]])
def test_missing_file(tmp_path, name):
    folder = tmp_path / "absent"
    with pytest.raises(UsageError) as caught:
        datasets.load(name, str(folder))
    message, source = str(caught.value), SOURCES[name][0]
    for part in (name, source.name, str(folder), source.urls[0], "--data_dir", "no network"):
        assert part in message
    assert "\n" not in message and not folder.exists()


def test_data_dir_must_be_a_local_folder(tmp_path):
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "file", "gs://bucket/data"):
        with pytest.raises(UsageError, match="not a local folder: pass --data_dir"):
            datasets.load("digits", str(wrong))


@pytest.mark.parametrize("damage", ["empty", "short", "long", "other bytes"])
def test_pinned_files(tmp_path, damage):
    source = protocols.SPECS["caltech101_silhouettes"].sources[0]
    size = {"empty": 0, "short": 1000, "long": source.size + 1, "other bytes": source.size}[damage]
    (tmp_path / source.name).write_bytes(bytes(size))
    with pytest.raises(
        UsageError, match="caltech101_silhouettes_28_split1.mat (holds|has SHA-256)"
    ):
        datasets.load("caltech101_silhouettes", str(tmp_path))


def test_wrong_number_of_images(tmp_path, monkeypatch):
    write_freyfaces(tmp_path, num=1960)
    with pytest.raises(UsageError, match="in .*freyfaces.pkl holds 1960 images instead of 1965"):
        datasets.load("freyfaces", str(tmp_path))
    write_omniglot(tmp_path, np.random.default_rng(0))
    with pytest.raises(UsageError, match=r"data of shape \(784, 30\) instead of \(784, 24345\)"):
        datasets.load("omniglot", str(tmp_path))
    small(monkeypatch, "omniglot", (23, 7, 10))
    write_omniglot(tmp_path, np.random.default_rng(0), glyph=2 * GLYPH)
    with pytest.raises(UsageError, match=r"pixels outside \[0, 1\]"):
        datasets.load("omniglot", str(tmp_path))


def write_histopathology(folder, change):
    """Images that `change` spoils, in the official layout; (training, validation, test)."""
    images = np.random.default_rng(0).uniform(0, 1, (600, 784))
    images = change(images)
    parts = dict(zip(("training", "validation", "test"), np.split(images, (200, 400)), strict=True))
    (folder / "histopathology.pkl").write_bytes(pickle.dumps(parts, protocol=2))


@pytest.mark.parametrize(
    "change, says",
    [
        (np.zeros_like, "holds 200 images of one colour"),
        (np.ones_like, "holds 200 images of one colour"),
        (lambda a: np.concatenate([a[:390], np.zeros((210, 784))]), "10 images of one colour"),
        (lambda a: 0.4 + 0.1 * a, "uses little of the range of its pixels (0.40 to 0.50)"),
        (lambda a: a**200, "is nearly all black or white"),
        (lambda a: np.where(a > 0.9999, a, 0.3 + 0.01 * a), "holds images without contrast"),
        (lambda a: np.tile(a[:60], (10, 1)), "holds only 60 different images among 200"),
    ],
)
def test_contents_of_files_without_a_known_hash(monkeypatch, tmp_path, change, says):
    small(monkeypatch, "histopathology", (200, 200, 200))
    write_histopathology(tmp_path, change)
    with pytest.raises(UsageError) as caught:
        datasets.load("histopathology", str(tmp_path))
    assert says in str(caught.value) and "histopathology.pkl (" in str(caught.value)


def test_black_faces_and_drawings_are_refused(monkeypatch, tmp_path):
    with open(tmp_path / "freyfaces.pkl", "wb") as file:
        pickle.dump([np.zeros((1965, 560), np.uint8)], file, protocol=2)
    with pytest.raises(UsageError, match="freyfaces.pkl holds 1965 images of one colour"):
        datasets.load("freyfaces", str(tmp_path))
    small(monkeypatch, "omniglot", (23, 7, 10))
    write_omniglot(tmp_path, np.random.default_rng(0), glyph=0 * GLYPH)
    with pytest.raises(UsageError, match="chardata.mat .data. holds 30 images of one colour"):
        datasets.load("omniglot", str(tmp_path))


def test_two_files_of_one_name_are_said(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    write_freyfaces(tmp_path, seed=0)
    write_freyfaces(tmp_path / "a", seed=1)
    datasets.load("freyfaces", str(tmp_path))
    said = f"freyfaces: {tmp_path}/freyfaces.pkl is taken, and {tmp_path}/a/freyfaces.pkl is not.\n"
    assert capsys.readouterr().out == said
    (tmp_path / "a" / "freyfaces.pkl").unlink()
    (tmp_path / "a" / "freyfaces.pkl").symlink_to(tmp_path / "freyfaces.pkl")  # the same
    datasets.load("freyfaces", str(tmp_path))
    assert capsys.readouterr().out == ""


def test_a_named_pipe_for_an_official_file_is_refused(tmp_path):
    source = protocols.SPECS["freyfaces"].sources[0]
    os.mkfifo(tmp_path / source.name)
    with pytest.raises(UsageError, match="is a named pipe"):
        files.read(source, tmp_path / source.name)
    with pytest.raises(UsageError, match="freyfaces needs the file freyfaces.pkl"):
        datasets.load("freyfaces", str(tmp_path))


def test_gzip_bomb(tmp_path):
    import gzip

    source = files.Source("bomb", (), max_bytes=1000, size=1000)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(bytes(10_000_000)))
    with pytest.raises(UsageError, match="more than 1000 bytes instead of 1000"):
        files.read(source, path)
    path.write_bytes(gzip.compress(bytes(1000))[:-4])
    with pytest.raises(UsageError, match="cannot be read"):
        files.read(source, path)


# Downloads, from a server on this machine


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.undo()  # urlopen works again ...
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{httpd.server_port}"
        httpd.shutdown()
        thread.join()


def test_download(server, tmp_path, monkeypatch):
    folder, address = server
    images = write_freyfaces(folder)
    spec = protocols.SPECS["freyfaces"]
    urls = (f"{address}/absent/freyfaces.pkl", f"{address}/freyfaces.pkl")
    source = spec.sources[0]._replace(urls=urls)
    monkeypatch.setitem(protocols.SPECS, "freyfaces", spec._replace(sources=(source,)))
    data_dir = tmp_path / "data"
    data = datasets.load("freyfaces", str(data_dir))
    order = np.random.RandomState(0).permutation(1965)
    np.testing.assert_array_equal(data.train.reshape(-1, 560), images[order[:1565]])
    assert os.listdir(data_dir / "downloads" / "manual") == ["freyfaces.pkl"]

    shutil.rmtree(data_dir)
    wrong = source._replace(urls=urls[1:], sha256="0" * 64)
    monkeypatch.setitem(protocols.SPECS, "freyfaces", spec._replace(sources=(wrong,)))
    with pytest.raises(UsageError, match="could not be downloaded from .*SHA-256"):
        datasets.load("freyfaces", str(data_dir))
    assert os.listdir(data_dir / "downloads" / "manual") == []
