"""Priors as a trainer needs them: how the parameters start, and how they become a density.

A `Prior` is a tuple of plain functions around those of `vamp_jax.priors`. Fixed examples are
constants and no parameters: they have no optimiser state, and no copy goes with the best epoch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vamp_jax import priors
from vamp_jax.priors.pseudo_inputs import is_floating
from vamp_jax.priors.rotated import RotatedMixture
from vamp_jax.sequences import is_sequences

Array = jax.Array
Params = dict[str, Any]
Bounds = tuple[float, float] | None


class Start(NamedTuple):
    """What parameters of a prior may start from."""

    latent_dim: int  # of the top layer
    x_shape: tuple[int, ...]
    mean: float  # of pseudo-inputs that are drawn at random
    stddev: float
    examples: Callable[[int], Any]  # n -> x of n training examples, chosen by the run's seed


class Prior(NamedTuple):
    """p(z) of the top layer: a choice as a value.

    `params` are learned, `constants` are not; both are dicts of arrays, empty where there are none.
    """

    init: Callable[[Array, Start], tuple[Params, Params]]  # (rng, start) -> (params, constants)
    # (params, constants, components) -> a density, see `vamp_jax.priors`; components are what the
    # encoder makes of `pseudo_inputs`, (mean, log_var) [K, D], or None.
    build: Callable[[Params, Params, Any], Any]
    # (params, constants) -> the pseudo-inputs as the encoder sees them, [K, ...].
    pseudo_inputs: Callable[[Params, Params], Any] | None = None


def _of_components(params: Params, components: Any) -> Any:
    """The VampPrior of encoded pseudo-inputs: (mean, log_var) [K, D], and rotations [K, D, D]."""
    mean, log_var, *rotation = components
    mixture = priors.vamp(params, lambda u: (mean, log_var))
    return RotatedMixture(mixture, *rotation) if rotation else mixture


def _fixed_apart(params: Params) -> tuple[Params, Params]:
    """(params, constants): the leaves of pseudo-inputs that cannot learn, as lengths, apart."""
    u = params["pseudo_inputs"]
    fixed = {
        name: leaf for name, leaf in (u.items() if is_sequences(u) else ()) if not is_floating(leaf)
    }
    if not fixed:
        return params, {}
    learned = {name: leaf for name, leaf in u.items() if name not in fixed}
    return params | {"pseudo_inputs": learned}, {"pseudo_inputs": fixed}


# Cached, so that the same choice is the same value and JAX does not compile again.


@functools.cache
def standard(latent_dim: int) -> Prior:
    """N(0, I)."""
    return Prior(
        init=lambda rng, start: ({}, {}),
        build=lambda params, constants, components: priors.standard_normal(latent_dim=latent_dim),
    )


@functools.cache
def mixture_of_gaussians(num_components: int, *, learned_weights: bool = False) -> Prior:
    """1/K sum_k N(mean_k, var_k), means and variances learned."""

    def init(rng, start):
        params = priors.init_mixture_of_gaussians(
            rng, num_components, start.latent_dim, learned_weights=learned_weights
        )
        return params, {}

    return Prior(init, lambda params, constants, components: priors.mixture_of_gaussians(params))


@functools.cache
def vamp(
    num_components: int,
    *,
    bounds: Bounds = None,
    from_data: bool = False,
    learned_weights: bool = False,
) -> Prior:
    """The VampPrior: K learned pseudo-inputs through the encoder.

    Args:
      num_components: K.
      bounds: clips pseudo-inputs, the paper's hard tanh; outside there is no gradient.
      from_data: starts them at training examples plus N(0, 0.01^2) noise; the lengths of sequences
        are those of the examples, and stay. (Random values are far from any sequence.)
      learned_weights: learns the weights; otherwise all are 1/K.
    """

    def init(rng, start):
        if from_data:
            examples = start.examples(num_components)
            params = priors.init_vamp_from_data(rng, examples, learned_weights=learned_weights)
            return _fixed_apart(params)
        params = priors.init_vamp(
            rng,
            num_components,
            start.x_shape,
            mean=start.mean,
            stddev=start.stddev,
            learned_weights=learned_weights,
        )
        return params, {}

    def pseudo_inputs(params, constants):
        clip = functools.partial(jnp.clip, min=bounds and bounds[0], max=bounds and bounds[1])
        u = jax.tree.map(clip if bounds else lambda u: u, params["pseudo_inputs"])
        fixed = constants.get("pseudo_inputs")
        return u if fixed is None else u | jax.lax.stop_gradient(fixed)

    return Prior(
        init,
        lambda params, constants, components: _of_components(params, components),
        pseudo_inputs,
    )


@functools.cache
def vamp_data(num_components: int, *, learned_weights: bool = False) -> Prior:
    """The VampPrior on K fixed training examples."""

    def init(rng, start):
        params = priors.init_vamp_from_data(
            rng, start.examples(num_components), stddev=0.0, learned_weights=learned_weights
        )
        return params, {"pseudo_inputs": params.pop("pseudo_inputs")}

    return Prior(
        init,
        lambda params, constants, components: _of_components(params | constants, components),
        lambda params, constants: jax.lax.stop_gradient(constants["pseudo_inputs"]),
    )


@functools.cache
def warped(base: Prior, *, stop_components: bool = False) -> Prior:
    """Any mixture warped by a flow on the prior's side: p(z) = base(f(z)) |det df/dz|.

    Args:
      base: a prior whose density is a mixture of Gaussians, diagonal or of full covariance.
      stop_components: lets no gradient through the components, for ablations.
    """

    def init(rng, start):
        params, constants = base.init(rng, start)
        flow = priors.init_flow(jax.random.fold_in(rng, 1), start.latent_dim)
        return params | flow, constants

    def build(params, constants, components):
        density = base.build(params, constants, components)
        density = jax.lax.stop_gradient(density) if stop_components else density
        return priors.warp(density, params["flow"])

    return Prior(init, build, base.pseudo_inputs)
