"""A trained model in Python: what can be asked of what `vamp_jax.load` returns."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vamp_jax import generation, given, likelihoods, priors
from vamp_jax import log_likelihood as estimates
from vamp_jax.autoencoder import Autoencoder, Variables, compiled_prior
from vamp_jax.batches import in_batches
from vamp_jax.datasets.inputs import DataSpec
from vamp_jax.datasets.values import fractional
from vamp_jax.posteriors import Normal
from vamp_jax.random_streams import EVALUATION, stream
from vamp_jax.sequences import check_examples, is_sequences, num_examples, values_of

Array = jax.Array

ROWS = 500  # examples at a time


class LogLikelihood(NamedTuple):
    """What an importance-sampled estimate tells of each example, [N] each, in nats."""

    log_likelihood: np.ndarray
    elbo: np.ndarray
    effective_sample_size: np.ndarray  # from 1 to the number of samples


@dataclasses.dataclass(frozen=True)
class Trained:
    """A trained model. x is data as you have it, z an array [N, D] or a dict of them by layer.

    x is [N, *shape]: zeros and ones for binary data (or the chance of a 1, where it was trained on
    chances: ln p(x|z) is then its mean over draws of x), whole numbers for grey levels (0 to 255)
    and counts, floats for real values, but 8-bit images as they are; sequences are a dictionary of
    values and lengths (sequences.py). It is checked and scaled inside. What is decoded,
    reconstructed or sampled stays on the network's scale: there grey levels v are (v + 0.5) / 256,
    and 8-bit images as real values v / 255.

    Every method takes any number of examples, goes through them in batches, and compiles once a
    shape.
    """

    config: dict[str, Any]
    spec: DataSpec
    autoencoder: Autoencoder
    variables: Variables

    @functools.cached_property
    def prior(self) -> Any:
        """p(z) of the top layer, a density with `log_prob(z)` and `sample(rng, num_samples)`."""
        return compiled_prior(self.autoencoder, self.variables)

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
        latents = self._latents("decode", z)
        count = len(next(iter(latents.values())))
        return self._batches(_decoded, latents, np.arange(count))

    def reconstruct(self, x: Any, seed: int = 0) -> Any:
        """x through the model and back, with one draw of z each: [N, *shape]."""
        x, rng = self._x("reconstruct", x), _key("reconstruct", seed)

        def reconstruct(model, variables, x, index):
            return generation.reconstruct(model, variables, rng, x, index)

        return self._batches(reconstruct, x, np.arange(num_examples(x)))

    def sample(self, rng: Array, num_samples: int, component: int | None = None) -> Any:
        """Generates x [num_samples, *shape], z from the prior or from one of its components."""
        _check_key("sample", rng)
        num_samples = given.whole("sample", "num_samples", num_samples, 1)
        if component is None:
            made = generation.generate(self.autoencoder, self.variables, rng, num_samples)
            return jax.tree.map(np.asarray, made)
        if not hasattr(self.prior, "component_means"):
            raise ValueError(f"sample: component is {component}; this prior has no components.")
        count = len(self.prior.component_means())
        whole = isinstance(component, int | np.integer) and not isinstance(component, bool)
        if not whole or not 0 <= component < count:
            raise ValueError(f"sample: component is {component}; this prior has {count}, from 0.")
        make = generation.generate_from_pseudo_input
        made = make(self.autoencoder, self.variables, rng, component, num_samples)
        return jax.tree.map(np.asarray, made)

    def impute(self, x: Any, seed: int = 0) -> np.ndarray:
        """x with its missing values (NaN) filled in by a reconstruction, as x is: [N, *shape]."""
        if is_sequences(x):
            raise ValueError("impute: sequences have no missing values.")
        x = np.asarray(x)
        likelihood = self.autoencoder.likelihood
        made = likelihood.fill(self._x("impute", x), jnp.asarray(self.reconstruct(x, seed)))
        made = likelihood.to_stored(made, self._scale)
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
            rng=_key("log_likelihood", seed),
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
        """p(k | z) of each component at the mean of q(z|x), after any flow: [N, K]."""
        centres = self._batches(_centre, self._x("responsibilities", x))
        of_rows = functools.partial(priors.responsibilities, prior=self.prior)
        return in_batches(of_rows, (centres,), min(ROWS, len(centres)))

    def _batches(self, function: Callable[..., Any], *arrays: Any) -> Any:
        """Applies function(autoencoder, variables, rows) to all rows, a batch at a time."""
        count = len(jax.tree.leaves(arrays)[0])
        of_rows = functools.partial(function, self.autoencoder, self.variables)
        return in_batches(of_rows, arrays, min(ROWS, count))

    @property
    def _scale(self) -> float:
        """The value of x, as people have it, that the network sees as 1.0."""
        return 1.0 if self.autoencoder.likelihood.whole else self.spec.max_value

    def _x(self, name: str, x: Any) -> Any:
        """x as the network sees it."""
        x = self._checked(name, x)
        stored = jax.tree.map(jnp.asarray, x)
        x = jax.tree.map(np.asarray, self.autoencoder.likelihood.from_stored(stored, self._scale))
        low, high = self.autoencoder.likelihood.support
        smallest, largest = given.extremes(values_of(x))
        if smallest < low or largest > high:
            raise ValueError(
                f"{name}: x must lie in [{low:g}, {high:g}] after scaling for "
                f"{self.autoencoder.likelihood.name}, but goes from {smallest:g} to {largest:g}."
            )
        return x

    def _checked(self, name: str, x: Any) -> Any:
        """x as it is given, as arrays of finite numbers (or NaN, for missing values)."""
        if is_sequences(x):
            if self.spec.kind != "sequences":
                raise ValueError(f"{name}: x is a dictionary, but this model is of no sequences.")
            x = {part: given.numbers(name, f"x[{part!r}]", array) for part, array in x.items()}
        else:
            x = given.numbers(name, "x", x)
        check_examples(name, x, tuple(self.spec.shape))
        if is_sequences(x) and np.any(which := fractional(x["length"])):
            raise ValueError(
                f"{name}: lengths must be whole numbers of steps, but one is "
                f"{x['length'][which][0]:g}."
            )
        values, likelihood = values_of(x), self.autoencoder.likelihood
        given.check_finite(name, "x", values, missing=self.autoencoder.fill is not None)
        if likelihood.whole and not self.spec.dynamic and np.any(which := fractional(values)):
            raise ValueError(
                f"{name}: x must be whole numbers for {likelihood.name}, as the model's data are, "
                f"but has {values[which][0]:g}."
            )
        return x

    def _latents(self, name: str, z: Any) -> dict[str, Array]:
        layers = self.autoencoder.network.latent_shapes
        z = z if isinstance(z, dict) else {self.autoencoder.top: z}
        found = {layer: given.numbers(name, "z", part) for layer, part in z.items()}
        shapes = {layer: part.shape[1:] for layer, part in found.items()}
        if shapes != dict(layers) or len({len(part) for part in found.values()}) != 1:
            raise ValueError(
                f"{name}: z must be {_wanted(layers)} with one N, but has shapes "
                f"{ {layer: part.shape for layer, part in found.items()} }."
            )
        if not len(next(iter(found.values()))):
            raise ValueError(f"{name}: z has no example, N = 0: give one at least.")
        for part in found.values():
            given.check_finite(name, "z", part)
        return {layer: part.astype(np.float32, copy=False) for layer, part in found.items()}

    def latents(self, x: Any, seed: int = 0) -> dict[str, np.ndarray]:
        """One draw of the latents of each layer from q(z|x), [N, *shape] each."""
        x, rng = self._x("latents", x), _key("latents", seed)

        def draw(model, variables, x, index):
            return generation.draw_latents(model, variables, rng, x, index)

        return self._batches(draw, x, np.arange(num_examples(x)))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copied and pickled as plain arrays: the functions in a model cannot be."""
        from vamp_jax import model_file  # which needs this module

        return model_file.of_arrays, ("the pickled model", model_file.to_arrays(self))


# Functions of (autoencoder, variables, ...), each compiled once a model and shape.
_compiled = functools.partial(jax.jit, static_argnums=0)


@_compiled
def _encoded(model: Autoencoder, variables: Variables, x: Array) -> Normal:
    return model.encode(variables, x).top.base


@_compiled
def _centre(model: Autoencoder, variables: Variables, x: Any) -> Array:
    return model.top_centre(variables, x)


@_compiled
def _decoded(
    model: Autoencoder, variables: Variables, latents: dict[str, Array], index: Array
) -> Any:
    rng = jax.random.fold_in(jax.random.key(0), index[0])  # of what is drawn value by value
    return generation.decoded(model, variables, rng, latents)


@_compiled
def _log_prob_given(
    model: Autoencoder, variables: Variables, x: Any, latents: dict[str, Array]
) -> Array:
    heads, _ = model.decode(variables, latents, x)
    return likelihoods.log_prob(model.likelihood, x, heads, 1)


def _key(name: str, seed: int) -> Array:
    """The key of what is drawn; JAX would wrap a seed beyond 32 bits."""
    return stream(given.whole(name, "seed", seed, 0, 2**32), EVALUATION)


def _check_key(name: str, rng: Any) -> None:
    """Raises a ValueError for what is no key of JAX."""
    dtype, ndim = getattr(rng, "dtype", None), getattr(rng, "ndim", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and ndim == 0
    if not typed and not (dtype == np.uint32 and ndim == 1):  # as jax.random.PRNGKey has it
        raise ValueError(f"{name}: rng is {rng!r:.80}; it must be a key, as jax.random.key(0).")


def _wanted(layers: dict[str, tuple[int, ...]]) -> str:
    shown = {layer: f"[N, {', '.join(map(str, shape))}]" for layer, shape in layers.items()}
    if len(shown) == 1:
        return f"an array {next(iter(shown.values()))}"
    return "a dict " + ", ".join(f"{layer}: {shape}" for layer, shape in shown.items())


def from_best(config: ml_collections.ConfigDict, dataset: Any, best: Any) -> Trained:
    """Makes a `Trained` of a run's best parameters (training/best.py)."""
    return Trained(config.to_dict(), DataSpec.of(dataset), best.autoencoder, best.variables)
