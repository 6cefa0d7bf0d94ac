"""The layers of the paper's models (section 5 and appendix): gated, and initialised as there."""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.likelihoods import Likelihood
from vamp_jax.posteriors import Normal

Array = jax.Array

# The authors' code draws dense weights from N(0, 2 / fan_in), not truncated as he_normal does; the
# paper says Glorot, N(0, 2 / (fan_in + fan_out)).
he_kernel = nn.initializers.variance_scaling(2.0, "fan_in", "normal")
glorot_kernel = nn.initializers.variance_scaling(1.0, "fan_avg", "normal")


def uniform_fan_in(fan_in: int) -> Callable:
    """Returns PyTorch's default, U(-1 / sqrt(fan_in), 1 / sqrt(fan_in)): all else starts so."""
    bound = fan_in**-0.5

    def init(key, shape, dtype=jnp.float32):
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def flatten(x: Array, x_shape: tuple[int, ...]) -> Array:
    """Makes a vector of each example: [..., *x_shape] -> [..., prod(x_shape)]."""
    return x.reshape(*x.shape[: x.ndim - len(x_shape)], -1)


class Dense(nn.Module):
    """W x + b, where x is the concatenation of the inputs: [..., D_i] each -> [..., features].

    The product is a sum of one product an input, so an input with fewer leading axes (one image
    beside its thousands of samples) is multiplied once and then broadcast.
    """

    features: int
    kernel_init: Callable = he_kernel
    bias_init: Callable | None = None  # None: as PyTorch's default

    @nn.compact
    def __call__(self, *inputs: Array) -> Array:
        fan_in = sum(x.shape[-1] for x in inputs)
        kernel = self.param("kernel", self.kernel_init, (fan_in, self.features))
        bias_init = self.bias_init or uniform_fan_in(fan_in)
        result = self.param("bias", bias_init, (self.features,))
        start = 0
        for x in inputs:
            result = result + x @ kernel[start : start + x.shape[-1]]
            start += x.shape[-1]
        return result


class GatedDense(nn.Module):
    """(W x + b) * sigmoid(V x + c), where x is the concatenation of the inputs."""

    features: int
    kernel_init: Callable = he_kernel

    def setup(self):
        self.linear = Dense(self.features, self.kernel_init)
        self.gate = Dense(self.features, self.kernel_init)

    def __call__(self, *inputs: Array) -> Array:
        return self.linear(*inputs) * jax.nn.sigmoid(self.gate(*inputs))


class NormalHead(nn.Module):
    """A diagonal normal: mean (linear) and log-variance (clipped to [-6, 2]), [..., D] each."""

    features: int
    kernel_init: Callable = he_kernel
    min_log_var: float = -6.0
    max_log_var: float = 2.0

    def setup(self):
        self.mean = Dense(self.features, self.kernel_init)
        self.log_var = Dense(self.features, self.kernel_init)

    def __call__(self, h: Array) -> Normal:
        return Normal(self.mean(h), jnp.clip(self.log_var(h), self.min_log_var, self.max_log_var))


class Head(nn.Module):
    """The likelihood's heads from the last hidden layer: [..., F] -> [..., *shape] each."""

    likelihood: Likelihood
    x_shape: tuple[int, ...]
    kernel_init: Callable = he_kernel

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, ...]:
        return tuple(
            self.param(name, nn.initializers.zeros_init(), shape)
            if name in self.likelihood.free
            else Dense(math.prod(shape), self.kernel_init, name=name)(h).reshape(
                *h.shape[:-1], *shape
            )
            for name, shape in self.likelihood.heads(self.x_shape).items()
        )
