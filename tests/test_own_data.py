"""One's own data: what comes out of every kind of file, what is guessed, and every mistake."""

import os
import pickle
import zipfile

import numpy as np
import pytest
import scipy.stats

from tests.data_files import npz, refusal
from vamp_jax import datasets
from vamp_jax.datasets import arrays, files, moments, values

RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (40, 6, 5), dtype=np.uint8)
REALS = RNG.normal(size=(40, 7))
COUNTS = RNG.poisson(3.0, (40, 7))


# What comes out


def test_splits_are_taken_as_they_are(tmp_path, capsys):
    path = npz(tmp_path, train=GREY[:20], validation=GREY[20:30], test=GREY[30:])
    data = datasets.load(path)
    assert data.likelihood == "discretised_logistic" and data.max_value == 255
    assert data.kind == "images" and data.shape == (6, 5, 1) and data.name == "my"
    for split, part in zip(datasets.SPLITS, np.split(GREY, (20, 30)), strict=True):
        np.testing.assert_array_equal(getattr(data, split)[..., 0], part)
    said = capsys.readouterr().out
    assert said == f"{path}: images in 8 bits, so the likelihood is discretised_logistic.\n"


def test_one_piece_is_split_80_10_10_always_alike(tmp_path):
    path = npz(tmp_path, x=np.arange(43 * 2).reshape(43, 2), labels=np.arange(43))
    one, two = (datasets.load(path, likelihood="poisson") for _ in range(2))
    assert [len(getattr(one, split)) for split in datasets.SPLITS] == [35, 4, 4]
    together = np.concatenate([one.train, one.validation, one.test])
    assert sorted(together[:, 0]) == list(range(0, 86, 2))
    for split in datasets.SPLITS:
        np.testing.assert_array_equal(getattr(one, split), getattr(two, split))
        np.testing.assert_array_equal(getattr(one, split)[:, 0], 2 * one.labels[split])
    assert (one.train[:5, 0] != np.arange(0, 10, 2)).any()  # not merely the first ones


def test_without_a_validation_set_a_tenth_of_train_becomes_it(tmp_path, capsys):
    path = npz(tmp_path, x_train=GREY[:20], x_test=GREY[20:], y_train=np.arange(20))
    data = datasets.load(path)
    assert [len(getattr(data, split)) for split in datasets.SPLITS] == [18, 2, 20]
    np.testing.assert_array_equal(data.test[..., 0], GREY[20:])
    np.testing.assert_array_equal(data.validation[..., 0], GREY[data.labels["validation"]])
    assert "a tenth of train is taken" in capsys.readouterr().out


@pytest.mark.parametrize(
    "x, shape, kind, likelihood, dtype",
    [
        (GREY > 100, (6, 5, 1), "images", "bernoulli", np.uint8),
        ((GREY > 100) * 1.0, (6, 5, 1), "images", "bernoulli", np.uint8),
        ((GREY > 100).astype(np.uint8) * 255, (6, 5, 1), "images", "bernoulli", np.uint8),
        (REALS > 0, (7,), "vectors", "bernoulli", np.uint8),
        (GREY, (6, 5, 1), "images", "discretised_logistic", np.uint8),
        (np.stack([GREY] * 3, -1), (6, 5, 3), "images", "discretised_logistic", np.uint8),
    ],
)
def test_what_is_guessed(tmp_path, x, shape, kind, likelihood, dtype):
    data = datasets.load(npz(tmp_path, x=x))
    assert (data.shape, data.kind, data.likelihood) == (shape, kind, likelihood)
    assert data.train.dtype == dtype and not data.dynamic
    assert data.max_value == (1 if likelihood == "bernoulli" else 255)
    if likelihood == "bernoulli":
        assert set(np.unique(data.train)) == {0, 1}


@pytest.mark.parametrize(
    "x, fitting",
    [
        (REALS, "likelihood=gaussian (real numbers)"),
        (
            COUNTS,
            "logistic (grey levels or colours from 0 to 255) or gaussian (real numbers) or po",
        ),
        (GREY % 17, "negative_binomial"),  # digits of 0 to 16 are no grey levels
        (GREY.reshape(40, 30), "poisson"),  # nor need vectors be
        (GREY / 255, "bernoulli (0 and 1, or the chance of a 1) or gaussian"),
        (GREY.astype(np.int64) * 300, "gaussian (real numbers) or poisson (counts)"),
    ],
)
def test_what_is_not_guessed_is_asked_with_what_fits(tmp_path, x, fitting):
    message = refusal(npz(tmp_path, x=x))
    assert "say what they are with --config.likelihood=" in message and fitting in message


@pytest.mark.parametrize(
    "dtype", [np.float16, np.float32, np.float64, np.longdouble, ">f4", np.int8, np.int64, ">i2"]
)
def test_types_of_numbers(tmp_path, dtype):
    x = np.asfortranarray(np.round(3 * REALS).astype(dtype))
    np.save(tmp_path / "x.npy", x)
    data = datasets.load(str(tmp_path / "x.npy"), likelihood="gaussian")
    assert data.train.dtype == np.float32 and data.train.flags.c_contiguous
    together = np.concatenate([data.train, data.validation, data.test])
    np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(x.astype(np.float32), axis=0))


@pytest.mark.parametrize(
    "high, dtype", [(255, np.uint8), (256, np.uint16), (65535, np.uint16), (2**24, np.int32)]
)
def test_counts_take_the_smallest_type_that_holds_them(tmp_path, high, dtype):
    counts = COUNTS.astype(np.float64)
    counts[3, 2] = high
    for likelihood in ("poisson", "negative_binomial"):
        data = datasets.load(npz(tmp_path, x=counts), likelihood=likelihood)
        assert data.train.dtype == dtype and data.likelihood == likelihood
        together = np.concatenate([data.train, data.validation, data.test])
        assert together.max() == high and together.sum() == counts.sum()


def test_classes(tmp_path):
    data = datasets.load(npz(tmp_path, x=COUNTS % 5), likelihood="categorical")
    assert data.num_classes == 5 and data.train.dtype == np.uint8
    np.testing.assert_allclose([data.pseudo_input_mean, data.pseudo_input_stddev], [0.2, 0.4])


def test_chances_are_redrawn_in_training_and_drawn_once_elsewhere(tmp_path):
    means = np.tile([0.0, 0.25, 1.0], (4000, 1))
    path = npz(tmp_path, train=means, validation=means, test=means)
    data = datasets.load(path, likelihood="bernoulli")
    assert data.dynamic and data.max_value == 1
    np.testing.assert_array_equal(data.train, means.astype(np.float32))
    for split in (data.validation, data.test):
        assert set(np.unique(split)) == {0, 1} and split.dtype == np.float32
        np.testing.assert_array_equal(split.mean(0)[[0, 2]], [0, 1])
        ones = int(split[:, 1].sum())
        assert scipy.stats.binomtest(ones, 4000, 0.25).pvalue > 0.001
    assert (data.validation != data.test).any()
    again = datasets.load(path, likelihood="bernoulli")
    np.testing.assert_array_equal(again.test, data.test)


def test_grey_levels_as_chances(tmp_path):
    data = datasets.load(npz(tmp_path, x=GREY), likelihood="bernoulli")
    assert data.dynamic and data.max_value == 255 and data.train.dtype == np.uint8
    assert len(np.unique(data.train)) > 100 and set(np.unique(data.test)) == {0, 255}


# Where pseudo-inputs start


@pytest.mark.parametrize(
    "likelihood, x, seen",
    [
        ("discretised_logistic", GREY, lambda x: (x + 0.5) / 256),
        ("bernoulli", GREY, lambda x: x / 255),
        ("gaussian", GREY, lambda x: x / 255),
        ("gaussian", 5 + 3 * REALS, lambda x: x),
        ("poisson", COUNTS, lambda x: x),
    ],
)
def test_pseudo_inputs_start_at_mean_and_deviation_of_what_the_network_sees(
    tmp_path, likelihood, x, seen
):
    data = datasets.load(npz(tmp_path, train=x, test=x, validation=x), likelihood=likelihood)
    axis = 0 if data.kind == "vectors" else None
    np.testing.assert_allclose(data.pseudo_input_mean, seen(x.astype(float)).mean(axis), rtol=1e-6)
    np.testing.assert_allclose(data.pseudo_input_stddev, seen(x.astype(float)).std(axis), rtol=1e-6)


@pytest.mark.parametrize(
    ("scale", "shift", "likelihood", "told"),
    [
        (1.0, 0.0, "gaussian", None),
        (0.3, 0.5, "gaussian", None),
        (30.0, 0.0, "gaussian", "a deviation of 29"),
        (0.001, 0.0, "gaussian", "deviation of 0.00"),
        (1.0, 300.0, "gaussian", "means of up to 300"),
        (30.0, 200.0, "poisson", None),
    ],
)
def test_real_numbers_far_from_the_size_of_one_are_noted(
    tmp_path, capsys, scale, shift, likelihood, told
):
    x = scale * np.random.default_rng(0).normal(size=(100, 4, 4, 1)) + shift
    np.savez(tmp_path / "x.npz", x=np.round(x) if likelihood == "poisson" else x)
    datasets.load(str(tmp_path / "x.npz"), likelihood=likelihood)
    said = capsys.readouterr().out
    assert ("subtract the mean" in said) == (told is not None) and (told or "") in said


def test_a_value_that_never_changes_gets_a_little_room(tmp_path):
    x = REALS.copy()
    x[:, 3] = 2.0
    data = datasets.load(npz(tmp_path, x=x), likelihood="gaussian")
    assert data.pseudo_input_mean[3] == 2.0 and 0.001 < data.pseudo_input_stddev[3] < 0.1


def test_moments_of_large_arrays_are_those_of_float64(monkeypatch):
    rng = np.random.default_rng(1)
    vectors = (1e4 + rng.normal(size=(200_000, 30))).astype(np.float32)
    vectors[rng.uniform(size=vectors.shape) < 0.1] = np.nan
    stored = values.Stored({"train": vectors}, "gaussian")
    mean, stddev = moments.moments(stored, "vectors")
    np.testing.assert_allclose(mean, np.nanmean(vectors.astype(float), axis=0), rtol=1e-7)
    np.testing.assert_allclose(stddev, np.nanstd(vectors.astype(float), axis=0), rtol=1e-5)


# Missing values


def test_nan_is_missing_where_it_is_asked_for(tmp_path):
    x = REALS.copy()
    x[[3, 11], [2, 6]] = np.nan
    path = npz(tmp_path, x=x)
    message = refusal(path, likelihood="gaussian")
    assert "x[3, 2] = nan (and 1 more) is not a number" in message and "missing=mask" in message
    data = datasets.load(path, likelihood="gaussian", missing="mask")
    together = np.concatenate([data.train, data.validation, data.test])
    assert data.missing and np.isnan(together).sum() == 2
    assert np.isfinite(data.pseudo_input_mean).all() and np.isfinite(data.pseudo_input_stddev).all()
    assert not datasets.load(npz(tmp_path, x=REALS), likelihood="gaussian", missing="mask").missing
    assert "missing is 'yes'" in refusal(path, missing="yes")


@pytest.mark.parametrize("likelihood", [None, "bernoulli", "poisson", "gaussian", "categorical"])
def test_a_mask_leaves_values_out_whatever_they_are(tmp_path, likelihood, capsys):
    mask = np.random.default_rng(1).uniform(size=GREY.shape) < 0.75
    x = np.where(mask, GREY, 77)
    path = npz(tmp_path, train=x, validation=GREY, test=GREY, mask_train=mask)
    data = datasets.load(path, likelihood=likelihood)
    assert data.missing and data.train.dtype == np.float32 and data.train.shape == (40, 6, 5, 1)
    np.testing.assert_array_equal(np.isnan(data.train[..., 0]), ~mask)
    np.testing.assert_array_equal(data.train[..., 0][mask], GREY[mask])
    assert data.likelihood == (likelihood or "discretised_logistic")
    if likelihood in (None, "bernoulli"):
        scale, shift = (255, 0) if likelihood else (256, 0.5)
        expected = ((GREY[mask] + shift) / scale).mean()
        np.testing.assert_allclose(data.pseudo_input_mean, expected, rtol=1e-6)
    assert f"leaves out {(~mask).mean():.1%}" in capsys.readouterr().out
    if likelihood == "bernoulli":
        assert set(np.unique(data.test)) == {0, 255}


def test_what_a_mask_leaves_out_may_be_nan_or_negative_and_nothing_else_may(tmp_path):
    x, mask = COUNTS.astype(float), np.ones(COUNTS.shape)
    x[2, 3], x[4, 5], mask[2, 3], mask[4, 5] = np.nan, -1, 0, 0
    data = datasets.load(npz(tmp_path, x=x, mask=mask), likelihood="poisson")
    assert data.missing and data.train.dtype == np.float32
    mask[4, 5] = 1
    assert "x[4, 5] = -1" in refusal(npz(tmp_path, x=x, mask=mask), likelihood="poisson")
    mask[2, 3] = 1
    assert "x[2, 3] = nan" in refusal(npz(tmp_path, x=x, mask=mask), likelihood="poisson")


def test_chances_with_gaps(tmp_path):
    x = np.full((50, 4), 0.5)
    x[:, 0], x[:, 1] = np.nan, 1.0
    data = datasets.load(npz(tmp_path, x=x), likelihood="bernoulli", missing="mask")
    assert np.isnan(data.test[:, 0]).all() and (data.test[:, 1] == 1).all()
    assert set(np.unique(data.test[:, 2:])) == {0, 1}


# Hashes


def test_the_hash_is_of_the_contents_and_nothing_else(tmp_path):
    def hashes(**held):
        return datasets.load(npz(tmp_path, **held)).file_hashes

    first = hashes(x=GREY)
    assert list(first) == ["my.npz/x"] and first == hashes(x=GREY.copy(order="F"))
    assert first == hashes(x=GREY, labels=np.arange(40))
    changed = GREY.copy()
    changed[39, 5, 4] ^= 1
    assert first != hashes(x=changed) and first != hashes(x=GREY[::-1])
    assert first != hashes(x=GREY, mask=np.ones(GREY.shape))
    np.savez(tmp_path / "my.npz", x=GREY)  # not compressed
    assert first == datasets.load(str(tmp_path / "my.npz")).file_hashes
    assert arrays.digest(GREY) != arrays.digest(GREY.reshape(40, 30))
    assert arrays.digest(COUNTS.astype(">i4")) == arrays.digest(COUNTS.astype("<i4"))


# Mistakes in arrays


@pytest.mark.parametrize(
    "held, options, says",
    [
        ({"train": GREY, "validation": GREY}, {}, "has no array test (it holds train, validation)"),
        ({"test": GREY}, {}, "has no array train"),
        ({"foo": GREY}, {}, "holds foo.npy: name its arrays train, validation and test (or x"),
        ({}, {}, "holds nothing: name its arrays"),
        ({"x": GREY, "train": GREY, "test": GREY}, {}, "has both x and splits"),
        ({"val": GREY, "valid": GREY, "train": GREY, "test": GREY}, {}, "two arrays of values for"),
        ({"x": GREY, "mask_trian": GREY}, {}, "has an array 'mask_trian.npy' that is not known"),
        ({"x": GREY, "labels_test": GREY}, {}, "has labels for test, of which it has no values"),
        ({"x": GREY[:3]}, {}, "has 3 examples in x: at least 10 are needed"),
        ({"x": GREY[:0]}, {}, "x has shape (0, 6, 5), and so no examples"),
        ({"x": np.array(3.0)}, {}, "x has shape (), and so no examples"),
        ({"train": GREY, "test": GREY[:, :5]}, {}, "(train (40, 6, 5), test (40, 5, 5))"),
        ({"x": np.zeros((20, 3, 8, 8))}, {}, "put the channels last"),
        ({"x": np.zeros((20, 8, 8, 4))}, {}, "give vectors [N, D], grey images"),
        ({"x": np.zeros((20, 2, 2, 2, 2))}, {}, "x has shape (20, 2, 2, 2, 2)"),
        ({"x": np.array(["a"] * 20)}, {}, "x holds <U1 and not numbers"),
        ({"x": REALS + 1j}, {}, "is an array of complex numbers"),
        ({"x": np.zeros(20, "M8[s]")}, {}, "is an array of dates"),
        ({"x": np.zeros(20, "i4,f4")}, {}, "is a structured array"),
        ({"x": np.ones((20, 3))}, {}, "every value of x is 1: there is nothing to learn"),
        ({"x": np.full((20, 3), np.nan)}, {"missing": "mask"}, "every value of x is missing"),
        ({"x": np.where(REALS > 1, np.inf, REALS)}, {"likelihood": "gaussian"}, "= inf"),
        ({"x": REALS * 1e39}, {"likelihood": "gaussian"}, "cannot be told apart in 32 bits"),
        ({"x": REALS + 1e9}, {"likelihood": "gaussian"}, "subtract their mean"),
        ({"x": COUNTS - 2}, {"likelihood": "poisson"}, "does not go with likelihood poisson"),
        ({"x": COUNTS + 2**24}, {"likelihood": "poisson"}, "whole numbers from 0 to 16777216"),
        ({"x": REALS}, {"likelihood": "discretised_logistic"}, "whole numbers from 0 to 255"),
        ({"x": COUNTS + 255}, {"likelihood": "discretised_logistic"}, "from 0 to 255"),
        ({"x": GREY % 17}, {"likelihood": "bernoulli"}, "reach from 0 towards 255"),
        ({"x": COUNTS + 2**16}, {"likelihood": "categorical"}, "from 0 to 65535"),
        ({"x": GREY}, {"likelihood": "normal"}, "likelihood is 'normal'; it must be one of bern"),
        ({"x": GREY, "labels": np.arange(39)}, {}, "labels of x have shape (39,) instead of (40,)"),
        ({"x": GREY, "labels": REALS[:, 0]}, {}, "neither whole numbers nor text"),
        ({"x": GREY, "mask": GREY}, {}, "must be 1 where a value is there and 0 where none is"),
        ({"x": GREY, "mask": np.ones(40)}, {}, "has shape (40,) instead of (40, 6, 5)"),
    ],
)
def test_mistakes_in_arrays(tmp_path, held, options, says):
    path = npz(tmp_path, **held)
    message = refusal(path, **options)
    assert says in message and ("my.npz" in message or "likelihood" in options)


def test_the_place_of_a_wrong_value_is_the_file_s(tmp_path):
    x = COUNTS.astype(float)
    x[17, 3] = 1.5
    assert "my.npz: x[17, 3] = 1.5 does not go" in refusal(npz(tmp_path, x=x), likelihood="poisson")
    images = np.stack([GREY] * 3, -1).astype(float)
    images[5, 4, 3, 2] = -0.5
    message = refusal(npz(tmp_path, train=GREY[..., None] * np.ones(3), test=images))
    assert "from -0.5 to 255" in message
    path = npz(tmp_path, train=GREY[..., None] * np.ones(3), test=images)
    message = refusal(path, likelihood="discretised_logistic")
    assert "test[5, 4, 3, 2] = -0.5 does not go" in message


def test_arrays_that_are_not_used_are_said(tmp_path, capsys):
    datasets.load(npz(tmp_path, x=GREY, names=np.array(["a"])))
    assert "my.npz: not used: names.npy." in capsys.readouterr().out


def test_pickles_are_never_loaded(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    objects = np.array([Hostile()] * 20, dtype=object)
    np.savez(tmp_path / "o.npz", x=objects, allow_pickle=True)
    np.save(tmp_path / "o.npy", objects, allow_pickle=True)
    (tmp_path / "p.npy").write_bytes(pickle.dumps(Hostile()))
    assert "array of Python objects, which are never loaded" in refusal(str(tmp_path / "o.npz"))
    assert "array of Python objects, which are never loaded" in refusal(str(tmp_path / "o.npy"))
    assert "is not in NumPy's format" in refusal(str(tmp_path / "p.npy"))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", [".npz", ".npy", ".h5", ".h5ad", ""])
def test_what_is_no_file(tmp_path, suffix):
    os.mkfifo(tmp_path / f"fifo{suffix}")
    says = "is a named pipe" if suffix else "ends in none of .npz"
    assert says in refusal(f"{tmp_path}/fifo{suffix}")
    (tmp_path / f"zero{suffix}").symlink_to("/dev/zero")
    says = "a device" if suffix else "ends in none of .npz"
    assert says in refusal(f"{tmp_path}/zero{suffix}")
    says = "No such file" if suffix else "ends in none of .npz"
    assert says in refusal(f"{tmp_path}/absent{suffix}")


def test_without_h5py_its_files_are_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "c.h5").write_bytes(b"")
    path = str(tmp_path / "c.h5")
    assert refusal(path) == f"{path} needs h5py: run pip install h5py"


def test_a_link_that_the_user_names_is_followed(tmp_path):
    npz(tmp_path, x=GREY)
    (tmp_path / "link.npz").symlink_to("my.npz")
    assert datasets.load(str(tmp_path / "link.npz")).name == "link"


def test_more_than_memory_is_refused_before_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "memory_limit", lambda: 1000)
    assert "take 0.0 GB of memory" in refusal(npz(tmp_path, x=GREY))
    np.save(tmp_path / "x.npy", GREY)
    assert "make it smaller" in refusal(str(tmp_path / "x.npy"))


def test_other_ways_of_packing_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", GREY)
    with zipfile.ZipFile(tmp_path / "my.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
    assert "compressed in a way that NumPy does not use" in refusal(str(tmp_path / "my.npz"))
    with pytest.warns(UserWarning), zipfile.ZipFile(tmp_path / "my.npz", "w") as archive:
        archive.write(tmp_path / "x.npy", "x.npy")
        archive.write(tmp_path / "x.npy", "x.npy")
    assert "is there twice" in refusal(str(tmp_path / "my.npz"))
