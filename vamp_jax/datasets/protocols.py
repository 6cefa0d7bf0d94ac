"""What each data set is: its files, its splits, how pixels become uint8 (the paper's section 5.1).

Plain NumPy, no TFDS: `SPECS[name].prepare(contents, spec)` turns the official files into splits.
"""

import hashlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from vamp_jax.datasets import pickles, readers
from vamp_jax.datasets.dataset import SPLITS
from vamp_jax.datasets.files import Source
from vamp_jax.datasets.resizing import area_averages
from vamp_jax.errors import UsageError

VERSION = "1.0.0"  # of the prepared sets: to be raised whenever a protocol below changes
_HELD_OUT_SEED = 777  # the authors'
_OMNIGLOT_SEED = 123  # Burda's
_OUR_SEED = 0  # of the splits that nobody has fixed before: freyfaces and digits

Splits = dict[str, np.ndarray]  # uint8 [N, H, W, 1] each


class Spec(NamedTuple):
    """A data set. The fields that `Dataset` has too are explained there."""

    sources: tuple[Source, ...]  # empty: `prepare` gets the embedded data
    prepare: Callable[[dict[str, bytes], "Spec"], Splits]
    sizes: tuple[int, int, int]  # of train, validation, test
    shape: tuple[int, int]  # (H, W)
    likelihood: str
    dynamic: bool
    max_value: int
    pseudo_input_mean: float
    pseudo_input_stddev: float


def _splits(train, validation, test) -> Splits:
    arrays = dict(zip(SPLITS, (train, validation, test), strict=True))
    return {split: np.ascontiguousarray(a, np.uint8)[..., None] for split, a in arrays.items()}


def draw_held_out(validation, test, max_value: int) -> list[np.ndarray]:
    """Binarises Bernoulli means once, as the authors do: one stream, validation before test."""
    rng = np.random.RandomState(_HELD_OUT_SEED)
    return [rng.binomial(1, means) * max_value for means in (validation, test)]


def _upright(columns: np.ndarray) -> np.ndarray:
    """[N, H * W] images stored column by column (MATLAB's order) -> [N, H, W]; H = W = 28."""
    return columns.reshape(-1, 28, 28).transpose(0, 2, 1)


def _static_mnist(contents: dict[str, bytes], spec: Spec) -> Splits:
    return _splits(
        *(
            readers.amat(contents[source.name], source.name, size, spec.shape)
            for source, size in zip(spec.sources, spec.sizes, strict=True)
        )
    )


def _dynamic_mnist(contents: dict[str, bytes], spec: Spec) -> Splits:
    num_train, num_validation, num_test = spec.sizes
    first, second = spec.sources
    images = readers.idx_images(
        contents[first.name], first.name, num_train + num_validation, spec.shape
    )
    test = readers.idx_images(contents[second.name], second.name, num_test, spec.shape)
    means = (a.astype(np.float32) / 255 for a in (images[num_train:], test))
    return _splits(images[:num_train], *draw_held_out(*means, spec.max_value))


def _omniglot(contents: dict[str, bytes], spec: Spec) -> Splits:
    """Training means are kept as round(255 p); the held-out sets are drawn from p itself."""
    num_train, num_validation, num_test = spec.sizes
    (source,) = spec.sources
    shapes = {"data": (784, num_train + num_validation), "testdata": (784, num_test)}
    matrices = readers.mat(contents[source.name], source.name, shapes)
    means = {key: _upright(matrix.T.astype(np.float32)) for key, matrix in matrices.items()}
    for key, array in means.items():
        if not (array.min() >= 0 and array.max() <= 1):  # so that NaN is caught as well
            raise UsageError(
                f"{source.name} has pixels outside [0, 1] in {key}: replace it by the official file"
            )
        readers.check_images(array, f"{source.name} ({key})", 1)
    order = np.random.RandomState(_OMNIGLOT_SEED).permutation(num_train + num_validation)
    images = means["data"][order]
    held_out = draw_held_out(images[num_train:], means["testdata"], spec.max_value)
    return _splits(np.rint(255 * images[:num_train]), *held_out)


def _omniglot_originals(contents: dict[str, bytes], spec: Spec) -> Splits:
    """All original drawings, 20 of each character, 105x105, brought to 28x28 by exact averages.

    28 cells of 105 pixels: each covers 3.75 x 3.75 of them, so its mean ink is k / 225 with k a
    whole number. Drawers 1 to 15 of each character are train and validation, 16 to 20 the test set
    (all 24,345 and 8,115 of them). Not Burda's file, which the paper's figures are for: that was
    made smaller in another way, split in another way, and lacks 45 of the drawings.
    """
    num_train, num_validation, num_test = spec.sizes
    small = []
    for source in spec.sources:
        shapes = {"images": (None, 20, 105, 105)}  # of characters and drawers; 1 is paper
        drawings = readers.npz(contents[source.name], source.name, shapes)["images"]
        small += [area_averages(of_character == 0, 28) for of_character in drawings]
    images = np.stack(small)
    first, test = (part.reshape(-1, 28, 28) for part in np.split(images, [15], axis=1))
    if len(test) != num_test or len(first) != num_train + num_validation:
        raise UsageError(f"{len(images)} characters are in the files: replace them by the official")
    first = first[np.random.RandomState(_OMNIGLOT_SEED).permutation(len(first))]
    means = (a / spec.max_value for a in (first[num_train:], test))
    return _splits(first[:num_train], *draw_held_out(*means, spec.max_value))


def _caltech101_silhouettes(contents: dict[str, bytes], spec: Spec) -> Splits:
    (source,) = spec.sources
    keys = ("train_data", "val_data", "test_data")
    shapes = {key: (size, 784) for key, size in zip(keys, spec.sizes, strict=True)}
    matrices = readers.mat(contents[source.name], source.name, shapes)
    for key, matrix in matrices.items():
        if not np.isin(matrix, (0, 1)).all():
            raise UsageError(
                f"{source.name} has pixels other than 0 and 1 in {key}: "
                "replace it by the official file"
            )
    return _splits(*(1 - _upright(matrices[key].astype(np.uint8)) for key in keys))


def _freyfaces(contents: dict[str, bytes], spec: Spec) -> Splits:
    """The authors' shuffle has no seed; ours is RandomState(0).permutation(1965)."""
    (source,) = spec.sources
    data = pickles.loads(contents[source.name], source.name)
    if not isinstance(data, list | tuple) or not data:
        raise UsageError(
            f"{source.name} is not a list with an array of images: replace it by the official file"
        )
    images = readers.pickled_images(data[0], source.name, sum(spec.sizes), spec.shape)
    if images.min() < 0 or images.max() > 255 or (images != np.floor(images)).any():
        raise UsageError(
            f"{source.name} has pixels that are not integers from 0 to 255: "
            "replace it by the official file"
        )
    readers.check_images(images, source.name, 255)
    return _shuffled(images, spec)


def _shuffled(images: np.ndarray, spec: Spec) -> Splits:
    images = images[np.random.RandomState(_OUR_SEED).permutation(len(images))]
    return _splits(*np.split(images, np.cumsum(spec.sizes)[:2]))


def _histopathology(contents: dict[str, bytes], spec: Spec) -> Splits:
    """floor(256 x), so that (v + 0.5)/256 lies in the paper's [1/512, 1 - 1/512]."""
    (source,) = spec.sources
    data = pickles.loads(contents[source.name], source.name)
    arrays = []
    for key, size in zip(("training", "validation", "test"), spec.sizes, strict=True):
        if not isinstance(data, dict) or key not in data:
            raise UsageError(
                f"{source.name} has no list of images named {key}: replace it by the official file"
            )
        images = readers.pickled_images(data[key], source.name, size, spec.shape)
        if images.min() < 0 or images.max() > 1:
            raise UsageError(
                f"{source.name} has pixels outside [0, 1] in {key}: replace it by the official file"
            )
        readers.check_images(images, f"{source.name} ({key})", 1)
        arrays.append(np.clip(np.floor(256 * images.astype(np.float64)), 0, 255))
    return _splits(*arrays)


def _digits(contents: dict[str, bytes], spec: Spec) -> Splits:
    """RandomState(0).permutation(1797) gives the splits; the held-out means are drawn once."""
    images = np.frombuffer(contents["load_digits"], np.uint8).reshape(-1, *spec.shape)
    splits = _shuffled(images, spec)
    means = (splits[split] / spec.max_value for split in ("validation", "test"))
    held_out = draw_held_out(*means, spec.max_value)
    return _splits(splits["train"][..., 0], *(a[..., 0] for a in held_out))


def embedded_contents() -> dict[str, bytes]:
    """scikit-learn's 1,797 digits, one byte a pixel from 0 to 16. Imports scikit-learn."""
    try:
        from sklearn import datasets
    except ImportError as error:
        raise UsageError(
            f"digits needs scikit-learn ({error}): run pip install scikit-learn"
        ) from None
    return {"load_digits": datasets.load_digits().images.astype(np.uint8).tobytes()}


def hashes(contents: dict[str, bytes]) -> dict[str, str]:
    """SHA-256 of each file's (unpacked) contents."""
    return {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}


def _amat_source(part: str, num_images: int, sha256: str) -> Source:
    name = f"binarized_mnist_{part}.amat"
    url = f"http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/{name}"
    size = 2 * 784 * num_images
    return Source(name, (url,), size, size, sha256)


def _mnist_source(name: str, num_images: int, sha256: str) -> Source:
    mirrors = (
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "https://ossci-datasets.s3.amazonaws.com/mnist",
    )
    size = 16 + 784 * num_images
    return Source(name, tuple(f"{mirror}/{name}.gz" for mirror in mirrors), size, size, sha256)


def _originals_source(part: str, size: int, sha256: str) -> Source:
    name = f"images_{part}.npz"
    commit = "9514cfd6780ed78e96a4d88bae8c85f3ee31359e"
    url = f"https://github.com/bitsandscraps/omniglot/raw/{commit}/{name}"
    return Source(name, (url,), size, size, sha256)


SPECS = {
    "static_mnist": Spec(
        sources=(
            _amat_source(
                "train", 50000, "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d"
            ),
            _amat_source(
                "valid", 10000, "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2"
            ),
            _amat_source(
                "test", 10000, "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c"
            ),
        ),
        prepare=_static_mnist,
        sizes=(50000, 10000, 10000),
        shape=(28, 28),
        likelihood="bernoulli",
        dynamic=False,
        max_value=1,
        pseudo_input_mean=0.05,
        pseudo_input_stddev=0.01,
    ),
    "dynamic_mnist": Spec(
        sources=(
            _mnist_source(
                "train-images-idx3-ubyte",
                60000,
                "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            _mnist_source(
                "t10k-images-idx3-ubyte",
                10000,
                "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
        ),
        prepare=_dynamic_mnist,
        sizes=(50000, 10000, 10000),
        shape=(28, 28),
        likelihood="bernoulli",
        dynamic=True,
        max_value=255,
        pseudo_input_mean=0.05,
        pseudo_input_stddev=0.01,
    ),
    "omniglot": Spec(
        sources=(
            Source(
                "chardata.mat",
                ("https://github.com/yburda/iwae/raw/master/datasets/OMNIGLOT/chardata.mat",),
                max_bytes=256 << 20,
            ),
        ),
        prepare=_omniglot,
        sizes=(23000, 1345, 8070),
        shape=(28, 28),
        likelihood="bernoulli",
        dynamic=True,
        max_value=255,
        pseudo_input_mean=0.05,
        pseudo_input_stddev=0.01,
    ),
    "omniglot_originals": Spec(
        sources=(
            _originals_source(
                "background",
                3340794,
                "8bf84167413cd00beacdce3fe582f780ab538d8dbef043a6d688f2527bbce199",
            ),
            _originals_source(
                "evaluation",
                2415269,
                "0b84c7ffd94c4841c0040e529c86a82eaaccb986d8eadad5673f7991b7475276",
            ),
        ),
        prepare=_omniglot_originals,
        sizes=(23000, 1345, 8115),
        shape=(28, 28),
        likelihood="bernoulli",
        dynamic=True,
        max_value=225,
        pseudo_input_mean=0.05,
        pseudo_input_stddev=0.01,
    ),
    "caltech101_silhouettes": Spec(
        sources=(
            Source(
                "caltech101_silhouettes_28_split1.mat",
                ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",),
                max_bytes=872124,
                size=872124,
                sha256="eb6735e8d84b1850fabc5590124aab1755e90c9fd28123585324398405e1e42a",
            ),
        ),
        prepare=_caltech101_silhouettes,
        sizes=(4100, 2264, 2307),
        shape=(28, 28),
        likelihood="bernoulli",
        dynamic=False,
        max_value=1,
        pseudo_input_mean=0.5,
        pseudo_input_stddev=0.02,
    ),
    # The same faces circulate in several pickle protocols: the hash is recorded, not required.
    "freyfaces": Spec(
        sources=(
            Source(
                "freyfaces.pkl",
                (
                    "https://github.com/y0ast/Variational-Autoencoder/raw/master/freyfaces.pkl",
                    "https://github.com/jmtomczak/vae_vampprior/raw/master/"
                    "datasets/Freyfaces/freyfaces.pkl",
                ),
                max_bytes=32 << 20,
            ),
        ),
        prepare=_freyfaces,
        sizes=(1565, 200, 200),
        shape=(28, 20),
        likelihood="discretised_logistic",
        dynamic=False,
        max_value=255,
        pseudo_input_mean=0.5,
        pseudo_input_stddev=0.02,
    ),
    "histopathology": Spec(
        sources=(
            Source(
                "histopathology.pkl",
                (
                    "https://github.com/jmtomczak/vae_householder_flow/raw/master/"
                    "datasets/histopathologyGray/histopathology.pkl",
                ),
                max_bytes=256 << 20,
            ),
        ),
        prepare=_histopathology,
        sizes=(6800, 2000, 2000),
        shape=(28, 28),
        likelihood="discretised_logistic",
        dynamic=False,
        max_value=255,
        pseudo_input_mean=0.4,
        pseudo_input_stddev=0.05,
    ),
    "digits": Spec(
        sources=(),
        prepare=_digits,
        sizes=(1000, 300, 497),
        shape=(8, 8),
        likelihood="bernoulli",
        dynamic=True,
        max_value=16,
        pseudo_input_mean=0.3,
        pseudo_input_stddev=0.05,
    ),
}
