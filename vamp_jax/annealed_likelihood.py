"""The log-likelihood by annealed importance sampling: a second opinion on log_likelihood.py.

A path (ais.py) goes from a density of the latents to the model's joint p(x, z), over the latents
of all layers together. There are two starts:

* `POSTERIOR`: v is the noise that q(z|x) is drawn with, z = g(v; x), and

      f_0(v) = N(v | 0, I),    r(v) = ln p(x|z) + ln p(z) - ln q(z|x)  at  z = g(v; x)

  so that f_1(v) = p(x, z) |det dz/dv|, whose integral is p(x). No inverse of g is needed: any
  posterior will do. With T = 1 this is the importance-sampled estimate of C samples.
* `PRIOR`: v is z itself, f_0(z) = p(z) and r(z) = ln p(x|z). What the posterior misses is not
  missed here, but the way is longer.

Chains that run backward from latents that x was simulated with give an upper bound (ais.py). That
holds for a likelihood that sums to one over x, which the paper's discretised logistic does not
quite.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import ais, generation, priors
from vamp_jax.autoencoder import Autoencoder, Encoded, Variables, compiled_prior, network_variables
from vamp_jax.batches import in_dispatches
from vamp_jax.errors import UsageError
from vamp_jax.network import Draw, Latents
from vamp_jax.parallel import over_devices
from vamp_jax.random_streams import example_keys
from vamp_jax.sequences import check_examples, num_examples

Array = jax.Array
Values = np.ndarray | Array

# Streams of an example's random numbers.
START, BURN_IN_START, BURN_IN, CHAIN = range(4)
SHORTEST_BURN_IN = 50  # transitions; else a tenth of the path's


class Annealed(NamedTuple):
    """The estimates from C chains of each example, [N] each, in nats."""

    log_likelihood: Values  # ln of the mean weight; of backward chains minus ln of the mean 1/w
    standard_error: Values  # of that, from the spread of the C weights; backward, given the start
    effective_chains: Values  # (sum w)^2 / sum w^2, from 1 to C
    acceptance: Values  # mean over transitions


class Start(NamedTuple):
    """Where paths begin."""

    # (autoencoder, variables, prior, encoded) -> ln f_0 and r of v [C, B, D]
    log_densities: Callable[..., ais.LogDensities]
    # (autoencoder, variables, prior, keys [C, B]) -> v [C, B, D]
    draw: Callable[..., Array]
    # (autoencoder, variables, encoded, latents [C, B, *shape]) -> v [C, B, D]
    at: Callable[..., Array]


def _noise_densities(autoencoder, variables, prior, encoded: Encoded) -> ais.LogDensities:
    def log_densities(v):
        noise = _apart(v, autoencoder)
        terms, _ = autoencoder.terms(variables, prior, encoded, noise)
        return jnp.sum(-0.5 * (v**2 + priors.LOG_2PI), axis=-1), terms.elbo()

    return log_densities


def _draw_noise(autoencoder, variables, prior, keys: Array) -> Array:
    return jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (_size(autoencoder),))))(keys)


def _noise_at(autoencoder, variables, encoded: Encoded, latents: Latents) -> Array:
    args = encoded.top, encoded.features, latents
    found = autoencoder.apply(variables, *args, method="posteriors")
    for layer, posterior in found.items():
        if not hasattr(posterior, "noise_of"):
            raise ValueError(
                f"The posterior of {layer}, {type(posterior).__name__}, has no known inverse, so "
                "that chains from the posterior cannot run backward: start from the prior."
            )
    return _together({layer: found[layer].noise_of(z) for layer, z in latents.items()}, autoencoder)


def _latent_densities(autoencoder, variables, prior, encoded: Encoded) -> ais.LogDensities:
    def log_densities(v):
        nothing = dict.fromkeys(autoencoder.layers, jnp.zeros(v.shape[:-1]))
        drawn = Draw(_apart(v, autoencoder), nothing)  # without ln q, KL is -ln p
        terms, _ = autoencoder.terms_at(variables, prior, encoded.x, drawn)
        return -sum(terms.kl.values()), terms.reconstruction

    return log_densities


def _draw_latents(autoencoder, variables, prior, keys: Array) -> Array:
    def one(key):
        of_top, of_others = jax.random.split(key)
        z_top = priors.sample(of_top, prior, 1)
        latents, _ = generation.descend(autoencoder, variables, of_others, z_top)
        return _together(latents, autoencoder)[0]

    return jax.vmap(jax.vmap(one))(keys)


def _latents_at(autoencoder, variables, encoded: Encoded, latents: Latents) -> Array:
    return _together(latents, autoencoder)


POSTERIOR = Start(_noise_densities, _draw_noise, _noise_at)
PRIOR = Start(_latent_densities, _draw_latents, _latents_at)


def estimate(
    autoencoder: Autoencoder,
    variables: Variables,
    x: Any,
    *,
    start: Start,
    num_distributions: int,
    num_chains: int,
    rng: Array,
    index: np.ndarray | None = None,
    latents: Latents | None = None,
    rows: int = 160,
    done: Annealed | None = None,
    report: Callable[[Annealed], None] = lambda done: None,
) -> Annealed:
    """Estimates ln p(x) of each example by annealed importance sampling.

    Args:
      autoencoder, variables: the network with its prior.
      x: [N, ...] or sequences, in the likelihood's support.
      start: `POSTERIOR` or `PRIOR`.
      num_distributions: T, steps along the path, of as many transitions.
      num_chains: C of each example, at least 2.
      rng: key; an example's random numbers are a function of (rng, index) alone.
      index: of each example in its data set, [N]. None: 0 to N.
      latents: that x was simulated with, [N, *shape] for each layer: runs the chains backward from
        them, for an upper bound.
      rows: chains times examples side by side on a device.
      done, report: as `log_likelihood.estimate` has them.
    Raises:
      ValueError: for numbers that are too small, no example, or chains from a posterior without a
        known inverse that should run backward.
    """
    check_examples("estimate", x, autoencoder.network.x_shape)
    count = num_examples(x)
    index = np.arange(count) if index is None else np.asarray(index)
    if num_chains < 2 or index.shape != (count,):
        raise ValueError(
            f"estimate: {count} examples have index {index.shape} and {num_chains} chains each; "
            "there must be an index of each example, and two chains at least."
        )
    betas = ais.schedule(num_distributions)
    compiled = over_devices(
        functools.partial(_on_device, autoencoder, start=start, betas=betas, num_chains=num_chains),
        in_axes=(None, None, None, 0),
        on=jax.local_devices(),
    )
    prior = compiled_prior(autoencoder, variables)
    devices = jax.local_device_count()
    shape = (devices, 1, min(max(1, rows // num_chains), -(-count // devices)))
    return in_dispatches(
        functools.partial(compiled, variables, prior, rng), (x, index, latents), shape, done, report
    )


def _on_device(autoencoder, variables, prior, rng, arrays, **settings) -> Annealed:
    """`estimate` on a device: arrays [batches, B, ...] -> [batches, B]."""
    one_batch = functools.partial(_one_batch, autoencoder, variables, prior, rng, **settings)
    return jax.lax.map(lambda batch: one_batch(*batch), arrays)


def _one_batch(
    autoencoder: Autoencoder,
    variables: Variables,
    prior: Any,
    rng: Array,
    x: Array,
    index: Array,
    latents: Latents | None,
    *,
    start: Start,
    betas: np.ndarray,
    num_chains: int,
) -> Annealed:
    encoded = autoencoder.encode(variables, x)
    log_densities = start.log_densities(autoencoder, variables, prior, encoded)
    chains = jax.vmap(
        lambda key: jax.vmap(lambda c: jax.random.fold_in(key, c))(jnp.arange(num_chains))
    )
    of_chains = chains(example_keys(rng, index)).T  # [C, B]

    def keys(stream):
        return jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, stream)))(of_chains)

    def draw(stream):
        return start.draw(autoencoder, variables, prior, keys(stream))

    # From the start of the path whichever way the chains run: the step sizes are then the same.
    burn_in = ais.schedule(max(SHORTEST_BURN_IN, (len(betas) - 1) // 10))[1:]
    sizes = ais.tune(log_densities, keys(BURN_IN), draw(BURN_IN_START), burn_in, betas)
    if latents is None:
        return _summary(ais.anneal(log_densities, keys(CHAIN), draw(START), betas, sizes), 1.0)
    repeated = jax.tree.map(lambda z: jnp.broadcast_to(z, (num_chains, *z.shape)), latents)
    v = start.at(autoencoder, variables, encoded, repeated)
    return _summary(ais.anneal(log_densities, keys(CHAIN), v, betas[::-1], sizes[::-1]), -1.0)


def _summary(chains: ais.Chains, sign: float) -> Annealed:
    """The estimate from the weights [C, B]; sign is -1 of chains that ran backward."""
    log_weight, count = chains.log_weight, len(chains.log_weight)
    log_sum = jax.nn.logsumexp(log_weight, axis=0)
    effective = jnp.exp(2.0 * log_sum - jax.nn.logsumexp(2.0 * log_weight, axis=0))
    effective = jnp.clip(effective, 1.0, count)  # rounding
    # The delta method: var(ln mean w) = var(w) / (C mean(w)^2), var(w) with C - 1.
    error = jnp.sqrt((count / effective - 1.0) / (count - 1.0))
    return Annealed(sign * (log_sum - math.log(count)), error, effective, chains.acceptance)


def check_draws(name: str, autoencoder: Autoencoder) -> None:
    """Raises a UsageError, in the name of a setting, where draws cannot give an upper bound."""
    if not autoencoder.likelihood.draws_fit:
        raise UsageError(
            f"{name} asks for simulated data, whose density is not what is evaluated with the "
            f"likelihood {autoencoder.likelihood.name} and a library size, which is each row's own "
            "there: pass --ais_simulated=0."
        )


def simulate(
    autoencoder: Autoencoder, variables: Variables, rng: Array, num: int
) -> tuple[Any, dict[str, np.ndarray]]:
    """Draws z ~ p(z) and x ~ p(x|z): x [N, *shape], and the latents of each layer."""

    @jax.jit
    def draw(variables, rng):
        of_top, rng = jax.random.split(rng)
        z_top = priors.sample(of_top, autoencoder.prior_density(variables), num)
        latents, rng = generation.descend(autoencoder, variables, rng, z_top)
        if autoencoder.network.sample_x is not None:
            return autoencoder.network.sample_x(network_variables(variables), rng, latents), latents
        heads, _ = autoencoder.decode(variables, latents, None)
        return autoencoder.likelihood.sample(rng, *heads), latents

    return jax.tree.map(np.asarray, draw(variables, rng))


def _size(autoencoder: Autoencoder) -> int:
    """The number of latents of all layers."""
    return sum(math.prod(shape) for shape in autoencoder.network.latent_shapes.values())


def _apart(v: Array, autoencoder: Autoencoder) -> Latents:
    """v [..., D] as each layer's latents [..., *shape]."""
    found, start = {}, 0
    for layer, shape in autoencoder.network.latent_shapes.items():
        end = start + math.prod(shape)
        found[layer] = v[..., start:end].reshape(*v.shape[:-1], *shape)
        start = end
    return found


def _together(latents: Latents, autoencoder: Autoencoder) -> Array:
    """Each layer's latents [..., *shape] as one v [..., D]."""
    shapes = autoencoder.network.latent_shapes
    parts = [
        latents[layer].reshape(*latents[layer].shape[: latents[layer].ndim - len(shape)], -1)
        for layer, shape in shapes.items()
    ]
    return jnp.concatenate(parts, axis=-1)
