"""Counts in HDF5: X and Y, AnnData's files dense and sparse, and what is refused."""

import hypothesis
import numpy as np
import pytest
import scipy.sparse
from hypothesis import given
from hypothesis import strategies as st

from tests.data_files import refusal
from tests.hostile import FUZZ, bounded_memory, damaged  # noqa: F401 - a fixture of every test
from vamp_jax import datasets
from vamp_jax.errors import UsageError

h5py = pytest.importorskip("h5py")

COUNTS = np.random.default_rng(0).poisson(0.3, (30, 8))


def h5(path, **held):
    with h5py.File(path, "w") as file:
        for name, value in held.items():
            file.create_dataset(name, data=value, compression="gzip" if np.ndim(value) else None)
    return str(path)


def h5ad(path, form="csr", categories=True):
    """AnnData's layout, by hand."""
    with h5py.File(path, "w") as file:
        file.attrs["encoding-type"] = "anndata"
        if form == "dense":
            file.create_dataset("X", data=COUNTS.astype(np.float32))
        else:
            kind = {"csr": scipy.sparse.csr_matrix, "csc": scipy.sparse.csc_matrix}[form]
            matrix, group = kind(COUNTS.astype(np.float32)), file.create_group("X")
            group.attrs["encoding-type"], group.attrs["shape"] = f"{form}_matrix", COUNTS.shape
            for part in ("data", "indices", "indptr"):
                group.create_dataset(part, data=getattr(matrix, part), compression="gzip")
        obs = file.create_group("obs")
        names = ["neuron", "glia", "muscle"]
        if categories:
            column = obs.create_group("cell_type")
            column.attrs["encoding-type"] = "categorical"
            column.create_dataset("codes", data=np.arange(30, dtype=np.int8) % 4 - 1)
            column.create_dataset("categories", data=names, dtype=h5py.string_dtype())
        else:
            values = [names[index % 3] for index in range(30)]
            obs.create_dataset("cell_type", data=values, dtype=h5py.string_dtype())
    return str(path)


def test_x_and_y(tmp_path):
    path = h5(tmp_path / "c.h5", X=COUNTS.astype(float), Y=np.arange(30.0))
    data = datasets.load(path, likelihood="negative_binomial")
    assert data.train.dtype == np.uint8 and data.kind == "vectors" and data.name == "c"
    for split in datasets.SPLITS:
        np.testing.assert_array_equal(getattr(data, split), COUNTS[data.labels[split]])
    assert "negative_binomial (counts that" in refusal(path)


def test_names_of_splits(tmp_path):
    path = h5(tmp_path / "c.hdf5", train=COUNTS, test=COUNTS[:5], validation=COUNTS[5:9])
    data = datasets.load(path, likelihood="poisson")
    np.testing.assert_array_equal(data.train, COUNTS)
    np.testing.assert_array_equal(data.validation, COUNTS[5:9])


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
@pytest.mark.parametrize("categories", [True, False])
def test_anndata(tmp_path, form, categories):
    data = datasets.load(h5ad(tmp_path / "c.h5ad", form, categories), likelihood="poisson")
    order = np.random.RandomState(0).permutation(30)
    together = np.concatenate([data.train, data.validation, data.test])
    np.testing.assert_array_equal(together, COUNTS[order])
    labels = np.concatenate([data.labels[split] for split in datasets.SPLITS])
    names = ["", "neuron", "glia", "muscle"] if categories else ["neuron", "glia", "muscle"]
    assert list(labels) == [names[index % len(names)] for index in order]


def test_files_of_anndata_itself(tmp_path):
    anndata = pytest.importorskip("anndata")
    for form in (np.array, scipy.sparse.csr_matrix, scipy.sparse.csc_matrix):
        cells = anndata.AnnData(form(COUNTS.astype(np.float32)))
        cells.obs["cell_type"] = [f"kind {index % 3}" for index in range(30)]
        cells.write_h5ad(tmp_path / "c.h5ad")
        data = datasets.load(str(tmp_path / "c.h5ad"), likelihood="poisson")
        np.testing.assert_array_equal(
            np.concatenate([data.train, data.validation, data.test]),
            COUNTS[np.random.RandomState(0).permutation(30)],
        )
        assert set(data.labels["train"]) == {"kind 0", "kind 1", "kind 2"}


def test_a_file_that_takes_for_ever_is_a_sentence(tmp_path, monkeypatch):
    """Some damaged files make the HDF5 library loop; it runs in a process that can be ended."""
    path = h5(tmp_path / "c.h5", X=COUNTS)
    monkeypatch.setattr("vamp_jax.datasets.hdf5._SECONDS", 0.001)
    assert refusal(path).startswith(f"{path} cannot be read (no end of it in 0 s)")


def test_what_lies_elsewhere_is_not_read(tmp_path):
    h5(tmp_path / "other.h5", X=COUNTS)
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(240)))
    for suffix in ("h5", "h5ad"):
        path = tmp_path / f"c.{suffix}"
        with h5py.File(path, "w") as file:
            file["X"] = h5py.ExternalLink("other.h5", "/X")
        assert "X is a link" in refusal(path)
        with h5py.File(path, "w") as file:
            file["Z"] = COUNTS
            file["X"] = h5py.SoftLink("/Z")
        assert "X is a link" in refusal(path)
        with h5py.File(path, "w") as file:
            file.create_dataset("X", (30, 8), np.uint8, external=[(str(secret), 0, 240)])
        assert "X lies in another file" in refusal(path)
        layout = h5py.VirtualLayout((30, 8), np.int64)
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "X", (30, 8))
        with h5py.File(path, "w") as file:
            file.create_virtual_dataset("X", layout)
        assert "X lies in another file" in refusal(path)


def test_promises_are_refused_before_memory_is_taken(tmp_path):
    with h5py.File(tmp_path / "c.h5", "w") as file:  # never written: takes no room in the file
        file.create_dataset("X", (1 << 20, 1 << 20), np.float64, chunks=(64, 64))
    assert "make it smaller" in refusal(tmp_path / "c.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        chunks = (1 << 14, 1 << 15)  # a part of 4 GB that holds an array of 240 numbers
        file.create_dataset("X", (30, 8), np.float64, maxshape=(None, None), chunks=chunks)
    assert "make it smaller" in refusal(tmp_path / "c.h5")
    path = h5ad(tmp_path / "c.h5ad")
    with h5py.File(path, "a") as file:
        file["X"].attrs["shape"] = (30, 1 << 40)
    assert "make it smaller" in refusal(path)


@pytest.mark.parametrize(
    "spoil, says",
    [
        (lambda f: f["X"].attrs.__setitem__("shape", (30, 2)), "its indices do not fit its shape"),
        (lambda f: f["X"].attrs.__setitem__("shape", (29, 8)), "its indices do not fit its shape"),
        (lambda f: f["X"]["indices"].__setitem__(0, -1), "its indices do not fit its shape"),
        (lambda f: f["X"]["indptr"].__setitem__(3, 500), "its indices do not fit its shape"),
        (lambda f: f["X"].attrs.__setitem__("encoding-type", "coo"), "no sparse matrix"),
        (lambda f: f["X"].attrs.__delitem__("shape"), "no sparse matrix"),
        (lambda f: f["X"].__delitem__("data"), "data is not there"),
        (lambda f: f.__delitem__("X"), "there is no X in it"),
        (lambda f: f["obs/cell_type/codes"].__setitem__(0, 7), "do not fit its categories"),
        (lambda f: f["obs/cell_type"].attrs.__delitem__("encoding-type"), "an unknown kind"),
    ],
)
def test_damaged_anndata(tmp_path, spoil, says):
    path = h5ad(tmp_path / "c.h5ad")
    with h5py.File(path, "a") as file:
        spoil(file)
    assert says in refusal(path, likelihood="poisson")


@pytest.mark.parametrize(
    "held, says",
    [
        ({"X": [["a"] * 3] * 20}, "X has texts in shape"),
        ({"X": COUNTS + 1j}, "X holds complex128 and not numbers"),
        ({"X": h5py.Empty("f4")}, "X is empty"),
        ({"Z": COUNTS}, "holds Z: name its arrays"),
        ({"X": COUNTS, "Y": np.array(["x" * 2000] * 30, "S")}, "more than 1000 letters"),
    ],
)
def test_other_things_in_x(tmp_path, held, says):
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for name, value in held.items():
            file.create_dataset(name, data=value)
    assert says in refusal(tmp_path / "c.h5")


def test_a_group_for_an_array(tmp_path):
    h5ad(tmp_path / "c.h5")
    assert "X is a group and not an array" in refusal(tmp_path / "c.h5")


@pytest.mark.parametrize("kind", ["h5", "h5ad"])
@hypothesis.settings(FUZZ, max_examples=8)  # each of them starts a process
@given(data=st.data())
def test_damaged_bytes(kind, tmp_path_factory, data):
    """Right shape, or a sentence."""
    folder = tmp_path_factory.mktemp("fuzz")
    path = folder / f"c.{kind}"
    h5(path, X=COUNTS, Y=np.arange(30)) if kind == "h5" else h5ad(path)
    path.write_bytes(data.draw(damaged([path.read_bytes()])))
    try:
        loaded = datasets.load(str(path), likelihood="gaussian")
    except UsageError as error:
        assert str(error).isprintable()
    else:
        assert loaded.train.dtype == np.float32 and np.isfinite(loaded.train).all()
