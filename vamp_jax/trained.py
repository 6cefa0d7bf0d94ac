"""A trained model in Python: `vamp_jax.load`, what can be asked of it, and `vamp_jax.export`.

A model file is one .npz of plain arrays (no pickle): the parameters by their path, and a JSON text
of the config and of what the data looked like. Loading one needs neither the data nor a checkpoint.
"""

import dataclasses
import functools
import importlib.resources
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vamp_jax import choices, config_checks, config_fields, disk, generation, likelihoods, priors
from vamp_jax import log_likelihood as estimates
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.batches import in_batches
from vamp_jax.datasets import npy_files
from vamp_jax.datasets.inputs import DataSpec, Inputs
from vamp_jax.errors import UsageError, first_line
from vamp_jax.posteriors import Normal
from vamp_jax.random_streams import EVALUATION, latent_noise, stream
from vamp_jax.run.folder import ABSENT, differing
from vamp_jax.sequences import check_examples, is_sequences, num_examples, values_of
from vamp_jax.trainable_priors import Start

Array = jax.Array

ROWS = 500  # examples at a time
FORMAT = 1
MODEL_FILE = "model.npz"  # in a run's folder


class LogLikelihood(NamedTuple):
    """What an importance-sampled estimate tells of each example, [N] each, in nats."""

    log_likelihood: np.ndarray
    elbo: np.ndarray
    effective_sample_size: np.ndarray  # from 1 to the number of samples


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model. x is data as you have it, z an array [N, D] or a dict of them by layer.

    x is [N, *shape]: zeros and ones for binary data, whole numbers for grey levels (0 to 255) and
    counts, floats for real values; sequences are a dictionary of values and lengths (sequences.py).
    It is checked and scaled inside. Every method takes any number of examples, goes through them in
    batches, and compiles once a shape.
    """

    config: dict[str, Any]
    spec: DataSpec
    autoencoder: Autoencoder
    variables: Variables

    @functools.cached_property
    def prior(self) -> Any:
        """p(z) of the top layer, a density with `log_prob(z)` and `sample(rng, num_samples)`."""
        return jax.jit(self.autoencoder.prior_density)(self.variables)

    def pseudo_inputs(self) -> Any:
        """The prior's pseudo-inputs as the encoder sees them, [K, *shape].

        Raises:
          ValueError: where the prior has none.
        """
        found = self.autoencoder.pseudo_inputs(self.variables)
        if found is None:
            raise ValueError(
                f"pseudo_inputs: the prior of this model, {self.config['prior']!r}, has none."
            )
        return jax.tree.map(np.asarray, found)

    def encode(self, x: Any) -> Normal:
        """q(z|x) of the top layer, before any flow: mean and log-variance, [N, D] each."""
        return self._batches(_encoded, self._x("encode", x))

    def decode(self, z: Any) -> Any:
        """The mean of p(x|z), [N, *shape]; a draw where the decoder is autoregressive."""
        return self._batches(_decoded, self._latents("decode", z))

    def reconstruct(self, x: Any, seed: int = 0) -> Any:
        """x through the model and back, with one draw of z each: [N, *shape]."""
        x, rng = self._x("reconstruct", x), stream(seed, EVALUATION)

        def reconstruct(model, variables, x):
            return generation.reconstruct(model, variables, rng, x)

        return self._batches(reconstruct, x)

    def sample(self, rng: Array, num_samples: int, component: int | None = None) -> Any:
        """Generates x [num_samples, *shape], z from the prior or from one of its components."""
        if component is None:
            made = generation.generate(self.autoencoder, self.variables, rng, num_samples)
            return jax.tree.map(np.asarray, made)
        if not hasattr(self.prior, "component_means"):
            raise ValueError(f"sample: component is {component}; this prior has no components.")
        count = len(self.prior.component_means())
        if not 0 <= component < count:
            raise ValueError(f"sample: component is {component}; this prior has {count}, from 0.")
        make = generation.generate_from_pseudo_input
        made = make(self.autoencoder, self.variables, rng, component, num_samples)
        return jax.tree.map(np.asarray, made)

    def impute(self, x: Any, seed: int = 0) -> np.ndarray:
        """x with its missing values (NaN) filled in by a reconstruction: [N, *shape]."""
        if is_sequences(x):
            raise ValueError("impute: sequences have no missing values.")
        x = np.asarray(x)
        made = self.reconstruct(x, seed)
        return np.where(np.isnan(x), made, x)

    def log_likelihood(
        self, x: Any, num_samples: int = 1000, seed: int = 0, index: Any = None
    ) -> LogLikelihood:
        """ln p(x) of each example by importance sampling, on all devices; for anomaly detection.

        Args:
          x: N examples.
          num_samples: draws of z for each.
          seed, index: an example's draws are a function of the seed and its number in index, [N];
            None: 0 to N - 1.
        """
        found = estimates.estimate(
            self.autoencoder,
            self.variables,
            self._x("log_likelihood", x),
            num_samples=num_samples,
            rng=stream(seed, EVALUATION),
            index=index,
        )
        return LogLikelihood(found.log_likelihood, found.elbo, found.effective_sample_size)

    def log_prob_given(self, x: Any, z: Any) -> np.ndarray:
        """ln p(x|z) of each pair, [N], in nats."""
        x, latents = self._x("log_prob_given", x), self._latents("log_prob_given", z)
        count = num_examples(x)
        if count != len(next(iter(latents.values()))):
            raise ValueError(f"log_prob_given: {count} examples do not pair with the rows of z.")
        return self._batches(_log_prob_given, x, latents)

    def responsibilities(self, x: Any) -> np.ndarray:
        """p(k | z) of each component at the mean of q(z|x): [N, K]."""
        means = self.encode(x).mean
        of_rows = functools.partial(priors.responsibilities, prior=self.prior)
        return in_batches(of_rows, (means,), min(ROWS, len(means)))

    def _batches(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """Applies function(autoencoder, variables, rows) to all rows, a batch at a time."""
        count = len(jax.tree.leaves(arrays)[0])
        of_rows = functools.partial(function, self.autoencoder, self.variables)
        return in_batches(of_rows, arrays, min(ROWS, count))

    def _x(self, name: str, x: Any) -> Any:
        """x as the network sees it."""
        x = jax.tree.map(np.asarray, x) if is_sequences(x) else np.asarray(x)
        check_examples(name, x, tuple(self.spec.shape))
        likelihood = self.autoencoder.likelihood
        x = jax.tree.map(np.asarray, likelihood.from_stored(jax.tree.map(jnp.asarray, x), 1.0))
        low, high = likelihood.support
        smallest, largest = (
            (np.min, np.max) if self.autoencoder.fill is None else (np.nanmin, np.nanmax)
        )
        values = values_of(x)
        if not (smallest(values) >= low and largest(values) <= high):
            raise ValueError(
                f"{name}: x must lie in [{low:g}, {high:g}] after scaling for {likelihood.name}, "
                f"but goes from {smallest(values):g} to {largest(values):g}."
            )
        return x

    def _latents(self, name: str, z: Any) -> dict[str, Array]:
        layers = self.autoencoder.network.latent_shapes
        z = z if isinstance(z, dict) else {self.autoencoder.top: z}
        found = {layer: np.asarray(part) for layer, part in z.items()}
        shapes = {layer: part.shape[1:] for layer, part in found.items()}
        if shapes != dict(layers) or len({len(part) for part in found.values()}) != 1:
            raise ValueError(
                f"{name}: z must be {_wanted(layers)} with one N, but has shapes "
                f"{ {layer: part.shape for layer, part in found.items()} }."
            )
        return found

    def latents(self, x: Any, seed: int = 0) -> dict[str, np.ndarray]:
        """One draw of the latents of each layer from q(z|x), [N, *shape] each."""
        x = self._x("latents", x)
        rng = stream(seed, EVALUATION)

        def draw(model, variables, x, index):
            return _drawn(model, variables, rng, x, index)

        return self._batches(draw, x, np.arange(num_examples(x)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as plain arrays: the functions in a model cannot be."""
        return _of_arrays, ("the pickled model", _to_arrays(self))


# Functions of (autoencoder, variables, ...), each compiled once a model and shape.
_compiled = functools.partial(jax.jit, static_argnums=0)


@_compiled
def _encoded(model: Autoencoder, variables: Variables, x: Array) -> Normal:
    return model.encode(variables, x).top.base


@_compiled
def _decoded(model: Autoencoder, variables: Variables, latents: dict[str, Array]) -> Any:
    rng = jax.random.key(0)  # of what is drawn value by value
    return generation.decoded(model, variables, rng, latents)


@_compiled
def _log_prob_given(
    model: Autoencoder, variables: Variables, x: Any, latents: dict[str, Array]
) -> Array:
    heads, _ = model.decode(variables, latents, x)
    return likelihoods.log_prob(model.likelihood, x, heads, 1)


@_compiled
def _drawn(
    model: Autoencoder, variables: Variables, rng: Array, x: Any, index: Array
) -> dict[str, Array]:
    noise = latent_noise(rng, index, model.network.latent_shapes)
    return model.draw(variables, model.encode(variables, x), noise).latents


def _wanted(layers: dict[str, tuple[int, ...]]) -> str:
    shown = {layer: f"[N, {', '.join(map(str, shape))}]" for layer, shape in layers.items()}
    if len(shown) == 1:
        return f"an array {next(iter(shown.values()))}"
    return "a dict " + ", ".join(f"{layer}: {shape}" for layer, shape in shown.items())


# ---------------------------------------------------------------------------------------------
# Files.


def load(path: str) -> Trained:
    """Loads a trained model: a finished run's folder, a model file, or one that ships: 'digits'.

    'digits' is the VAE with the VampPrior of configs/vamp_vae.py on scikit-learn's digits (seed 0).

    Raises:
      UsageError: when there is none, or it cannot be read.
    """
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
    """Writes a model as one .npz of plain arrays, whole or not at all."""
    with disk.whole_file(path, "wb") as file:
        np.savez_compressed(file, **_to_arrays(model))


def _to_arrays(model: Trained) -> dict[str, np.ndarray]:
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


def _of_arrays(path: str, arrays: dict[str, np.ndarray]) -> Trained:
    """The model of `_to_arrays`; `path` is what messages call it."""

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
        _check_same("its array", _shapes_of_network(arrays), _shapes_of_network(wanted))
        leaves = [jnp.asarray(arrays[name], leaf.dtype) for name, leaf in wanted.items()]
        variables = jax.tree.unflatten(treedef, leaves)
        jax.eval_shape(autoencoder.prior_density, variables)  # its shapes depend on the data, too
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


def _shapes_of_network(arrays: dict[str, Any]) -> dict[str, str]:
    """Types and shapes of all arrays but the prior's."""
    return {
        name: f"{array.dtype}{list(array.shape)}"
        for name, array in arrays.items()
        if name.startswith(("params/model", "batch_stats"))
    }


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


def from_best(config: ml_collections.ConfigDict, dataset: Any, best: Any) -> Trained:
    """Makes a `Trained` of a run's best parameters (training/best.py)."""
    return Trained(config.to_dict(), DataSpec.of(dataset), best.autoencoder, best.variables)
