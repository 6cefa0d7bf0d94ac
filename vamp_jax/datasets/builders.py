"""TFDS builders that need no TensorFlow: uint8 images, stored as array_record in source order.

They are not registered by name: TFDS has an `omniglot` of its own.
"""

import contextlib
import io
import pathlib

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

from vamp_jax.datasets import arrays, files, protocols
from vamp_jax.datasets.dataset import SPLITS
from vamp_jax.errors import UsageError


class _LocalInfo(tfds.core.DatasetInfo):
    def initialize_from_bucket(self) -> None:
        """Does nothing; TFDS would look in its bucket and leave an empty temporary folder."""


class ImageBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Base class; a subclass names its data set, whose protocol stands in `protocols.SPECS`.

    Args:
      data_dir: TFDS's data folder.
      paths: source name -> file; by default they are looked for in `data_dir` and downloaded.
    """

    VERSION = tfds.core.Version(protocols.VERSION)

    def __init__(self, *, paths: dict[str, pathlib.Path] | None = None, **kwargs):
        self._paths = paths
        super().__init__(**{"file_format": "array_record", **kwargs})

    def _info(self) -> tfds.core.DatasetInfo:
        shape = (*protocols.SPECS[self.name].shape, 1)
        image = tfds.features.Tensor(shape=shape, dtype=np.uint8, encoding="bytes")
        return _LocalInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict({"image": image}),
            disable_shuffling=True,  # or TFDS would order the examples by a hash of their keys
            metadata=tfds.core.MetadataDict(),
        )

    def _split_generators(self, dl_manager):
        del dl_manager  # see files.py
        spec = protocols.SPECS[self.name]
        signatures = {}
        paths = {}
        if spec.sources:
            root = pathlib.Path(self.data_dir).parents[1]
            paths = self._paths or files.obtain(
                self.name, spec.sources, [root], root / "downloads" / "manual"
            )
            # Signatures first: a file that changes while it is read will not match later.
            signatures = {name: files.signature(path) for name, path in paths.items()}
            contents = {
                source.name: files.read(source, paths[source.name]) for source in spec.sources
            }
        else:
            contents = protocols.embedded_contents()
        try:
            splits = spec.prepare(contents, spec)
        except UsageError as error:
            places = ", ".join(sorted({str(path.parent) for path in paths.values()}))
            raise UsageError(f"in {places}: {error}") from None
        self.info.metadata["sha256"] = protocols.hashes(contents)
        self.info.metadata["signatures"] = signatures
        self.info.metadata["contents"] = {
            split: arrays.digest(images) for split, images in splits.items()
        }
        return {split: self._generate_examples(images) for split, images in splits.items()}

    def _generate_examples(self, images):
        for index, image in enumerate(images):
            yield index, {"image": image}


class StaticMnist(ImageBuilder, skip_registration=True):
    """MNIST in Larochelle and Murray's fixed binarisation."""

    name = "static_mnist"


class DynamicMnist(ImageBuilder, skip_registration=True):
    """MNIST's grey levels as Bernoulli means; validation and test drawn once, the authors' draw."""

    name = "dynamic_mnist"


class Omniglot(ImageBuilder, skip_registration=True):
    """Burda's 28x28 OMNIGLOT as Bernoulli means, round(255 p); validation and test drawn once."""

    name = "omniglot"


class OmniglotOriginals(ImageBuilder, skip_registration=True):
    """All original drawings of OMNIGLOT by exact area averages, v / 225; not Burda's images."""

    name = "omniglot_originals"


class Caltech101Silhouettes(ImageBuilder, skip_registration=True):
    """Marlin's 28x28 silhouettes, inverted: 1 - x."""

    name = "caltech101_silhouettes"


class Freyfaces(ImageBuilder, skip_registration=True):
    """Brendan Frey's face, 28x20, 8-bit grey."""

    name = "freyfaces"


class Histopathology(ImageBuilder, skip_registration=True):
    """28x28 grey patches of histopathology images, floor(256 x)."""

    name = "histopathology"


class Digits(ImageBuilder, skip_registration=True):
    """scikit-learn's 8x8 digits as Bernoulli means, v / 16; validation and test drawn once."""

    name = "digits"


BUILDERS = {
    builder.name: builder
    for builder in (
        StaticMnist,
        DynamicMnist,
        Omniglot,
        OmniglotOriginals,
        Caltech101Silhouettes,
        Freyfaces,
        Histopathology,
        Digits,
    )
}


@contextlib.contextmanager
def quiet():
    """No TFDS chatter: it prints, logs and draws progress bars for sets that take seconds."""
    tfds.disable_progress_bar()
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)


def prepare(name: str, data_dir: pathlib.Path, paths: dict[str, pathlib.Path]) -> None:
    """Writes the data set to `data_dir`/name/VERSION, without any look at the cloud."""
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    with quiet():
        BUILDERS[name](data_dir=data_dir, paths=paths).download_and_prepare(download_config=config)


def read(name: str, data_dir: pathlib.Path) -> tuple[protocols.Splits, dict]:
    """The splits in source order, and the metadata: 'sha256' and 'signatures' of the sources, and
    'contents', the digests of the splits (absent from sets that older code has prepared)."""
    splits = {}
    with quiet():
        builder = BUILDERS[name](data_dir=data_dir)
        for split in SPLITS:
            source = builder.as_data_source(split=split)
            examples = source.__getitems__(range(len(source)))
            splits[split] = np.stack([example["image"] for example in examples])
    return splits, dict(builder.info.metadata)
