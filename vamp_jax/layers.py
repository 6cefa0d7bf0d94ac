"""The layers of the paper's models (section 5 and appendix): gated, and initialised as there."""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array

# The authors' code draws dense weights from N(0, 2 / fan_in), not truncated as he_normal does
# (`glorot` makes N(0, 2 / (fan_in + fan_out)) of them, which the paper says)...
dense_kernel_init = nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def uniform_fan_in(fan_in: int) -> Callable:
    """...and leaves all else at PyTorch's default: U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def glorot(params: dict[str, Any]) -> dict[str, Any]:
    """Parameters before training with the same draws of dense weights as N(0, 2 / (in + out)).

    Kernels of convolutions, which have four axes, are left as they are.
    """

    def rescale(path, leaf):
        if path[-1].key != "kernel" or leaf.ndim != 2:
            return leaf
        fan_in, fan_out = leaf.shape
        return leaf * math.sqrt(fan_in / (fan_in + fan_out))

    return jax.tree_util.tree_map_with_path(rescale, params)


class Dense(nn.Module):
    """W x + b, where x is the concatenation of the inputs: [..., D_i] each -> [..., features].

    The product is a sum of one product an input, so an input with fewer leading axes (one image
    beside its thousands of samples) is multiplied once and then broadcast.
    """

    features: int

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        fan_in = sum(x.shape[-1] for x in inputs)
        kernel = self.param("kernel", dense_kernel_init, (fan_in, self.features))
        result = self.param("bias", uniform_fan_in(fan_in), (self.features,))
        start = 0
        for x in inputs:
            result = result + x @ kernel[start : start + x.shape[-1]]
            start += x.shape[-1]
        return result


class GatedDense(nn.Module):
    """(W x + b) * sigmoid(V x + c), where x is the concatenation of the inputs."""

    features: int

    def setup(self):
        self.linear = Dense(self.features)
        self.gate = Dense(self.features)

    def __call__(self, *inputs: Array) -> Array:
        return self.linear(*inputs) * jax.nn.sigmoid(self.gate(*inputs))


class GaussianHead(nn.Module):
    """Mean (linear) and log-variance (clipped to [-6, 2]) of a diagonal Gaussian: [..., D] each."""

    features: int
    min_log_var: float = -6.0
    max_log_var: float = 2.0

    def setup(self):
        self.mean = Dense(self.features)
        self.log_var = Dense(self.features)

    def __call__(self, h: Array) -> tuple[Array, Array]:
        return self.mean(h), jnp.clip(self.log_var(h), self.min_log_var, self.max_log_var)


class PixelHead(nn.Module):
    """The parameters of p(x|.) from the last hidden layer: [..., F] -> [..., H, W, C] each.

    (logits,) for 'bernoulli'; (mean logits, log-scales) for 'discretised_logistic'.
    """

    image_shape: tuple[int, int, int]
    likelihood: str

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, ...]:
        names = ("logits",) if self.likelihood == "bernoulli" else ("mean", "log_scale")
        size = math.prod(self.image_shape)
        return tuple(
            Dense(size, name=name)(h).reshape(*h.shape[:-1], *self.image_shape) for name in names
        )
