"""The importance-sampled log-likelihood (section 5) of many images, without doing work twice.

    ln p(x) ~= logsumexp_s [ ln p(x|z_s) + ln p(z_s) - ln q(z_s|x) ] - ln S,   z_s ~ q(z|x)

Every image is encoded once and the prior's components are built once; the samples come in chunks
with a running logsumexp, so memory does not grow with S. The noise of a sample is a function of
(seed, example, sample): the result does not depend on chunks, batches or devices.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import objectives, priors
from vamp_jax.objectives import Objective

Array = jax.Array

FEWER_SAMPLES = (1, 10, 100, 1000, 5000)


class ImportanceSampled(NamedTuple):
    """What S samples say of each image, [N] each, in nats."""

    log_likelihood: np.ndarray
    with_fewer_samples: dict[int, np.ndarray]  # the estimate from the first 1, 10, 100, ... of S
    reconstruction: np.ndarray  # mean over the samples of ln p(x|z)
    kl: dict[str, np.ndarray]  # mean over the samples of ln q - ln p, each stochastic layer
    effective_sample_size: np.ndarray  # (sum w)^2 / sum w^2, from 1 to S

    @property
    def elbo(self) -> np.ndarray:
        """The ELBO with S draws of z for each image."""
        return self.reconstruction - sum(self.kl.values())


def estimate(
    objective: Objective,
    variables: dict[str, Any],
    images: np.ndarray,
    *,
    num_samples: int,
    rng: Array,
    numbers: np.ndarray | None = None,
    images_per_batch: int = 10,
    rows_per_chunk: int = 1000,
    batches_per_dispatch: int = 10,
    done: ImportanceSampled | None = None,
    report: Callable[[ImportanceSampled], None] = lambda done: None,
) -> ImportanceSampled:
    """Estimates ln p(x) of each image with `num_samples` draws from its posterior.

    Args:
      objective, variables: the model with its prior.
      images: [N, H, W, C] in [0, 1].
      num_samples: S.
      rng: key of the noise.
      numbers: of the images in their data set, [N], by which their noise is drawn; None: 0 to N.
      images_per_batch: images side by side in a chunk of samples.
      rows_per_chunk: images times samples in a chunk; about 1,000 is best on CPU.
      batches_per_dispatch: batches between two calls of `report`, on each device.
      done: what an interrupted call with the same arguments reported last: go on from there.
      report: is given the results of all images done so far, every now and then.
    Raises:
      ValueError: without an image or a sample, or for what does not fit together.
    """
    if not len(images) or num_samples < 1:
        raise ValueError(
            f"estimate: {len(images)} images and {num_samples} samples; both must be at least 1."
        )
    numbers = np.arange(len(images)) if numbers is None else np.asarray(numbers)
    counts = {
        "num_samples": num_samples,
        "images_per_batch": images_per_batch,
        "rows_per_chunk": rows_per_chunk,
        "batches_per_dispatch": batches_per_dispatch,
    }
    for name, count in counts.items():
        if not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"estimate: {name} is {count!r}; it must be a whole number above 0.")
    size = tuple(objective.model.image_shape)
    known = objective.model.likelihood in ("bernoulli", "discretised_logistic")
    low, high = (0.0, 1.0) if known else (-np.finfo(np.float32).max, np.finfo(np.float32).max)
    if images.shape[1:] != size or not (images.min() >= low and images.max() <= high):  # nor nan
        raise ValueError(
            f"estimate: images must be [N, *{size}] and in [{low:g}, {high:g}], but have shape "
            f"{images.shape} and go from {images.min()} to {images.max()}."
        )
    if numbers.shape != images.shape[:1]:
        raise ValueError(
            f"estimate: numbers must be [{len(images)}], one for each image, not {numbers.shape}."
        )
    devices = jax.local_device_count()
    images_per_batch = min(images_per_batch, -(-len(images) // devices))
    batches_per_dispatch = min(
        batches_per_dispatch, -(-len(images) // (devices * images_per_batch))
    )
    chunk = max(1, min(num_samples, rows_per_chunk // images_per_batch))
    compiled = jax.pmap(
        functools.partial(on_device, objective, num_samples=num_samples, chunk=chunk),
        in_axes=(None, None, 0, 0, None),
        devices=jax.local_devices(),  # of several hosts, one evaluates
    )
    prior = jax.jit(objective.components)(variables)
    shape = (devices, batches_per_dispatch, images_per_batch)
    at_once = math.prod(shape)
    for start in range(len(done.log_likelihood) if done else 0, len(images), at_once):
        # The last rows again and again where there are no more; dropped below.
        index = np.minimum(np.arange(start, start + at_once), len(images) - 1)
        part = images[index].reshape(*shape, *images.shape[1:])
        result = compiled(variables, prior, part, numbers[index].reshape(shape), rng)
        result = jax.tree.map(
            lambda leaf: np.asarray(leaf).reshape(-1)[: len(images) - start],  # noqa: B023
            result,
        )
        done = jax.tree.map(lambda *parts: np.concatenate(parts), done, result) if done else result
        report(done)
    return done


def on_device(
    objective: Objective,
    variables: dict[str, Any],
    prior: priors.GaussianMixture,
    images: Array,
    index: Array,
    rng: Array,
    *,
    num_samples: int,
    chunk: int,
) -> ImportanceSampled:
    """`estimate` on a device: images [batches, B, H, W, C], index [batches, B] -> [batches, B]."""
    one_batch = functools.partial(
        _one_batch, objective, variables, prior, rng, num_samples=num_samples, chunk=chunk
    )
    return jax.lax.map(lambda batch: one_batch(*batch), (images, index))


def _one_batch(
    objective: Objective,
    variables: dict[str, Any],
    prior: priors.GaussianMixture,
    rng: Array,
    x: Array,
    index: Array,
    *,
    num_samples: int,
    chunk: int,
) -> ImportanceSampled:
    encoded = objective.encode(variables, x)
    model = objective.model
    image_keys = jax.vmap(functools.partial(jax.random.fold_in, rng))(index)

    sizes = [size for size in FEWER_SAMPLES if size < num_samples] + [num_samples]

    def one_chunk(carry, start):
        sample = start + jnp.arange(chunk)
        # The last chunk may reach beyond S.
        counted = {size: (sample < size)[:, None] for size in sizes}
        draw = functools.partial(
            objectives.example_noise, num_layers=model.num_layers, latent_dim=model.latent_dim
        )
        noise = jax.vmap(draw, (0, None), 1)(image_keys, sample)  # [chunk, B, L, D]
        terms, _ = objective.terms(variables, prior, encoded, noise)
        log_weights = {
            size: jnp.where(chosen, terms.elbo(), -jnp.inf) for size, chosen in counted.items()
        }
        log_sums, log_sum_of_squares, sums = carry
        log_sums = {
            size: jnp.logaddexp(log_sums[size], jax.nn.logsumexp(values, axis=0))
            for size, values in log_weights.items()
        }
        log_sum_of_squares = jnp.logaddexp(
            log_sum_of_squares, jax.nn.logsumexp(2.0 * log_weights[num_samples], axis=0)
        )
        sums = jax.tree.map(
            lambda total, term: total + jnp.sum(jnp.where(counted[num_samples], term, 0.0), axis=0),
            sums,
            terms,
        )
        return (log_sums, log_sum_of_squares, sums), None

    nothing = jnp.full(len(x), -jnp.inf)
    layers = ("z",) if model.num_layers == 1 else ("z1", "z2")
    zero = jnp.zeros(len(x))
    sums = objectives.Terms(zero, {layer: zero for layer in layers})
    start = ({size: nothing for size in sizes}, nothing, sums)
    (log_sums, log_sum_of_squares, sums), _ = jax.lax.scan(
        one_chunk, start, jnp.arange(0, num_samples, chunk)
    )
    estimates = {size: log_sum - math.log(size) for size, log_sum in log_sums.items()}
    return ImportanceSampled(
        log_likelihood=estimates.pop(num_samples),
        with_fewer_samples=estimates,
        reconstruction=sums.reconstruction / num_samples,
        kl={layer: value / num_samples for layer, value in sums.kl.items()},
        effective_sample_size=jnp.exp(2.0 * log_sums[num_samples] - log_sum_of_squares),
    )
