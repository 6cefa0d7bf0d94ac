"""For tests of data: small files, and what `datasets.load` says of wrong ones."""

import pickle

import numpy as np
import pytest
import scipy.io
from PIL import Image

from vamp_jax import datasets
from vamp_jax.datasets import protocols
from vamp_jax.errors import UsageError

# An upright capital F: no symmetry maps it to itself.
GLYPH = np.zeros((28, 28))
GLYPH[4:24, 6:9] = GLYPH[4:7, 6:20] = GLYPH[12:15, 6:16] = 1


def npz(folder, name="my.npz", **held) -> str:
    np.savez_compressed(folder / name, **held)
    return str(folder / name)


def picture(path, array, **options) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)


def refusal(name, *arguments, **options) -> str:
    """The one sentence with which a data set is refused."""
    with pytest.raises(UsageError) as caught:
        datasets.load(str(name), *map(str, arguments), **options)
    message = str(caught.value)
    assert message.isprintable() and len(message) < 900  # so there is no second line, either
    return message


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
