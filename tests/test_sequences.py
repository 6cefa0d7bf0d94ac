"""Piano rolls and text: what is in them, what ships with the package, and what is refused."""

import hashlib
import os

import numpy as np
import pytest
import scipy.io

from tests.data_files import refusal
from vamp_jax import datasets
from vamp_jax.datasets import readers, sequences
from vamp_jax.errors import UsageError


def steps(split):
    """All real steps of a split, [sum of T, 88]."""
    real = np.arange(split["values"].shape[1]) < split["length"][:, None]
    assert not split["values"][~real].any()  # padded with silence
    return split["values"][real]


# Music


def test_the_chorales_ship_with_the_package(tmp_path):
    data = datasets.load("jsb_chorales", str(tmp_path / "absent"))
    assert data.kind == "sequences" and data.likelihood == "bernoulli" and not data.dynamic
    assert data.shape == (160, 88) and data.max_value == 1
    splits = (data.train, data.validation, data.test)
    assert [datasets.num_examples(split) for split in splits] == [229, 76, 77]
    assert [int(split["length"].sum()) for split in splits] == [13807, 4602, 4725]
    for split in splits:
        assert split["values"].dtype == np.uint8 and split["length"].dtype == np.int32
        assert split["length"].min() >= 25 and split["length"].max() <= 160
        assert set(np.unique(steps(split))) == {0, 1}
    np.testing.assert_allclose(data.pseudo_input_mean, steps(data.train).mean())
    assert not (tmp_path / "absent").exists()


def independent_keys(train, test) -> float:
    """Nats a step of keys that sound independently of all else."""
    share = (steps(train).sum(0) + 0.5) / (len(steps(train)) + 1.0)
    return -np.where(steps(test), np.log(share), np.log1p(-share)).sum(1).mean()


def test_the_chorales_have_the_known_entropy_of_independent_keys():
    data = datasets.load("jsb_chorales")
    np.testing.assert_allclose(independent_keys(data.train, data.test), 11.06, atol=0.02)


@pytest.mark.parametrize(
    "name, file", [("jsb_chorales", "JSB_Chorales.mat"), ("nottingham", "Nottingham.mat")]
)
def test_rolls_are_those_of_the_matlab_files(real_data_dir, name, file):
    path = real_data_dir / name / file
    if not path.is_file():
        pytest.skip(f"no {path}")
    data = datasets.load(name, str(real_data_dir))
    held = scipy.io.loadmat(path)
    for split, key in zip(datasets.SPLITS, ("traindata", "validdata", "testdata"), strict=True):
        ours = getattr(data, split)
        for number, piece in enumerate(held[key][0]):
            assert ours["length"][number] == len(piece)
            np.testing.assert_array_equal(ours["values"][number, : len(piece)], piece)
        assert len(ours["values"]) == number + 1
    if name == "nottingham":
        assert data.shape == (1793, 88)
        np.testing.assert_allclose(independent_keys(data.train, data.test), 10.25, atol=0.02)


def test_packing_loses_nothing(tmp_path):
    rng = np.random.default_rng(0)
    pieces = [
        [rng.integers(0, 2, (t, 88)).astype(np.uint8) for t in lengths]
        for lengths in ((1, 7, 3), (2,), (9, 1))
    ]
    sequences.pack(pieces, tmp_path / "p.npz")
    again = sequences.unpack((tmp_path / "p.npz").read_bytes())
    assert [len(split) for split in again] == [3, 1, 2]
    for one, two in zip(sum(pieces, []), sum(again, []), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("cell", [np.zeros((5, 87)), np.zeros((0, 88)), np.full((5, 88), 2.0), "x"])
def test_cells_that_are_no_rolls(tmp_path, cell):
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = np.zeros((3, 88), np.uint8), cell
    scipy.io.savemat(tmp_path / "m.mat", {"traindata": cells})
    contents = (tmp_path / "m.mat").read_bytes()
    with pytest.raises(UsageError, match=r"no piano roll of 88 keys in traindata\[1\]"):
        readers.mat_rolls(contents, "m.mat", ("traindata",))
    with pytest.raises(UsageError, match="cannot be read as a MATLAB file"):
        readers.mat_rolls(contents, "m.mat", ("testdata",))


def test_another_file_under_the_name(tmp_path):
    (tmp_path / "Nottingham.mat").write_bytes(bytes(371688))
    assert "has SHA-256" in refusal("nottingham", str(tmp_path))
    assert "alone: leave out" in refusal("jsb_chorales", likelihood="poisson")
    assert "image_size is for" in refusal("jsb_chorales", image_size=4)
    assert "jsb_chorales has no NaN" in refusal("jsb_chorales", missing="mask")


# Text

LETTERS = "What's past is prologue; là-bas, ☃ 𝄞.\n" * 40


def test_text_is_cut_into_windows(tmp_path, capsys):
    path = tmp_path / "play.txt"
    path.write_text(LETTERS + "!")
    data = datasets.load(str(path), window=7)
    count = (len(LETTERS) + 1) // 7
    assert data.kind == "sequences" and data.likelihood == "categorical" and data.shape == (7,)
    assert [len(getattr(data, split)) for split in datasets.SPLITS] == [
        count - 2 * (count // 20),
        count // 20,
        count // 20,
    ]
    together = np.concatenate([data.train, data.validation, data.test]).reshape(-1)
    assert "".join(data.alphabet[symbol] for symbol in together) == (LETTERS + "!")[: 7 * count]
    assert list(data.alphabet) == sorted(set(LETTERS + "!")) and data.train.dtype == np.uint8
    assert data.num_classes == len(data.alphabet) and data.name == "play"
    share = 1 / data.num_classes
    assert data.pseudo_input_mean == share
    np.testing.assert_allclose(data.pseudo_input_stddev, np.sqrt(share - share**2))
    assert f"windows of 7 characters, {data.num_classes} different." in capsys.readouterr().out
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert data.file_hashes == {"play.txt": digest}


def test_text_by_another_name_and_with_many_letters(tmp_path):
    letters = "".join(map(chr, range(0x4E00, 0x4E00 + 3000))) * 2
    (tmp_path / "book").write_text("\ufeff" + letters, encoding="utf-8")
    data = datasets.load(f"text:{tmp_path}/book")
    assert data.train.dtype == np.int32 and data.num_classes == 3000 and data.shape == (64,)
    assert data.train[0, 0] == 0 and data.name == "book"  # without the mark at the start


def test_tiny_shakespeare(real_data_dir):
    if not (real_data_dir / "tiny_shakespeare" / "input.txt").is_file():
        pytest.skip("no Tiny Shakespeare")
    data = datasets.load("tiny_shakespeare", str(real_data_dir))
    assert data.num_classes == 65 and data.shape == (64,)
    assert [len(getattr(data, split)) for split in datasets.SPLITS] == [15686, 871, 871]
    first = "".join(data.alphabet[symbol] for symbol in data.train[0])
    assert first.startswith("First Citizen:\nBefore we proceed")
    longer = datasets.load("tiny_shakespeare", str(real_data_dir), window=200)
    assert longer.shape == (200,) and longer.file_hashes == data.file_hashes


@pytest.mark.parametrize(
    "contents, options, says",
    [
        (b"\xff\xfe" + LETTERS.encode(), {}, "is no text in UTF-8: see its byte 0"),
        (LETTERS.encode() + b"\xc3", {}, "see its byte"),
        (LETTERS.encode() + b"\0", {}, "is no text: its character 1,520 is a zero"),
        (b"", {}, "has 0 characters: at least 1,280 are needed for 20 windows of 64"),
        (b"abc" * 100, {}, "has 300 characters"),
        (b"a" * 10_000, {}, "has 1 different characters: is it a text?"),
        (LETTERS.encode(), {"window": 1}, "window is 1; it must be a whole number"),
        (LETTERS.encode(), {"window": -3}, "window is -3"),
        (LETTERS.encode(), {"window": 10**6}, "window is 1000000"),
        (LETTERS.encode(), {"likelihood": "gaussian"}, "for likelihood categorical alone"),
        (LETTERS.encode(), {"image_size": 8}, "image_size is for a folder of pictures"),
    ],
)
def test_what_is_no_text(tmp_path, contents, options, says):
    (tmp_path / "t.txt").write_bytes(contents)
    assert says in refusal(str(tmp_path / "t.txt"), **options)


def test_text_files_that_are_none(tmp_path):
    os.mkfifo(tmp_path / "t.txt")
    assert "is a named pipe" in refusal(str(tmp_path / "t.txt"))
    assert "is a folder" in refusal(f"text:{tmp_path}")
    assert "No such file" in refusal(str(tmp_path / "absent.txt"))
    assert "window is for text" in refusal("digits", window=8)
