"""Sets that TFDS has prepared on this machine, read without TensorFlow and without their code."""

import json
import pathlib
import re

import numpy as np

from vamp_jax.datasets import arrays, files
from vamp_jax.datasets.dataset import Found
from vamp_jax.errors import UsageError

_NAME = re.compile(r"[A-Za-z0-9_]+(?:/[A-Za-z0-9_.-]+)?(?::\d+\.\d+\.\d+)?")
_RANDOM_ACCESS = ("array_record", "arrayrecord")
_FEATURES = "tensorflow_datasets.core.features."  # a class of anything else would be imported
_AT_ONCE = 1_000  # examples


def read(name: str, data_dir: str | None) -> Found:
    """The examples and labels of a prepared set.

    Args:
      name: NAME, NAME/CONFIG or either with :VERSION, as in TFDS; by default the newest version.
      data_dir: TFDS's data folder, by default ~/tensorflow_datasets.

    Raises:
      UsageError: it is not prepared there, not as array_record, or has no images or vectors.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"tfds:{files.shown(name)[:80]} is no name of a TFDS set: write tfds:NAME, "
            "tfds:NAME/CONFIG or tfds:NAME:1.2.3"
        )
    folder = _folder(name, pathlib.Path(data_dir or "~/tensorflow_datasets").expanduser())
    where = f"tfds:{name}"
    _check(folder, where)
    from vamp_jax.datasets import builders  # imports TFDS, which takes a while

    try:
        with builders.quiet():
            return _read(folder, where)
    except UsageError:
        raise
    except Exception as error:  # whatever TFDS and array_record stumble over
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise UsageError(f"{where} in {files.shown(folder)} cannot be read ({reason})") from None


def _folder(name: str, root: pathlib.Path) -> pathlib.Path:
    """The folder of the version that is meant."""
    given, (name, _, version) = name, name.partition(":")
    prepared = [path.parent for path in sorted((root / name).rglob("dataset_info.json"))]
    if version:
        prepared = [path for path in prepared if path.name == version]
    if not prepared:
        raise UsageError(
            f"tfds:{given} is not prepared in {files.shown(root)}: prepare it with "
            f"tfds.builder({given!r}, file_format='array_record').download_and_prepare(), "
            "or pass --data_dir=FOLDER"
        )
    configs = sorted({path.parent for path in prepared})
    if len(configs) > 1:
        named = ", ".join(f"tfds:{files.shown(path.relative_to(root))}" for path in configs)
        raise UsageError(f"tfds:{name} is prepared in several ways: name one of {named}")
    return max(prepared, key=lambda path: [int(n) for n in re.findall(r"\d+", path.name)])


def _check(folder: pathlib.Path, where: str) -> None:
    """Refuses what TFDS would need TensorFlow, or somebody else's code, to read."""
    info, features = (
        _json(folder / name, where) for name in ("dataset_info.json", "features.json")
    )
    kind = info.get("fileFormat", "tfrecord")
    if kind not in _RANDOM_ACCESS:
        raise UsageError(
            f"{where} is stored as {str(kind)[:40]}, which cannot be read without TensorFlow: "
            "prepare it with file_format='array_record'"
        )
    for class_name in _class_names(features):
        if not str(class_name).startswith(_FEATURES):
            raise UsageError(
                f"{where} has features of the class {str(class_name)[:80]}, not TFDS's"
            )


def _json(path: pathlib.Path, where: str) -> dict:
    try:
        with files.open_regular(path) as file:
            contents = json.loads(file.read(1 << 20))
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{where}: {files.shown(path)} cannot be read ({error})") from None
    if not isinstance(contents, dict):
        raise UsageError(f"{where}: {files.shown(path)} is damaged")
    return contents


def _class_names(node) -> list:
    """All names of classes in features.json."""
    names, left = [], [node]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            names += [value for key, value in node.items() if key in ("pythonClassName", "type")]
            left += node.values()
        elif isinstance(node, list):
            left += node
    return [name for name in names if isinstance(name, str)]


def _read(folder: pathlib.Path, where: str) -> Found:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    key, label = _chosen(builder.info.features, where)
    splits, labels = {}, {}
    for split in builder.info.splits:
        if role := arrays.role(split):
            splits[role[1]], found = _split(builder, split, key, label, where)
            if label:
                labels[role[1]] = found
    if splits.keys() == {"train"}:
        splits, labels = ({"x": a["train"]} if a else {} for a in (splits, labels))
    if "x" not in splits and not {"train", "test"} <= splits.keys():
        raise UsageError(
            f"{where} has the splits {', '.join(builder.info.splits)[:200]}: a train and a test "
            "split are needed"
        )
    hashes = {f"{where}/{split}": arrays.digest(array) for split, array in splits.items()}
    encoded = isinstance(builder.info.features[key], tfds.features.Image)
    levels = encoded and all(array.dtype == np.uint8 for array in splits.values())
    return Found(where, splits, {}, labels, hashes, grey_levels=levels)


def _chosen(features, where: str) -> tuple[str, str | None]:
    """The features to take: the one of numbers with a shape, and the one that labels it."""
    import tensorflow_datasets as tfds

    labels = [key for key, value in features.items() if isinstance(value, tfds.features.ClassLabel)]
    numbers = [
        key
        for key, value in features.items()
        if isinstance(value, tfds.features.Tensor | tfds.features.Image) and len(value.shape)
    ]
    if "image" in numbers:
        numbers = ["image"]
    if len(numbers) != 1:
        raise UsageError(
            f"{where} has the features {', '.join(features)[:200]}: exactly one image or array "
            "is needed"
        )
    return numbers[0], labels[0] if len(labels) == 1 else None


def _split(builder, split: str, key: str, label: str | None, where: str):
    import tensorflow_datasets as tfds

    unused = {name for name in builder.info.features if name not in (key, label)}
    decoders = {name: tfds.decode.SkipDecoding() for name in unused}
    source = builder.as_data_source(split=split, decoders=decoders)
    parts, labels = [], []
    for start in range(0, len(source), _AT_ONCE):
        examples = source.__getitems__(range(start, min(start + _AT_ONCE, len(source))))
        shapes = {np.shape(example[key]) for example in examples}
        if len(shapes) > 1:
            raise UsageError(f"{where} has examples of several shapes in {split}: {shapes}"[:300])
        parts.append(np.stack([example[key] for example in examples]))
        labels += [example[label] for example in examples] if label else []
        files.check_size(f"{where}, {split},", parts[0][0].nbytes * len(source))
    if len({part.shape[1:] for part in parts}) != 1:
        raise UsageError(f"{where} has no examples, or of several shapes, in {split}")
    return np.concatenate(parts), np.array(labels)
