"""The log-likelihood of sequences by a particle filter.

The bound FIVO (Maddison et al. 2017, arXiv 1705.09279), and what is under the logarithm in it.

N particles go through a sequence with z_t ~ q(z_t|x, h_t). The weight of one grows at each step by

    ln p(x_t|h_t, z_t) + ln p(z_t|h_t) - ln q(z_t|x, h_t)

and where the effective number of particles, (sum w)^2 / sum w^2, has fallen below N / 2, as in the
paper's experiments, N of them are drawn by their weights before the next step, and the weights
begin anew. The estimate is the sum of the logarithms of the mean weights, at each of these times
and at the end. Its exponential has the mean p(x), so its own mean is a lower bound on ln p(x); with
one particle it is the ELBO's draw. Particles are drawn systematically (one uniform number a step;
Kitagawa 1996), which keeps that mean and adds less noise than independent draws.

Random numbers are functions of (key, example, particle), those of log_likelihood.py.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import likelihoods, priors
from vamp_jax.autoencoder import Autoencoder, Encoded, Variables, compiled_prior
from vamp_jax.batches import in_dispatches
from vamp_jax.network import Latents
from vamp_jax.parallel import over_devices
from vamp_jax.posteriors import normal_log_prob
from vamp_jax.random_streams import example_keys, noise_of_samples
from vamp_jax.sequences import check_examples, num_examples

Array = jax.Array
Values = np.ndarray | Array  # on a device while computed, NumPy's when returned


class Filtered(NamedTuple):
    """The estimates from N particles of each sequence, [B] each."""

    log_likelihood: Values  # in nats
    resamplings: Values  # how often particles were drawn anew


def has_steps(autoencoder: Autoencoder) -> bool:
    """Whether the network goes by steps that can be filtered (network.py)."""
    return getattr(autoencoder.network, "propose", None) is not None


def estimate(
    autoencoder: Autoencoder,
    variables: Variables,
    x: Any,
    *,
    num_particles: int,
    rng: Array,
    index: np.ndarray | None = None,
    rows: int = 1000,
    done: Filtered | None = None,
    report: Callable[[Filtered], None] = lambda done: None,
) -> Filtered:
    """Estimates ln p(x) of each sequence by a particle filter.

    Args:
      autoencoder, variables: the network, which has steps, with its prior.
      x: sequences of the likelihood's support.
      num_particles: N.
      rng: key; the noise is that of `log_likelihood.estimate` with this key.
      index: of each sequence in its data set; seeds its noise. None: 0 to the last.
      rows: sequences times particles side by side on a device.
      done, report: as `log_likelihood.estimate` has them.
    Raises:
      ValueError: without an example or a particle, for shapes that do not fit, or a network that
        does not go by steps.
    """
    check_examples("estimate", x, autoencoder.network.x_shape)
    count = num_examples(x)
    index = np.arange(count) if index is None else np.asarray(index)
    if not has_steps(autoencoder):
        name = type(autoencoder.network).__name__
        raise ValueError(f"estimate: {name} has no latents of single steps: take a VRNN.")
    if num_particles < 1 or index.shape != (count,):
        raise ValueError(
            f"estimate: {num_particles} particles and index {index.shape} of {count} sequences; "
            "there must be a particle at least, and an index of each sequence."
        )
    run = functools.partial(_on_device, autoencoder, num_particles=num_particles)
    compiled = over_devices(run, in_axes=(None, None, None, 0), on=jax.local_devices())
    prior = compiled_prior(autoencoder, variables)
    devices = jax.local_device_count()
    shape = (devices, 1, min(max(1, rows // num_particles), -(-count // devices)))
    compiled = functools.partial(compiled, variables, prior, rng)
    return cast(Filtered, in_dispatches(compiled, (x, index), shape, done, report))


def _on_device(autoencoder, variables, prior, rng, arrays, *, num_particles: int) -> Filtered:
    """`estimate` on a device: arrays [batches, B, ...] -> [batches, B]."""

    def one_batch(batch):
        x, index = batch
        keys = example_keys(rng, index)
        shapes = autoencoder.network.latent_shapes
        noise = noise_of_samples(keys, jnp.arange(num_particles), shapes)
        # The number after the last particle's.
        draw = jax.vmap(lambda key: jax.random.fold_in(key, num_particles))(keys)
        num_steps = x["values"].shape[1] - 1
        uniform = jax.vmap(lambda key: jax.random.uniform(key, (num_steps,)))(draw).T
        encoded = autoencoder.encode(variables, x)
        return run_filter(autoencoder, variables, prior, encoded, noise, uniform)

    return jax.lax.map(one_batch, arrays)


def run_filter(
    autoencoder: Autoencoder,
    variables: Variables,
    prior: Any,
    encoded: Encoded,
    noise: Latents,
    uniform: Array,
) -> Filtered:
    """Runs the filter with given random numbers.

    Args:
      autoencoder, variables: the network with its prior.
      prior: from `autoencoder.prior_density`.
      encoded: B sequences of T steps.
      noise: standard normal, [N, B, *shape] for each layer.
      uniform: in [0, 1), for drawing particles before each step but the first, [T - 1, B].
    Returns:
      The estimate of each sequence, [B].
    """
    apply = functools.partial(autoencoder.apply, variables)
    x, top = encoded.x, autoencoder.top
    z1, log_q = encoded.top.sample_and_log_prob(noise[top])
    carry = apply(z1, method="begin")
    (later,) = (part for layer, part in noise.items() if layer != top)
    parts = apply(encoded.features, later, method="steps")
    values, nothing = jnp.moveaxis(x["values"], 1, 0), jnp.zeros(())  # [T, B, ...]

    def log_likelihood(carry, value, real):
        heads = apply(carry, method="emit")
        x_t = {"values": value[:, None], "length": real.astype(jnp.int32)}
        heads = tuple(jnp.expand_dims(head, 2) for head in heads)  # [N, B, 1, ...]
        return likelihoods.log_prob(autoencoder.likelihood, x_t, heads, 2)

    def step(state, now):
        carry, log_weight, total, count = state
        part, value, uniform, real = now
        chosen, wanted = _resampled(log_weight, uniform)
        wanted = wanted & real
        index = jnp.where(wanted, chosen, jnp.arange(len(log_weight))[:, None])
        total = total + jnp.where(wanted, _log_mean(log_weight), 0.0)
        log_weight = jnp.where(wanted, 0.0, log_weight)
        carry = jax.tree.map(lambda of: jnp.take_along_axis(of, index[..., None], 0), carry)
        carry, (e, log_q) = apply(carry, part, method="propose")
        log_weight += normal_log_prob(e, nothing, nothing) - log_q
        log_weight += log_likelihood(carry, value, real)
        return (carry, log_weight, total, count + wanted), None

    real = jnp.arange(len(values))[:, None] < x["length"]  # [T, B]
    log_weight = priors.log_prob(z1, prior) - log_q + log_likelihood(carry, values[0], real[0])
    zero = jnp.zeros(len(x["length"]))
    start = (carry, log_weight, zero, zero)
    (_, log_weight, total, count), _ = jax.lax.scan(
        step, start, (parts, values[1:], uniform, real[1:])
    )
    return Filtered(total + _log_mean(log_weight), count)


def _log_mean(log_weight: Array) -> Array:
    """ln of the mean over the particles: [N, B] -> [B]."""
    return jax.nn.logsumexp(log_weight, axis=0) - math.log(len(log_weight))


def _resampled(log_weight: Array, uniform: Array) -> tuple[Array, Array]:
    """Particles drawn by their weights [N, B] with one uniform number each [B], and where to.

    Returns:
      Their numbers, [N, B], particle i as often as N w_i on average; and whether the effective
      number of particles is below N / 2, [B].
    """
    count = len(log_weight)
    share = jax.nn.softmax(log_weight, axis=0)
    few = jnp.sum(share**2, axis=0) * count > 2.0
    ends = jnp.cumsum(share, axis=0)
    ends = ends / ends[-1]  # rounding
    places = (jnp.arange(count)[:, None] + uniform) / count
    found = jax.vmap(functools.partial(jnp.searchsorted, side="right"), 1, 1)(ends, places)
    return jnp.minimum(found, count - 1), few
