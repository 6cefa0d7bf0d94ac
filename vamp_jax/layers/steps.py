"""What the networks of sequences share: what they read of x, and how x is drawn in steps."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.likelihoods import Likelihood
from vamp_jax.sequences import Sequences

Array = jax.Array


def step_inputs(values: Array, x_shape: tuple[int, ...], likelihood: Likelihood) -> Array:
    """[..., F] of values: numbers as they are, symbols one-hot (of a negative one, zeros).

    Pseudo-inputs of symbols are made points of the simplex: divided by their sum.
    """
    if len(x_shape) > 1:
        return values
    if jnp.issubdtype(values.dtype, jnp.floating):
        return values / jnp.maximum(values.sum(-1, keepdims=True), 1e-6)
    ((num_classes,),) = likelihood.heads(()).values()
    return jax.nn.one_hot(values, num_classes)


def decoder_inputs(x: Sequences, x_shape: tuple[int, ...], likelihood: Likelihood) -> Array:
    """`step_inputs` of x [..., T, F]; zeros in place of the steps that a decoder does not see."""
    inputs = step_inputs(x["values"], x_shape, likelihood)
    return inputs * x["kept"][..., None] if "kept" in x else inputs


def draw_in_steps(
    step: Callable[[Any, Array, Array], tuple[Any, tuple[Array, ...]]],
    carry: Any,
    count: int,
    x_shape: tuple[int, ...],
    likelihood: Likelihood,
    rng: Array,
) -> Sequences:
    """Draws x step by step in one scan: `count` sequences of T steps.

    Args:
      step: (carry, x_t-1 [N, *F], t) -> (carry, heads of x_t).
      carry: before the first step.
      count: N.
      x_shape: (T, *F).
      likelihood: of a step.
      rng: key; step t of all sequences is drawn with `fold_in(rng, t)`.
    """
    num_steps, *shape = x_shape

    def draw(carry, t):
        carry, heads = step(*carry, t)
        x = likelihood.sample(jax.random.fold_in(rng, t), *heads)
        return (carry, x), x

    before = jnp.zeros((count, *shape)) if shape else jnp.full((count,), -1)
    _, values = jax.lax.scan(draw, (carry, before), jnp.arange(num_steps))
    length = jnp.full(count, num_steps, jnp.int32)
    return {"values": jnp.moveaxis(values, 0, 1), "length": length}
