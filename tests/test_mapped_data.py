"""A folder of .npy files is the data set of a .npz, left in its files; mistakes are sentences."""

import os

import numpy as np
import pytest

from vamp_jax import datasets
from vamp_jax.datasets import mapped
from vamp_jax.errors import UsageError

KINDS = {
    "bernoulli": lambda rng, n: rng.randint(0, 2, (n, 6, 6)).astype(np.uint8),
    "discretised_logistic": lambda rng, n: rng.randint(0, 256, (n, 6, 6, 3)).astype(np.uint8),
    "gaussian": lambda rng, n: rng.normal(size=(n, 5)).astype(np.float32),
    "poisson": lambda rng, n: rng.poisson(3.0, (n, 5)).astype(np.uint8),
}


def arrays_of(likelihood):
    rng = np.random.RandomState(0)
    return {
        name: KINDS[likelihood](rng, n)
        for name, n in (("train", 40), ("validation", 12), ("test", 15))
    }


def save(folder, arrays):
    folder.mkdir(exist_ok=True)
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return str(folder)


@pytest.mark.parametrize("likelihood", KINDS)
def test_it_is_the_same_data_set_and_stays_in_its_files(tmp_path, likelihood, monkeypatch):
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 100)  # many blocks
    arrays = arrays_of(likelihood)
    np.savez(tmp_path / "big.npz", **arrays)
    left = datasets.load(save(tmp_path / "big", arrays), likelihood=likelihood)
    read = datasets.load(str(tmp_path / "big.npz"), likelihood=likelihood)
    for split in datasets.SPLITS:
        assert isinstance(getattr(left, split), np.memmap)
        np.testing.assert_array_equal(getattr(left, split), getattr(read, split))
    np.testing.assert_array_equal(left.pseudo_input_mean, read.pseudo_input_mean)
    np.testing.assert_array_equal(left.pseudo_input_stddev, read.pseudo_input_stddev)
    assert sorted(left.file_hashes.values()) == sorted(read.file_hashes.values())
    assert (left.max_value, left.likelihood, left.shape) == (read.max_value, likelihood, read.shape)


def test_rows_are_those_of_an_array_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(mapped, "SCATTERED", 7)
    array = arrays_of("gaussian")["train"]
    np.save(tmp_path / "a.npy", array)
    left, index = np.load(tmp_path / "a.npy", mmap_mode="r"), np.arange(60).reshape(3, 4, 5) % 40
    for one in (array, left):
        np.testing.assert_array_equal(mapped.rows(one, index), array[index])
    few = datasets.at_most(left, 6)
    np.testing.assert_array_equal(few, array[[0, 6, 13, 20, 26, 33]])
    assert datasets.at_most(left, 40) is left


def test_labels_come_along(tmp_path):
    labels = {f"labels_{name}": np.arange(len(a)) for name, a in arrays_of("gaussian").items()}
    folder = save(tmp_path / "big", arrays_of("gaussian") | labels)
    assert list(datasets.load(folder, likelihood="gaussian").labels["test"]) == list(range(15))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: a.pop("validation"), "has no validation.npy: arrays that stay in their files"),
        (lambda a: a.update(test=a["test"] > 0), "test.npy cannot stay in its file: write numbers"),
        (lambda a: a.update(train=np.asfortranarray(a["train"])), "cannot stay in its file"),
        (lambda a: a.update(test=a["test"].astype(">f4")), r'array.dtype.newbyteorder\("="\)'),
        (lambda a: a.update(test=a["test"][:0]), r"test.npy has shape \(0, 5\), and so no exam"),
        (
            lambda a: a["train"].__setitem__((33, 2), np.nan),
            r"train\[33, 2\] = nan is not",
        ),
        (lambda a: a["test"].__setitem__((3, 2), np.inf), r"test\[3, 2\] = inf is infinite"),
        (lambda a: a.update(test=a["test"][:, :3]), "examples of several shapes"),
    ],
)
def test_a_mistake_is_a_sentence(tmp_path, monkeypatch, change, says):
    monkeypatch.setattr(mapped, "BLOCK_BYTES", 100)
    arrays = arrays_of("gaussian")
    change(arrays)
    with pytest.raises(UsageError, match=says):
        datasets.load(save(tmp_path / "big", arrays), likelihood="gaussian")


def test_a_file_that_is_cut_off_is_a_sentence(tmp_path):
    folder = save(tmp_path / "big", arrays_of("gaussian"))
    path = tmp_path / "big" / "train.npy"
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UsageError, match="the file is damaged"):
        datasets.load(folder, likelihood="gaussian")


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.unlink(),
    ],
)
def test_a_file_that_changes_while_a_run_reads_it_is_a_sentence(tmp_path, change):
    data = datasets.load(save(tmp_path / "big", arrays_of("gaussian")), likelihood="gaussian")
    before = mapped.as_they_are(data.train[:10])  # a view
    assert list(before) == [str(tmp_path / "big" / "train.npy")]
    mapped.check_unchanged(before)
    change(tmp_path / "big" / "train.npy")
    with pytest.raises(UsageError, match="train.npy was changed, moved or removed while"):
        mapped.check_unchanged(before)
    assert mapped.as_they_are({"values": np.zeros(3)}) == {}
