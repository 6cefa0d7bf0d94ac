"""Small networks of the flows: dicts of dense layers."""

import math
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array
Params = dict[str, Any]

MAX_LOG_SCALE = 2.0  # of each unit, by one coupling or step


def init_dense(rng: Array, sizes: tuple[int, ...]) -> Params:
    """Dense layers between these sizes; the last is zero, so that the network returns zeros."""
    layers = {}
    for i, (fan_in, fan_out) in enumerate(zip(sizes[:-1], sizes[1:], strict=True)):
        stddev = 0.0 if i == len(sizes) - 2 else math.sqrt(2.0 / max(fan_in, 1))
        kernel = stddev * jax.random.normal(jax.random.fold_in(rng, i), (fan_in, fan_out))
        layers[f"dense_{i}"] = {"kernel": kernel, "bias": jnp.zeros(fan_out)}
    return layers


def dense(x: Array, kernel: Array, bias: Array) -> Array:
    """Returns x kernel + bias: [..., I] -> [..., O]."""
    y = jnp.matmul(x, kernel)
    return y + jnp.broadcast_to(bias, y.shape)


def mlp(x: Array, layers: Params) -> Array:
    """Runs x through the layers of `init_dense`, leaky ReLUs between them."""
    for i in range(len(layers)):
        x = jax.nn.leaky_relu(x) if i else x
        x = dense(x, **layers[f"dense_{i}"])
    return x


def bounded_log_scale(s: Array) -> Array:
    """Bounds s to (-MAX_LOG_SCALE, MAX_LOG_SCALE) by a tanh, with slope 1 at zero."""
    return MAX_LOG_SCALE * jnp.tanh(s / MAX_LOG_SCALE)
