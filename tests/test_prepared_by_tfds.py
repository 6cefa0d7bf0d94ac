"""tfds:NAME: sets that TFDS has prepared, read without TensorFlow and their own code."""

import io
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from tests.data_files import refusal
from vamp_jax import datasets
from vamp_jax.datasets import builders

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PICTURES = np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)


class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """PNGs with labels and texts, as most image sets of TFDS."""

    name = "pictures"
    VERSION = tfds.core.Version("1.2.0")

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(6, 5, 3)),
            "label": tfds.features.ClassLabel(num_classes=3),
            "text": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(0, 20), "test": self._generate_examples(20, 30)}

    def _generate_examples(self, start, stop):
        for index in range(start, stop):
            file = io.BytesIO()
            Image.fromarray(PICTURES[index]).save(file, "PNG")
            file.seek(0)
            yield index, {"image": file, "label": index % 3, "text": "x"}


class Arrays(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    name = "arrays"
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("one", "two")]

    def _info(self):
        shape = (4,) if self.builder_config.name == "one" else (None,)
        features = {"x": tfds.features.Tensor(shape=shape, dtype=np.float32)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for index in range(20):
            size = 4 if self.builder_config.name == "one" else 1 + index
            yield index, {"x": np.full(size, index, np.float32)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    config = tfds.download.DownloadConfig(
        try_download_gcs=False, compute_stats=tfds.download.ComputeStatsMode.SKIP
    )
    with builders.quiet():
        for builder in (
            Pictures(data_dir=folder, file_format="array_record"),
            *(
                Arrays(data_dir=folder, config=c, file_format="array_record")
                for c in ("one", "two")
            ),
        ):
            builder.download_and_prepare(download_config=config)
    return folder


def test_pictures_with_labels(folder, capfd):
    data = datasets.load("tfds:pictures", str(folder))
    assert data.likelihood == "discretised_logistic" and data.shape == (6, 5, 3)
    assert [len(getattr(data, split)) for split in datasets.SPLITS] == [18, 2, 10]
    held = {image.tobytes(): index for index, image in enumerate(PICTURES)}
    for split in datasets.SPLITS:
        index = [held[image.tobytes()] for image in getattr(data, split)]
        np.testing.assert_array_equal(data.labels[split], np.array(index) % 3)
        assert (min(index) >= 20) == (split == "test")
    said = capfd.readouterr()
    assert said.err == "" and said.out.count("\n") == 2
    again = datasets.load("tfds:pictures:1.2.0", str(folder))
    assert list(again.file_hashes.values()) == list(data.file_hashes.values())


def test_vectors_of_one_split(folder):
    data = datasets.load("tfds:arrays/one", str(folder), likelihood="poisson")
    assert data.kind == "vectors" and len(data.train) == 16 and data.name == "tfds_arrays_one"
    together = np.concatenate([data.train, data.validation, data.test])
    assert sorted(together[:, 0]) == list(range(20))


def test_neither_tensorflow_nor_the_set_s_code_is_needed(folder):
    code = (
        "import sys; from vamp_jax import datasets; datasets.load('tfds:pictures', sys.argv[1]); "
        "print('tensorflow' in sys.modules, 'tests' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(folder)]
    options = {"cwd": REPOSITORY, "capture_output": True, "text": True, "check": True}
    output = subprocess.run(command, **options).stdout
    assert output.splitlines()[-1] == "False False"


def test_mistakes(folder):
    assert "tfds:mnist is not prepared in" in refusal("tfds:mnist", folder)
    assert "file_format='array_record'" in refusal("tfds:mnist", folder)
    assert "tfds:pictures:9.9.9 is not prepared" in refusal("tfds:pictures:9.9.9", folder)
    assert "name one of tfds:arrays/one, tfds:arrays/two" in refusal("tfds:arrays", folder)
    assert "several shapes" in refusal("tfds:arrays/two", folder)
    assert "image_size is for a folder" in refusal("tfds:pictures", folder, image_size=4)
    for name in ("tfds:", "tfds:../x", "tfds:/etc", "tfds:a b", "tfds:a\nb", "tfds:x/../../y"):
        assert "is no name of a TFDS set" in refusal(name, folder)


def test_another_s_code_is_not_imported_and_tensorflow_s_formats_are_refused(folder, tmp_path):
    shutil.copytree(folder / "pictures", tmp_path / "pictures")
    home = tmp_path / "pictures" / "1.2.0"
    features = json.loads((home / "features.json").read_text())
    features["featuresDict"]["features"]["text"]["pythonClassName"] = "antigravity.Feature"
    (home / "features.json").write_text(json.dumps(features))
    assert "features of the class antigravity.Feature" in refusal("tfds:pictures", tmp_path)
    assert "antigravity" not in sys.modules
    info = json.loads((home / "dataset_info.json").read_text())
    for text, says in (
        (json.dumps(info | {"fileFormat": "tfrecord"}), "is stored as tfrecord, which cannot"),
        ("[" * 100_000, "cannot be read"),
        ("[]", "is damaged"),
        ("", "cannot be read"),
    ):
        (home / "dataset_info.json").write_text(text)
        assert says in refusal("tfds:pictures", tmp_path)


def test_a_damaged_set_is_a_sentence(folder, tmp_path):
    for pattern in ("*train*", "*.json"):
        for path in (folder / "pictures" / "1.2.0").glob(pattern):
            place = tmp_path / pattern.strip("*.") / path.name
            shutil.copytree(folder / "pictures", place / "pictures")
            copy = place / "pictures" / "1.2.0" / path.name
            copy.write_bytes(copy.read_bytes()[: copy.stat().st_size // 2])
            assert "tfds:pictures" in refusal("tfds:pictures", place)
