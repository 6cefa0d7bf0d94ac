"""A trained model as a file: `vamp_jax.load` and `vamp_jax.export`.

A model file is one .npz of plain arrays (no pickle): the parameters by their path, and a JSON text
of the config and of what the data looked like. Loading one needs neither the data nor a checkpoint.
It may come from anywhere: names, types and shapes are checked before arrays are read.
"""

import importlib.resources
import json
import math
import os
import pathlib
import tempfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vamp_jax import choices, config_checks, config_fields, disk
from vamp_jax.autoencoder import Autoencoder
from vamp_jax.bucket import is_address
from vamp_jax.datasets import npy_files
from vamp_jax.datasets.inputs import DataSpec, Inputs
from vamp_jax.errors import UsageError, first_line
from vamp_jax.run.folder import ABSENT, differing
from vamp_jax.run.mirror import fetch_file
from vamp_jax.trainable_priors import Start
from vamp_jax.trained import Trained

FORMAT = 1
MODEL_FILE = "model.npz"  # in a run's folder


def load(path: str) -> Trained:
    """Loads a trained model: a finished run's folder, a model file, or one that ships: 'digits'.

    Either may lie in a bucket: gs://BUCKET/RUN, gs://BUCKET/FILE.npz.

    'digits' is the VAE with the VampPrior of configs/vamp_vae.py on scikit-learn's digits (seed 0),
    with 40 latent units and `he` weights.

    Raises:
      UsageError: when there is none, or it cannot be read.
    """
    _check_path("load", path)
    if is_address(path):
        inside = path if path.endswith(".npz") else f"{path.rstrip('/')}/{MODEL_FILE}"
        with tempfile.TemporaryDirectory() as folder:
            return _read(fetch_file(inside, folder))
    shipped = importlib.resources.files("vamp_jax") / "shipped" / f"{path}.npz"
    if not os.path.exists(path) and shipped.is_file():
        with importlib.resources.as_file(shipped) as file:
            return _read(str(file))
    if os.path.isdir(path):
        path = os.path.join(path, MODEL_FILE)
        if not os.path.exists(path):
            raise UsageError(
                f"{path} is missing: train.py and eval.py write it when they evaluate a run."
            )
    return _read(path)


def export(model: Trained, path: str) -> None:
    """Writes a model as one .npz of plain arrays, whole or not at all.

    Raises:
      UsageError: where there is no such folder, or no file can be; for what is no trained model.
    """
    if not isinstance(model, Trained):
        raise UsageError(
            f"export: the model is {model!r:.80} and no trained one: pass what vamp_jax.load gives."
        )
    _check_path("export", path)
    folder = os.path.dirname(path) or "."
    if not is_address(path) and not os.path.isdir(folder):  # a bucket has no folders
        raise UsageError(f"{path} cannot be written: there is no folder {folder}; make it first.")
    if not is_address(path) and os.path.isdir(path):
        inside = os.path.join(path, MODEL_FILE)
        raise UsageError(f"{path} cannot be written: it is a folder; name a file, as {inside}.")
    with disk.whole_file(path, "wb") as file:
        np.savez_compressed(file, **to_arrays(model))


def _check_path(name: str, path: Any) -> None:
    """Raises a UsageError for what is no path."""
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise UsageError(
            f"{name}: the path is {path!r:.80}; it must name a place, as text or a Path."
        )


def to_arrays(model: Trained) -> dict[str, np.ndarray]:
    """A model as plain arrays: the parameters by their path, and `about`, the letters of a JSON."""
    leaves = jax.tree_util.tree_leaves_with_path(model.variables)
    arrays = {_name(where): np.asarray(leaf) for where, leaf in leaves}
    about = {"format": FORMAT, "config": model.config, "spec": model.spec._asdict()}
    text = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    return {"about": text, **arrays}


def _read(path: str) -> Trained:
    """The model of a file from anywhere: the right arrays, or a sentence."""

    def read(wanted):
        try:
            return npy_files.read_npz(pathlib.Path(path), wanted, path)
        except OSError as error:
            raise UsageError(f"{path} cannot be read: {error.strerror or error}.") from None

    return _model(path, read)


def of_arrays(path: str, arrays: dict[str, np.ndarray]) -> Trained:
    """The model of `to_arrays`; `path` is what messages call it."""

    def read(wanted):
        chosen = {name: array for name, array in arrays.items() if wanted(name)}
        return chosen, [f"{name}.npy" for name in arrays if name not in chosen]

    return _model(path, read)


def _model(path: str, read: Callable) -> Trained:
    """The model of arrays, whose names and shapes are checked before they are read.

    Args:
      path: what messages call it.
      read: (name -> whether it is wanted) -> the arrays, and the file names of the others.
    """
    arrays, others = read(lambda name: name == "about")
    try:
        about = json.loads(arrays["about"].tobytes())
        config = ml_collections.ConfigDict(config_fields.as_of_today(about["config"]))
        spec = DataSpec(**about["spec"] | {"shape": tuple(about["spec"]["shape"])})
        version = about["format"]
    except Exception:  # whatever a damaged text holds
        raise UsageError(f"{path} cannot be read: it is not a model file.") from None
    if version != FORMAT:
        raise UsageError(f"{path} has format {version}; this version reads format {FORMAT}.")
    config_checks.check(config)
    try:
        _check_spec(spec)
        autoencoder = choices.autoencoder(config, spec)
        wanted, treedef = _wanted_arrays(autoencoder, choices.inputs(config, spec), spec)
        _check_same("its arrays", dict.fromkeys(others), {f"{name}.npy": None for name in wanted})
        arrays, _ = read(lambda name: name in wanted)
        by_data = spec.kind == "sequences" or autoencoder.prior.of_all_examples
        checked = [name for name in wanted if not (by_data and "/pseudo_inputs" in name)]
        _check_same("its array", _shapes(arrays, checked), _shapes(wanted, checked))
        leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
        variables = jax.tree.unflatten(treedef, leaves)
        jax.eval_shape(autoencoder.prior_density, variables)
    except UsageError:
        raise
    except Exception as error:  # of a spec that no data set has, in whatever builds on it
        raise UsageError(f"{path} is damaged: {first_line(error)}.") from None
    return Trained(config.to_dict(), spec, autoencoder, variables)


def _check_spec(spec: DataSpec) -> None:
    """Raises a ValueError for what no data set looks like."""
    whole = (*spec.shape, spec.max_value, *([spec.num_classes] if spec.num_classes else []))
    if not 1 <= len(spec.shape) <= 3 or not all(type(n) is int and n > 0 for n in whole):
        raise ValueError(f"its data have shape {spec.shape}, levels up to {spec.max_value}")
    if spec.likelihood not in choices.LIKELIHOODS:
        raise ValueError(f"its data are for likelihood {spec.likelihood!r:.80}")
    if spec.kind not in ("images", "vectors", "sequences"):
        raise ValueError(f"its data are of kind {spec.kind!r:.80}")
    if type(spec.dynamic) is not bool or type(spec.missing) is not bool:
        raise ValueError("dynamic and missing must be true or false")
    size = spec.library_size
    if size is not None and not (type(size) is float and 0.0 < size < math.inf):
        raise ValueError(f"the library size of its data is {size!r:.80}")
    if not math.isfinite(spec.pseudo_input_mean):
        raise ValueError(f"the mean of its data is {spec.pseudo_input_mean}")


def _wanted_arrays(
    autoencoder: Autoencoder, inputs: Inputs, spec: DataSpec
) -> tuple[dict[str, Any], Any]:
    """A model's arrays by their paths, as types and shapes, and the tree that they make."""

    def x(count):
        values = jnp.zeros((count, *spec.shape))
        whole = {"values": values, "length": jnp.ones(count, jnp.int32)}
        return inputs.of(whole if spec.kind == "sequences" else values)

    start = Start(
        latent_dim=math.prod(autoencoder.network.latent_shapes[autoencoder.top]),
        x_shape=tuple(spec.shape),
        mean=0.0,
        stddev=1.0,
        examples=lambda count: inputs.likelihood.relaxed(x(count)),
        num_examples=1,
    )

    def init():
        network = autoencoder.network.init(jax.random.key(0), x(1))
        params, constants = autoencoder.prior.init(jax.random.key(0), start)
        return {
            "params": {"model": network["params"], "prior": params},
            "batch_stats": network.get("batch_stats", {}),
            "constants": constants,
        }

    leaves, treedef = jax.tree_util.tree_flatten_with_path(jax.eval_shape(init))
    return {_name(where): leaf for where, leaf in leaves}, treedef


def _shapes(arrays: dict[str, Any], names: list[str]) -> dict[str, str]:
    """Types and shapes of these arrays."""
    return {name: f"{arrays[name].dtype}{list(arrays[name].shape)}" for name in names}


def _check_same(what: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises a ValueError for the first name that is elsewhere alone, or something else there."""
    if names := differing(found, wanted):
        name = names[0]
        there, here = (values.get(name, ABSENT) for values in (found, wanted))
        raise ValueError(
            f"{what} {name[:80]!r} is {there or 'there'} and should be {here or 'there'}"
        )


def _name(where: Any) -> str:
    return "/".join(str(key.key) for key in where)
