"""Priors as a trainer needs them: how the parameters start, and how they become a density.

A `Prior` is a tuple of plain functions around those of `vamp_jax.priors`. Fixed examples are
constants and no parameters: they have no optimiser state, and no copy goes with the best epoch.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import priors
from vamp_jax.priors.pseudo_inputs import (
    Squash,
    as_it_is,
    clip,
    inverse_sigmoid,
    is_floating,
    sigmoid,
    straight_through_clip,
)
from vamp_jax.priors.rotated import RotatedMixture
from vamp_jax.priors.warped import without_gradients_of_components
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
    num_examples: int  # of the training set


class Examples(NamedTuple):
    """All training examples, on the host."""

    x: np.ndarray  # [N, ...]
    encoded: Callable[[], np.ndarray]  # the means of q(z|x) before training, [N, D]


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
    # (rng, params, all examples, seed) -> the parameters before the first epoch, where `init` has
    # not all that they start from; on the host.
    arrange: Callable[[Array, Params, Examples, int], Params] | None = None
    at_examples: Callable[[Any], Any] | None = None  # x -> pseudo-inputs that the encoder sees as x
    of_all_examples: bool = False  # whether component n is training example n
    num_neighbours: int = 0  # of those, how many a training step sums over; 0: all


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


class Squashing(NamedTuple):
    """How pseudo-inputs are kept in the range of x."""

    squash: Squash  # (u, lowest, highest) -> what the encoder sees
    inverse: Squash = as_it_is  # (x, lowest, highest) -> the u for which it sees x


CLIP = Squashing(clip)
STRAIGHT_THROUGH = Squashing(straight_through_clip)
SIGMOID = Squashing(sigmoid, inverse_sigmoid)
FREE = Squashing(as_it_is)


class Beginning(NamedTuple):
    """Where pseudo-inputs start: at noise, at training examples, or at what `choose` makes of all.

    `choose` runs on the host: (all examples, K, seed) -> [K, ...].
    """

    from_data: bool = False
    choose: Callable[[Examples, int, int], Any] | None = None


def _medoids(examples: Examples, count: int, seed: int) -> Any:
    return examples.x[priors.kmedoids(examples.encoded(), count, seed=seed)]


NOISE = Beginning()
EXAMPLES = Beginning(True)
KMEANS = Beginning(
    True, lambda given, count, seed: priors.kmeans_centres(given.x, count, seed=seed)
)
KMEDOIDS = Beginning(True, _medoids)


@functools.cache
def vamp(
    num_components: int,
    *,
    bounds: Bounds = None,
    squashing: Squashing = CLIP,
    beginning: Beginning = NOISE,
    copies: bool = False,
    learned_weights: bool = False,
) -> Prior:
    """The VampPrior: K learned pseudo-inputs through the encoder.

    Args:
      num_components: K.
      bounds: of pseudo-inputs as the encoder sees them.
      squashing: keeps them there; `CLIP` is the paper's hard tanh, without gradient outside.
      beginning: where they start; at data with N(0, 0.01^2) noise. The lengths of sequences are
        those of the examples, and stay. (Random values are far from any sequence.)
      copies: starts all K as copies of one, from which they grow (training/growing.py).
      learned_weights: learns the weights; otherwise all are 1/K.
    """
    low, high = (None if not math.isfinite(side) else side for side in bounds or (math.inf,) * 2)

    def as_params(x):
        return jax.tree.map(lambda leaf: squashing.inverse(leaf, low, high), x)

    num_placed = 1 if copies else num_components

    def placed(params):
        params = params | {"pseudo_inputs": as_params(params["pseudo_inputs"])}
        if not copies:
            return params
        return jax.tree.map(lambda one: jnp.repeat(one, num_components, axis=0), params)

    def init(rng, start):
        options = {"learned_weights": learned_weights}
        if beginning.from_data:
            examples = start.examples(num_placed)
            params, constants = _fixed_apart(priors.init_vamp_from_data(rng, examples, **options))
            return placed(params), constants
        params = priors.init_vamp(
            rng, num_placed, start.x_shape, mean=start.mean, stddev=start.stddev, **options
        )
        return placed(params), {}

    def arrange(rng, params, examples, seed):
        assert beginning.choose is not None  # see below
        chosen = beginning.choose(examples, num_placed, seed)
        return params | placed(priors.init_vamp_from_data(rng, chosen))

    def pseudo_inputs(params, constants):
        u = params["pseudo_inputs"]
        if bounds is not None:
            u = jax.tree.map(lambda leaf: squashing.squash(leaf, low, high), u)
        fixed = constants.get("pseudo_inputs")
        return u if fixed is None else u | jax.lax.stop_gradient(fixed)

    return Prior(
        init,
        lambda params, constants, components: _of_components(params, components),
        pseudo_inputs,
        arrange=arrange if beginning.choose else None,
        at_examples=as_params,
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
def exemplar(num_neighbours: int) -> Prior:
    """The exemplar prior: all training examples are components, with one learned variance.

    Args:
      num_neighbours: a training step sums over so many of the nearest; 0: over all.
    """

    def init(rng, start):
        params = priors.init_exemplar(start.examples(start.num_examples))
        return params, {"pseudo_inputs": params.pop("pseudo_inputs")}

    def build(params, constants, components):
        return priors.exemplar(params | constants, lambda u: components[:2])

    return Prior(
        init,
        build,
        lambda params, constants: jax.lax.stop_gradient(constants["pseudo_inputs"]),
        of_all_examples=True,
        num_neighbours=num_neighbours,
    )


@functools.cache
def warped(
    base: Prior,
    *,
    init_flow: Callable[[Array, int], Params] = priors.init_flow,
    stop_components: bool = False,
) -> Prior:
    """Any mixture warped by a flow on the prior's side: p(z) = base(f(z)) |det df/dz|.

    Args:
      base: a prior whose density is a mixture of Gaussians, diagonal or of full covariance.
      init_flow: (rng, D) -> {"flow": parameters}; or `priors.init_autoregressive_flow`.
      stop_components: lets no gradient through the components, for ablations.
    """

    def init(rng, start):
        params, constants = base.init(rng, start)
        flow = init_flow(jax.random.fold_in(rng, 1), start.latent_dim)
        return params | flow, constants

    def build(params, constants, components):
        density = base.build(params, constants, components)
        if stop_components:
            density = without_gradients_of_components(density)
        return priors.warp(density, params["flow"])

    return base._replace(init=init, build=build)
