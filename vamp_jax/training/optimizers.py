"""The optimiser of the paper's code: Adam on gradients of unit norm, as an optax chain."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vamp_jax.random_streams import LANGEVIN, stream


def normalized_adam(
    learning_rate: float | optax.Schedule, *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """The paper's optimiser: `normalize_each_tensor`, then Adam, then a step of -learning_rate.

    A schedule is a function of the number of steps done.
    """
    return optax.chain(
        normalize_each_tensor(),
        scale_by_adam(b1=b1, b2=b2, eps=eps),
        optax.scale_by_learning_rate(learning_rate),
    )


def normalize_each_tensor(eps: float = 1e-7) -> optax.GradientTransformation:
    """g / (||g||_2 + eps) for each parameter tensor by itself."""

    return optax.stateless_with_tree_map(
        lambda g, _: g / (jnp.sqrt(jnp.sum(g * g)) + eps),
    )


def scale_by_adam(
    *, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformation:
    """Adam's direction m sqrt(1 - b2^t) / ((1 - b1^t) (sqrt(v) + eps)).

    Not `optax.scale_by_adam`, which adds eps to sqrt(v / (1 - b2^t)): the authors' code adds it
    before the bias correction, which makes it up to 32 times larger in effect at the first steps.
    """

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        return optax.ScaleByAdamState(jnp.zeros([], jnp.int32), zeros, zeros)

    def update(updates, state, params=None):
        del params
        count = state.count + 1
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, updates)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * g * g, state.nu, updates)
        scale = jnp.sqrt(1 - b2**count) / (1 - b1**count)
        direction = jax.tree.map(lambda m, v: scale * m / (jnp.sqrt(v) + eps), mu, nu)
        return direction, optax.ScaleByAdamState(count, mu, nu)

    return optax.GradientTransformation(init, update)


def larger_steps_of_pseudo_inputs(
    optimizer: optax.GradientTransformation, period: float
) -> optax.GradientTransformation:
    """Multiplies the steps of pseudo-inputs by sqrt(period): each has a gradient once a period.

    Adam divides by the root of the mean square of all gradients, zeros too, which makes a period's
    way 1 / sqrt(period) of what it is with the same gradient in every step.
    """

    def update(grads, state, params=None):
        updates, state = optimizer.update(grads, state, params)
        prior = updates.get("prior", {})
        if "pseudo_inputs" in prior:
            u = jax.tree.map(lambda step: period**0.5 * step, prior["pseudo_inputs"])
            updates = updates | {"prior": prior | {"pseudo_inputs": u}}
        return updates, state

    return optax.GradientTransformation(optimizer.init, update)


class LangevinState(NamedTuple):
    """Of `langevin_of_pseudo_inputs`."""

    others: Any  # state of the optimiser of the other parameters
    count: jax.Array  # steps done


def langevin_of_pseudo_inputs(
    others: optax.GradientTransformation, *, step_size: float, num_examples: float, seed: int
) -> optax.GradientTransformation:
    """Gives pseudo-inputs steps of stochastic-gradient Langevin dynamics (Welling & Teh 2011).

    u <- u - step_size / 2 N g + N(0, step_size), g the gradient of the mean loss: with small steps
    u wanders through exp(-N loss), under a flat prior. The noise is a function of (seed, step).

    Args:
      others: optimiser of the other parameters.
      step_size: variance of a step's noise.
      num_examples: N.
      seed: of the run.
    """

    def init(params):
        return LangevinState(others.init(params), jnp.zeros([], jnp.int32))

    def update(grads, state, params=None):
        updates, inner = others.update(grads, state.others, params)
        key = stream(seed, LANGEVIN, state.count)

        def step(i, g):
            of_leaf = jax.random.fold_in(key, i) if i else key
            noise = jax.random.normal(of_leaf, g.shape, g.dtype)
            return -0.5 * step_size * num_examples * g + step_size**0.5 * noise

        leaves, tree = jax.tree.flatten(grads["prior"]["pseudo_inputs"])
        u = jax.tree.unflatten(tree, [step(i, g) for i, g in enumerate(leaves)])
        updates = updates | {"prior": updates["prior"] | {"pseudo_inputs": u}}
        return updates, LangevinState(inner, state.count + 1)

    return optax.GradientTransformation(init, update)
