"""The importance-sampled log-likelihood (section 5) of many examples, without doing work twice.

    ln p(x) ~= logsumexp_s [ ln p(x|z_s) + ln p(z_s) - ln q(z_s|x) ] - ln S,   z_s ~ q(z|x)

Every example is encoded once and the prior's components are built once; the samples come in chunks
with a running logsumexp, so memory does not grow with S. The noise of a sample is a function of
(seed, example, sample): the result does not depend on chunks, batches or devices.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import given, lengths
from vamp_jax.autoencoder import Autoencoder, Terms, Variables, compiled_prior
from vamp_jax.batches import in_dispatches
from vamp_jax.network import Network
from vamp_jax.parallel import over_devices
from vamp_jax.random_streams import example_keys, noise_of_samples
from vamp_jax.sequences import check_examples, num_examples, values_of

Array = jax.Array
Values = np.ndarray | Array  # on a device while computed, NumPy's when returned

FEWER_SAMPLES = (1, 10, 100, 1000, 5000)


class ImportanceSampled(NamedTuple):
    """The estimates from S samples of each example, [N] each, in nats."""

    log_likelihood: Values
    with_fewer_samples: dict[int, Values]  # the estimate from the first 1, 10, 100, ... of S
    reconstruction: Values  # mean over the samples of ln p(x|z)
    kl: dict[str, Values]  # mean over the samples of ln q - ln p, each stochastic layer
    effective_sample_size: Values  # (sum w)^2 / sum w^2, from 1 to S

    @property
    def elbo(self) -> Values:
        """The ELBO with S draws of z for each example."""
        return self.reconstruction - sum(self.kl.values())


def estimate(
    autoencoder: Autoencoder,
    variables: Variables,
    x: Any,
    *,
    num_samples: int,
    rng: Array,
    index: np.ndarray | None = None,
    examples_per_batch: int = 10,
    rows_per_chunk: int = 1000,
    batches_per_dispatch: int = 10,
    done: ImportanceSampled | None = None,
    report: Callable[[ImportanceSampled], None] = lambda done: None,
) -> ImportanceSampled:
    """Estimates ln p(x) of each example with `num_samples` draws from its posterior.

    Args:
      autoencoder, variables: the network with its prior.
      x: [N, ...] or sequences, in the likelihood's support.
      num_samples: S.
      rng: key of the noise.
      index: of each example in its data set, [N]; seeds its noise. None: 0 to N.
      examples_per_batch: examples side by side in a chunk of samples.
      rows_per_chunk: examples times samples in a chunk; about 1,000 is best on CPU.
      batches_per_dispatch: batches on each device between two calls of `report`.
      done: the last report of an interrupted call with the same arguments, to resume after it.
      report: gets the results of all examples done so far, after each dispatch.
    Raises:
      ValueError: without an example or a sample, or for shapes or values that do not fit.
    """
    x = jax.tree.map(functools.partial(given.numbers, "estimate", "x"), x)
    check_examples("estimate", x, autoencoder.network.x_shape)
    count = num_examples(x)
    index = np.arange(count) if index is None else np.asarray(index)
    _check(
        autoencoder,
        x,
        index,
        num_samples=num_samples,
        examples_per_batch=examples_per_batch,
        rows_per_chunk=rows_per_chunk,
        batches_per_dispatch=batches_per_dispatch,
    )
    devices = jax.local_device_count()
    examples_per_batch = min(examples_per_batch, -(-count // devices))
    most = -(-count // (devices * examples_per_batch))
    of_batches = num_samples, examples_per_batch, rows_per_chunk
    where = tuple(jax.local_devices())
    compiled = _compiled_over_batches(autoencoder, *of_batches, where, lengths.cuts(x))
    prior = compiled_prior(autoencoder, variables)
    shape = (devices, min(batches_per_dispatch, most), examples_per_batch)
    result = in_dispatches(
        lambda arrays: compiled(variables, prior, *arrays, rng), (x, index), shape, done, report
    )
    return cast(ImportanceSampled, result)


def over_batches(
    autoencoder: Autoencoder,
    num_samples: int,
    examples_per_batch: int,
    rows_per_chunk: int,
    on: Sequence[jax.Device],  # of several hosts, one evaluates
    cuts: tuple[int, ...],  # lengths of sequences (lengths.py)
) -> Callable[..., ImportanceSampled]:
    """Returns `on_device` over devices: of variables, prior, x and index [devices, ...], key."""
    chunk = max(1, min(num_samples, rows_per_chunk // examples_per_batch))
    run = functools.partial(on_device, autoencoder, num_samples=num_samples, chunk=chunk, cuts=cuts)
    return over_devices(run, in_axes=(None, None, 0, 0, None), on=on)


# So that the next call with the same model and sizes does not compile again.
_compiled_over_batches = functools.lru_cache(maxsize=8)(over_batches)


def batch_sizes(network: Network, platform: str) -> dict[str, int]:
    """Batch sizes for `estimate` on a platform ("cpu", "gpu", "tpu"), chosen for speed.

    By convolutions on a CPU, few rows stay in its cache (1.4 times as fast), and ten images are a
    minute: more would show no progress.
    """
    if not network.convolutional:
        return {"rows_per_chunk": 1000, "batches_per_dispatch": 10}
    rows = 20 if platform == "cpu" else 1000
    return {"rows_per_chunk": rows, "batches_per_dispatch": 1}


def _check(autoencoder: Autoencoder, x, index, **counts: int) -> None:
    """Raises a ValueError for arguments that `estimate` does not take."""
    for name, count in counts.items():
        given.whole("estimate", name, count, 1)
    values = values_of(x)
    low, high = autoencoder.likelihood.support
    # NaN is a missing value where the likelihood knows of them, and elsewhere a mistake.
    given.check_finite("estimate", "x", values, missing=autoencoder.fill is not None)
    smallest, largest = given.extremes(values)
    if smallest < low or largest > high:
        raise ValueError(
            f"estimate: x must be in [{low:g}, {high:g}], but goes from {smallest} to {largest}."
        )
    if index.shape != values.shape[:1]:
        raise ValueError(
            f"estimate: index must be [{len(values)}], one for each example, not {index.shape}."
        )
    if index.dtype.kind not in "iu":
        raise ValueError(f"estimate: index holds {index.dtype}; its numbers must be whole.")
    if np.any(which := (index < 0) | (index >= 2**32)):  # JAX would wrap them
        raise ValueError(
            f"estimate: index has {index[which][0]}; its numbers must be from 0 to {2**32 - 1}."
        )


def on_device(
    autoencoder: Autoencoder,
    variables: Variables,
    prior: Any,
    x: Any,
    index: Array,
    rng: Array,
    *,
    num_samples: int,
    chunk: int,
    cuts: tuple[int, ...] = (),
) -> ImportanceSampled:
    """`estimate` on a device: x [batches, B, ...], index [batches, B] -> [batches, B]."""
    one_batch = functools.partial(
        _one_batch, autoencoder, variables, prior, rng, num_samples=num_samples, chunk=chunk
    )
    return jax.lax.map(
        lambda batch: lengths.cut(functools.partial(one_batch, batch[1]), batch[0], cuts),
        (x, index),
    )


def _one_batch(
    autoencoder: Autoencoder,
    variables: Variables,
    prior: Any,
    rng: Array,
    index: Array,
    x: Any,
    *,
    num_samples: int,
    chunk: int,
) -> ImportanceSampled:
    encoded = autoencoder.encode(variables, x)
    keys = example_keys(rng, index)

    sizes = [size for size in FEWER_SAMPLES if size < num_samples] + [num_samples]

    def one_chunk(carry, start):
        sample = start + jnp.arange(chunk)
        # The last chunk may reach beyond S.
        counted = {size: (sample < size)[:, None] for size in sizes}
        noise = noise_of_samples(keys, sample, autoencoder.network.latent_shapes)
        terms, _ = autoencoder.terms(variables, prior, encoded, noise)
        log_weight = terms.elbo()
        weights, sums = carry
        weights = {
            size: _with_more(weights[size], jnp.where(chosen, log_weight, -jnp.inf))
            for size, chosen in counted.items()
        }
        sums = jax.tree.map(
            lambda total, term: total + jnp.sum(jnp.where(counted[num_samples], term, 0.0), axis=0),
            sums,
            terms,
        )
        return (weights, sums), None

    zero = jnp.zeros(len(index))
    nothing = _Weights(jnp.full_like(zero, -jnp.inf), zero, zero)
    start = (
        dict.fromkeys(sizes, nothing),
        Terms(zero, dict.fromkeys(autoencoder.layers, zero)),
    )
    (weights, sums), _ = jax.lax.scan(one_chunk, start, jnp.arange(0, num_samples, chunk))
    estimates: dict[int, Values] = {
        size: _finite(of_size.largest) + jnp.log(of_size.total) - math.log(size)
        for size, of_size in weights.items()
    }
    of_all = weights[num_samples]
    return ImportanceSampled(
        log_likelihood=estimates.pop(num_samples),
        with_fewer_samples=estimates,
        reconstruction=sums.reconstruction / num_samples,
        kl={layer: value / num_samples for layer, value in sums.kl.items()},
        effective_sample_size=jnp.clip(of_all.total**2 / of_all.squares, 1.0, num_samples),
    )


class _Weights(NamedTuple):
    """Sums over samples, [B] each, beside the largest ln w so far.

    A sum of ln w's size would be rounded to it: of one near -9,000 float32 keeps three decimals,
    and chunks that add less are lost.
    """

    largest: Array  # ln w
    total: Array  # of w / exp(largest)
    squares: Array  # of its square


def _with_more(weights: _Weights, log_weight: Array) -> _Weights:
    """The sums over a chunk more, ln w [chunk, B]."""
    largest = jnp.maximum(weights.largest, jnp.max(log_weight, axis=0))
    more = jnp.exp(log_weight - _finite(largest))
    shrunk = jnp.exp(weights.largest - _finite(largest))
    return _Weights(
        largest,
        shrunk * weights.total + jnp.sum(more, axis=0),
        shrunk**2 * weights.squares + jnp.sum(more**2, axis=0),
    )


def _finite(largest: Array) -> Array:
    """As it is, or 0 where no sample has counted yet."""
    return jnp.where(jnp.isfinite(largest), largest, 0.0)
