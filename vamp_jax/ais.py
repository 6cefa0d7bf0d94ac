"""Annealed importance sampling (Neal 2001): the ratio of two normalisers, by Hamiltonian steps.

A path leads from a density f_0 that is normalised and can be drawn from to an f_1 that is not:

    ln f_b(v) = ln f_0(v) + b r(v),    r(v) = ln f_1(v) - ln f_0(v),    b from 0 to 1

A chain starts at v_0 ~ f_0 and moves at each b_t by a transition that leaves f_b invariant. Its
weight has the mean of the integral of f_1:

    ln w = sum_{t=1..T} (b_t - b_{t-1}) r(v_{t-1}),    E[w] = Z = int f_1(v) dv

so that ln 1/C sum_c w_c is, on average, a lower bound on ln Z. The same chain run backward from an
exact draw of f_1 / Z has E[1/w] = 1/Z and gives an upper bound; the distance between them is the
gap of bidirectional Monte Carlo (Grosse et al. 2015, arXiv 1511.02543).

The transition is Hamiltonian: leapfrog steps, then Metropolis's choice, which makes it exact for
any step size. Adapting the size to the chain that is weighed would not be: `tune` adapts it in a
chain of its own, and it is fixed as a function of b thereafter (Wu et al. 2017, arXiv 1611.04273,
whose schedule of b this is, too).

Here v is [C, B, D], C chains for each of B problems; all random numbers are functions of a chain's
key alone. Values are in nats.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array
LogDensities = Callable[[Array], tuple[Array, Array]]  # v [C, B, D] -> (ln f_0, r), [C, B] each

LEAPFROG_STEPS = 10
ACCEPTANCE = 0.65  # where Hamiltonian transitions are most efficient (Beskos et al. 2013)
FIRST_STEP_SIZE = 0.5
ADAPTATION = 0.3  # of ln step size, for each unit of acceptance above or below
STEEPNESS = 4.0  # of the schedule


class Chains(NamedTuple):
    """Chains at the end of their path."""

    log_weight: Array  # ln w, or -ln w of chains that ran backward, [C, B]
    v: Array  # [C, B, D]
    acceptance: Array  # mean over chains and transitions, [B]


def schedule(num_distributions: int) -> np.ndarray:
    """Returns b_0 = 0 to b_T = 1, a sigmoid, dense at both ends: [T + 1].

    Raises:
      ValueError: for T below 1.
    """
    if num_distributions < 1:
        raise ValueError(f"schedule: num_distributions is {num_distributions}; it must be above 0.")
    place = np.linspace(-STEEPNESS, STEEPNESS, num_distributions + 1)
    sigmoid = 1.0 / (1.0 + np.exp(-place))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def anneal(
    log_densities: LogDensities, keys: Array, v: Array, betas: np.ndarray, step_sizes: Array
) -> Chains:
    """Runs chains along a path.

    Args:
      log_densities: ln f_0 and r.
      keys: of the chains, [C, B].
      v: draws of f_0, [C, B, D]; or of f_1 / Z, to run backward.
      betas: from `schedule`, [T + 1]; reversed, to run backward.
      step_sizes: of the transitions at each of betas, [T + 1, B].
    """

    def move(carry, inputs):
        v, log_weight = carry
        t, change, beta, step_size = inputs
        moved = transition(log_densities, _at(keys, t), v, beta, step_size)
        log_weight = log_weight + change * moved.ratio_before
        return (moved.v, log_weight), jnp.mean(moved.acceptance, axis=0)

    # The last transition changes no weight; without it the last r would need code of its own.
    changes, later = np.float32(np.diff(np.float64(betas))), np.float32(betas[1:])
    inputs = jnp.arange(len(later)), changes, later, step_sizes[1:]
    start = v, jnp.zeros(v.shape[:-1], v.dtype)
    (v, log_weight), acceptance = jax.lax.scan(move, start, inputs)
    return Chains(log_weight, v, jnp.mean(acceptance, axis=0))


def tune(
    log_densities: LogDensities, keys: Array, v: Array, betas: np.ndarray, wanted: np.ndarray
) -> Array:
    """Adapts the step size of each problem in chains along the path: the burn-in.

    Args:
      log_densities, keys, v: as for `anneal`, with keys that no other chain has.
      betas: of the burn-in's transitions, rising, [S].
      wanted: the betas at which step sizes are returned, [T + 1].
    Returns:
      [T + 1, B]
    """

    def move(carry, inputs):
        v, log_size = carry
        t, beta = inputs
        moved = transition(log_densities, _at(keys, t), v, beta, jnp.exp(log_size))
        surplus = jnp.mean(moved.acceptance, axis=0) - ACCEPTANCE
        log_size = log_size + ADAPTATION * surplus
        return (moved.v, log_size), log_size

    start = v, jnp.full(v.shape[1], np.log(FIRST_STEP_SIZE), v.dtype)
    betas, wanted = np.float32(betas), np.float32(wanted)
    _, log_sizes = jax.lax.scan(move, start, (jnp.arange(len(betas)), betas))
    interpolate = jax.vmap(lambda sizes: jnp.interp(wanted, betas, sizes), in_axes=1, out_axes=1)
    return jnp.exp(interpolate(log_sizes))


class Moved(NamedTuple):
    """What a transition leads to."""

    v: Array  # [C, B, D]
    acceptance: Array  # the probability that the proposal was taken with, [C, B]
    ratio_before: Array  # r where the chain stood before, [C, B]


def transition(
    log_densities: LogDensities, keys: Array, v: Array, beta: Array, step_size: Array
) -> Moved:
    """Moves chains by one Hamiltonian transition that leaves f_beta invariant.

    Args:
      log_densities: ln f_0 and r.
      keys: [C, B], used up.
      v: [C, B, D]
      beta: a number.
      step_size: of each problem, [B].
    """

    def target(v):
        log_start, ratio = log_densities(v)
        value = log_start + beta * ratio
        return jnp.sum(value), (value, ratio)

    evaluate = jax.value_and_grad(target, has_aux=True)
    size = step_size[:, None]

    def leap(step, state):
        v, momentum, gradient, _, at_start = state
        # Step 0 stands still: it is there to evaluate the start by the same compiled code.
        moving = jnp.where(step == 0, 0.0, size)
        momentum = momentum + 0.5 * moving * gradient
        v = v + moving * momentum
        (_, found), gradient = evaluate(v)
        momentum = momentum + 0.5 * moving * gradient
        at_start = jax.tree.map(lambda new, old: jnp.where(step == 0, new, old), found, at_start)
        return v, momentum, gradient, found[0], at_start

    momentum, log_uniform = _draw(keys, v.shape[-1])
    zero = jnp.zeros(v.shape[:-1], v.dtype)
    state = v, momentum, jnp.zeros_like(v), zero, (zero, zero)
    proposed, last_momentum, _, last_value, (value, ratio) = jax.lax.fori_loop(
        0, LEAPFROG_STEPS + 1, leap, state
    )
    before = value - 0.5 * jnp.sum(momentum**2, axis=-1)
    after = last_value - 0.5 * jnp.sum(last_momentum**2, axis=-1)
    # A step that has left the numbers behind is none.
    log_accept = jnp.where(jnp.isnan(after), -jnp.inf, jnp.minimum(after - before, 0.0))
    accepted = (log_uniform < log_accept)[..., None]
    return Moved(jnp.where(accepted, proposed, v), jnp.exp(log_accept), ratio)


def _at(keys: Array, t: Array) -> Array:
    """The keys of a step: [C, B] -> [C, B]."""
    return jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, t)))(keys)


def _draw(keys: Array, dim: int) -> tuple[Array, Array]:
    """Momenta [C, B, D], and logarithms of uniform numbers [C, B]."""

    def one(key):
        of_momentum, of_choice = jax.random.split(key)
        uniform = jax.random.uniform(of_choice, minval=np.finfo(np.float32).tiny)
        return jax.random.normal(of_momentum, (dim,)), jnp.log(uniform)

    return jax.vmap(jax.vmap(one))(keys)
