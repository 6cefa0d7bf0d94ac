"""Sequences of one's own: the same as those with a name, and every mistake is a sentence."""

import os

import numpy as np
import pytest

import vamp_jax
from configs import vamp_seq_vae
from tests.cases import small_sequences
from tests.data_files import npz, refusal
from vamp_jax import config_checks, datasets
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import music
from vamp_jax.experiment import train_and_evaluate
from vamp_jax.run.metrics_log import read_metrics

RNG = np.random.default_rng(0)
ROLLS = RNG.integers(0, 2, (30, 5, 3))
LENGTHS = RNG.integers(1, 6, 30)
LENGTHS[0] = 5
X = {"x": ROLLS, "length": LENGTHS}


def held(data, *, num_steps, dtype=np.float32, seed=1):
    """The arrays of a data set, with anything past the ends and more steps than there are."""
    rng, arrays = np.random.default_rng(seed), {}
    for split in datasets.SPLITS:
        values, length = (getattr(data, split)[name] for name in ("values", "length"))
        x = (9 * rng.normal(size=(len(values), num_steps, values.shape[2]))).astype(dtype)
        for row, steps, end in zip(x, values, length, strict=True):
            row[:end] = steps[:end]
        arrays |= {split: x, f"length_{split}": length.astype(np.float64)}
    return arrays


def saved(folder, arrays) -> str:
    """The arrays as a folder of .npy files."""
    folder.mkdir()
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


def assert_same(one, two):
    """The same but for the name, and where it was read."""
    for split in datasets.SPLITS:
        for name in ("values", "length"):
            leaf, other = getattr(one, split)[name], getattr(two, split)[name]
            assert leaf.dtype == other.dtype
            np.testing.assert_array_equal(leaf, other)
    nothing = dict.fromkeys((*datasets.SPLITS, "name", "file_hashes"))
    assert one._replace(**nothing) == two._replace(**nothing)


def test_chorales_in_a_file_of_one_s_own_are_the_chorales(tmp_path, capsys):
    data = datasets.load("jsb_chorales")
    path = npz(tmp_path, "bach.npz", **held(data, num_steps=171))
    mine = datasets.load(path)
    assert_same(mine, data)
    assert mine.name == "bach" and mine.kind == "sequences"
    assert capsys.readouterr().out.endswith("values are 0 or 1, so the likelihood is bernoulli.\n")
    assert set(mine.file_hashes) == {
        f"bach.npz/{start}{split}" for split in datasets.SPLITS for start in ("", "length_")
    }


def test_a_folder_holds_the_same_sequences(tmp_path):
    data = small_sequences()
    arrays = held(data, num_steps=6, dtype=np.int64)
    mine = datasets.load(npz(tmp_path, **arrays), likelihood="bernoulli")
    for split in datasets.SPLITS:
        length = getattr(data, split)["length"]
        np.testing.assert_array_equal(getattr(mine, split)["length"], length)
    assert_same(datasets.load(saved(tmp_path / "big", arrays)), mine)


def test_so_are_those_of_hdf5(tmp_path):
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "my.h5", "w") as file:
        for name, array in X.items():
            file[name] = array
    assert_same(datasets.load(str(tmp_path / "my.h5")), datasets.load(npz(tmp_path, **X)))


def test_what_is_in_one_piece_is_split_with_its_lengths_and_labels(tmp_path):
    x, labels = ROLLS.astype(bool), np.arange(30)
    data = datasets.load(npz(tmp_path, x=x, length=LENGTHS, y=labels))
    for split, count in zip(datasets.SPLITS, (24, 3, 3), strict=True):
        found, number = getattr(data, split), data.labels[split]
        np.testing.assert_array_equal(found["length"], LENGTHS[number])
        real = np.arange(5) < LENGTHS[number][:, None]
        np.testing.assert_array_equal(found["values"], ROLLS[number] * real[..., None])
        assert len(number) == count
    real = np.arange(5) < data.train["length"][:, None]
    np.testing.assert_allclose(data.pseudo_input_mean, data.train["values"][real].mean())
    other = datasets.load(npz(tmp_path, x=x, length=np.full(30, 5)))
    changed = {
        name for name, digest in data.file_hashes.items() if other.file_hashes[name] != digest
    }
    assert changed == {"my.npz/length_x"}
    parts = dict(x_train=x, lengths_train=LENGTHS, x_test=x[:7, :4], lengths_test=np.full(7, 2))
    data = datasets.load(npz(tmp_path, **parts))  # without a validation set
    assert [datasets.num_examples(getattr(data, split)) for split in datasets.SPLITS] == [27, 3, 7]
    assert data.test["values"].shape == (7, 5, 3) and not data.test["values"][:, 2:].any()


def changed(array, place, value):
    array = array.astype(float)
    array[place] = value
    return array


@pytest.mark.parametrize(
    "arrays, options, says",
    [
        ({"length": changed(LENGTHS, 3, 0)}, {}, "length[3] = 0 is no whole number from 1 to 5"),
        ({"length": changed(LENGTHS, 3, 6)}, {}, "length[3] = 6 is no whole number from 1 to 5"),
        ({"length": changed(LENGTHS, 3, 2.5)}, {}, "length[3] = 2.5 is no whole number"),
        ({"length": changed(LENGTHS, 3, np.nan)}, {}, "length[3] = nan is no whole number"),
        ({"length": LENGTHS - 5}, {}, "more) is no whole number from 1 to 5, the steps that x has"),
        ({"length": LENGTHS[1:]}, {}, "lengths of x have shape (29,) instead of (30,)"),
        ({"length": LENGTHS > 0}, {}, "lengths of x hold bool and not whole numbers"),
        ({"length": LENGTHS.astype(str)}, {}, "and not whole numbers"),
        ({"length": np.ones(30, int)}, {}, "every sequence has one step: give vectors [N, F]"),
        ({"length_test": LENGTHS}, {}, "has lengths for test, of which it has no values"),
        ({"lengths": LENGTHS}, {}, "two arrays of lengths for x"),
        ({"length_trian": LENGTHS}, {}, "has an array 'length_trian.npy' that is not known"),
        ({"x": ROLLS[..., 0]}, {}, "give [N, T, 1], as by x[..., None], and for other data leave"),
        ({"x": ROLLS[..., None]}, {}, "x has shape (30, 5, 3, 1) and comes with lengths"),
        ({"x": ROLLS[:, :0]}, {}, "x has shape (30, 0, 3), and so no examples"),
        ({"x": changed(ROLLS, (2, 0, 1), np.nan)}, {}, "x[2, 0, 1] = nan is no finite number"),
        ({"x": changed(ROLLS, (2, 0, 1), 0.5)}, {}, "x[2, 0, 1] = 0.5 is neither 0 nor 1"),
        ({"x": changed(ROLLS, (2, 0, 1), 2)}, {}, "make them so, as by x > 0.5"),
        ({"x": 0 * ROLLS}, {}, "every value of x is 0: there is nothing to learn"),
        ({"x": 0 * ROLLS + 1}, {}, "every value of x is 1: there is nothing to learn"),
        ({"x": ROLLS[:9], "length": LENGTHS[:9]}, {}, "9 examples in x: at least 10 are needed"),
        ({"mask": np.ones(ROLLS.shape)}, {}, "have no missing values: leave out a mask"),
        ({}, {"missing": "mask"}, "have no missing values: leave out missing=mask"),
        ({}, {"image_size": 8}, "image_size is for a folder of pictures"),
        ({}, {"likelihood": "poisson"}, "with likelihood bernoulli alone (zeros and ones), not 'p"),
    ],
)
def test_mistakes(tmp_path, arrays, options, says):
    message = refusal(npz(tmp_path, **X | arrays), **options)
    assert says in message and "my.npz" in message


def test_mistakes_between_splits(tmp_path):
    parts = {"train": ROLLS, "test": ROLLS, "length_train": LENGTHS}
    assert "but none of test: give length_test, too" in refusal(npz(tmp_path, **parts))
    parts |= {"length_test": LENGTHS, "test": ROLLS[..., :2]}
    assert "steps of several sizes (train (30, 5, 3), test (30, 5, 2))" in refusal(
        npz(tmp_path, **parts)
    )
    folder = saved(tmp_path / "big", parts | {"test": ROLLS, "validation": ROLLS})
    assert "but none of validation" in refusal(folder)
    assert "image_size is for a folder of pictures" in refusal(folder, image_size=8)
    # One long sequence would be the length of the many short ones.
    parts = dict(train=np.ones((2**20, 1, 1), bool), length_train=np.ones(2**20, int))
    long = np.ones((1, 2**20, 1), bool)
    parts |= dict(test=long, length_test=[2**20], validation=long, length_validation=[2**20])
    assert "of memory" in refusal(npz(tmp_path, **parts))


def test_where_sequences_are_wanted_and_none_are_there_the_way_out_is_named(tmp_path):
    config = vamp_seq_vae.get_config(npz(tmp_path, x=ROLLS.reshape(30, 15)))
    data = datasets.load(config.dataset)
    with pytest.raises(UsageError, match=r"takes sequences, and .*my.npz holds vectors: name jsb_"):
        config_checks.check_with_data(config, data)
    rolls = datasets.load(npz(tmp_path, **X)).test
    with pytest.raises(UsageError, match="of 88 keys, and these are of 3 values a step"):
        music.write_pieces(None, None, rolls, None, str(tmp_path / "music"))


@pytest.mark.slow  # python -m pytest -m slow tests/test_own_sequences.py
def test_a_run_has_the_same_bits_whatever_is_past_the_ends(tmp_path):
    """On a file and a folder; other lengths are refused, and the model takes sequences."""
    data, models, rows = small_sequences(), [], []
    mine = npz(tmp_path, **held(data, num_steps=9))
    for number, path in enumerate((mine, saved(tmp_path / "big", held(data, num_steps=5, seed=2)))):
        config = vamp_seq_vae.get_config(path)
        config.update(num_epochs=2, hidden_dim=4, latent_dim=2, num_components=3, num_samples=5)
        folder = str(tmp_path / str(number))
        train_and_evaluate(config, folder)
        train_and_evaluate(config, folder)  # finished
        models.append(vamp_jax.load(folder))
        rows.append(
            [{k: v for k, v in row.items() if "sec" not in k} for row in read_metrics(folder)]
        )
        figures = {"samples.png", "reconstructions.png", "pseudo_inputs.png", "latent_plane.png"}
        assert figures <= set(os.listdir(os.path.join(folder, "figures")))
    assert rows[0] == rows[1] and len(rows[0]) == 2
    one, two = (model.log_likelihood(data.test, num_samples=5) for model in models)
    np.testing.assert_array_equal(one.log_likelihood, two.log_likelihood)
    assert one.log_likelihood.shape == (9,) and np.isfinite(one.log_likelihood).all()
    npz(tmp_path, **held(data, num_steps=9) | {"length_train": np.ones(50)})
    config.dataset = mine
    with pytest.raises(UsageError, match="my.npz/length_train"):
        train_and_evaluate(config, str(tmp_path / "0"))
