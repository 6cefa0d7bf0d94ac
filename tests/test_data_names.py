"""Names of data sets: told from paths, made safe for folders, with another likelihood."""

from pathlib import Path

import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from tests.data_files import npz, refusal
from vamp_jax import datasets
from vamp_jax.errors import UsageError
from vamp_jax.process import command_line

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


@pytest.mark.parametrize(
    "name, short",
    [
        ("digits", "digits"),
        ("a/b/my data.npz", "my_data"),
        ("/x/digits.npz", "own_digits"),
        ("photos/", "photos"),
        ("../photos.v2", "photos.v2"),
        ("tfds:mnist:3.0.1", "tfds_mnist_3.0.1"),
        ("x/$(rm -rf ~);'\"\n.npz", "rm_-rf"),
        ("x/" + "n" * 300 + ".npy", "n" * 40),
        ("x/...npz", "data"),
        ("x/\udcff\udcfe.npz", "data"),
        ("/", "data"),
        ("x/-rf.h5ad", "rf"),
        ("text:a/notes.md", "notes.md"),
        ("a/book.txt", "book"),
    ],
)
def test_short_names(name, short):
    assert datasets.short_name(name) == short


@pytest.mark.filterwarnings("ignore:the load_module")  # of ml_collections
@pytest.mark.parametrize("dataset", ["", ":digits", ":/a/b.npz", ":photos/", ":gs://bucket/x.npz"])
def test_a_config_s_file_is_told_from_the_data_behind_it(dataset):
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", flag_values=values)
    values(["train.py", f"--config={CONFIGS}/vamp_vae.py{dataset}"])
    assert command_line.config_path(values) == f"{CONFIGS}/vamp_vae.py"
    named = values.config.dataset
    assert named == (dataset[1:] or "digits")


def test_names_are_told_from_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("digits", "my.npz", "a/b", "tfds:mnist", "~/x", "x.h5ad", "x.txt", "text:x"):
        datasets.check_name(name)
    (tmp_path / "photos").mkdir()
    datasets.check_name("photos")
    for name in ("mnist", "", "a\0b", None, 3, "x" * 5000, "my.npz.zip"):
        with pytest.raises(UsageError, match="there is no data set"):
            datasets.check_name(name)


def test_named_sets_with_another_likelihood(real_data_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "freyfaces.pkl").symlink_to(real_data_dir / "freyfaces" / "freyfaces.pkl")
    faces = datasets.load("freyfaces", str(tmp_path), likelihood="gaussian")
    assert faces.likelihood == "gaussian" and faces.max_value == 255
    np.testing.assert_allclose(faces.pseudo_input_mean, faces.train.mean() / 255)
    same = datasets.load("freyfaces", str(tmp_path), likelihood="discretised_logistic")
    assert same.pseudo_input_mean == 0.5  # the paper's
    assert "likelihood bernoulli alone" in refusal("digits", str(tmp_path), likelihood="gaussian")


def test_a_path_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    grey = np.arange(20 * 6, dtype=np.uint8).reshape(20, 3, 2) + 100
    path = Path(npz(tmp_path, x=grey))
    np.testing.assert_array_equal(datasets.load(path).train, datasets.load(str(path)).train)
    with pytest.raises(UsageError, match="digits is no folder and"):
        datasets.load(Path("digits"))  # which names a place


def test_colours_for_a_mixture_are_stored_as_grey_levels(tmp_path):
    colours = np.arange(20 * 12, dtype=np.int16).reshape(20, 2, 2, 3)
    loaded = datasets.load(npz(tmp_path, x=colours), likelihood="rgb_logistic_mixture")
    assert loaded.likelihood == "discretised_logistic" and loaded.max_value == 255
    says = "Did you mean 'discretised_logistic'?"
    assert says in refusal(tmp_path / "my.npz", likelihood="discretized_logistic")


@pytest.mark.parametrize("window", [0, 1, 2.5, "64", True])
def test_a_window_is_a_whole_number(tmp_path, window):
    (tmp_path / "a.txt").write_text("ab" * 2000)
    says = f"window is {window!r}; it must be a whole number from 2 to 65536"
    assert says in refusal(tmp_path / "a.txt", window=window)
    assert "window is for text" in refusal("digits", window=window)


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x.npz", "text:~nobody-of-this-name/x"])
def test_a_home_that_is_not_there(name):
    assert "names no user's home; for a folder of this name write ./~nobody" in refusal(name)


@pytest.mark.parametrize("likelihood", [None, "gaussian"])
def test_values_that_float_cannot_tell_apart_are_not_one_value(tmp_path, likelihood):
    x = np.arange(40, dtype=np.uint64).reshape(20, 2) + np.uint64(2**63)
    message = refusal(npz(tmp_path, x=x), likelihood=likelihood)
    assert "from 9223372036854775808 to 9223372036854775847) cannot be told apart" in message
    path = npz(tmp_path, x=x - x.min())  # as the sentence says
    assert datasets.load(path, likelihood="gaussian").train.shape == (16, 2)
