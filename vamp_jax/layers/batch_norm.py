"""Batch normalisation, and the ReLU after it, with gradients that are fast on a CPU too."""

import functools
import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

Array = jax.Array


class Affine(NamedTuple):
    """What batch norm makes of each feature of x: (x - mean) factor + bias. [C] each."""

    mean: Array
    factor: Array
    bias: Array

    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., C]"""
        return (x - self.mean) * self.factor + self.bias


class BatchNorm(nn.Module):
    """Batch normalisation by PyTorch's conventions, over all axes but the last.

    The running variance is the unbiased one, and moves by a tenth each time (Flax would call that
    momentum 0.9). The scale starts at 1, as in PyTorch since 1.2; the authors' version drew it
    from U(0, 1).
    """

    axis_name: str | None = None  # of the mapped axis over whose devices the batch is spread
    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, row_weight: Array | None = None) -> Affine:
        """The map that normalises by the batch's statistics if `train`, else by the running ones.

        It is not applied yet: what comes after may know how to do both at once.

        Args:
          x: [..., H, W, C]; without `train` any [..., C].
          train: also updates the collection 'batch_stats', which must then be mutable.
          row_weight: 1 for real rows and 0 for padding, of x's leading axes [...].
        """
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,))
        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            return Affine(running_mean.value, factor, bias)

        weight = jnp.ones(x.shape[:-3]) if row_weight is None else row_weight
        mean, var, count = _moments(x, jnp.broadcast_to(weight, x.shape[:-3]), self.axis_name)
        if not self.is_initializing():
            unbiased = var * count / jnp.maximum(count - 1.0, 1.0)
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                new = jax.lax.stop_gradient(new)
                running.value = (1.0 - self.momentum) * running.value + self.momentum * new
        return Affine(mean, scale * jax.lax.rsqrt(var + self.epsilon), bias)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _moments(x, weight, axis_name):
    """Mean and variance of x [..., H, W, C], [C] each, and the number of pixels.

    The rows count by their weight [...], 0 or 1; over all devices.
    """
    return _moments_fwd(x, weight, axis_name)[0]


def _moments_fwd(x, weight, axis_name):
    count = _over_devices(jnp.sum(weight), axis_name) * math.prod(x.shape[-3:-1])
    # In two passes: E[x^2] - E[x]^2 would cancel where the mean is large.
    mean = _over_devices(sum_of_pixels(x, weight), axis_name) / count
    var = _over_devices(sum_of_pixels((x - mean) ** 2, weight), axis_name) / count
    return (mean, var, count), (x, weight, mean, count)


def _moments_bwd(axis_name, saved, gradients):
    x, weight, mean, count = saved
    # Every real row has a part in both, whatever device it is on.
    of_mean, of_var = (_over_devices(g, axis_name) / count for g in gradients[:2])
    return weight[..., None, None, None] * (of_mean + 2.0 * (x - mean) * of_var), None


_moments.defvjp(_moments_fwd, _moments_bwd)


def _over_devices(total, axis_name):
    return total if axis_name is None else jax.lax.psum(total, axis_name)


@jax.custom_vjp
def relu(x: Array, norm: Affine) -> Array:
    """max(0, norm(x)): [..., C] -> [..., C]; x is all that its gradient keeps."""
    return nn.relu(norm(x))


def relu_gradient(x: Array, norm: Affine, g: Array) -> tuple[Array, Affine]:
    """The gradients of x and of norm, from that of `relu`'s value."""
    g = jnp.where(norm(x) > 0, g, 0.0)
    of_bias = sum_of_pixels(g)
    of_factor = sum_of_pixels(g * (x - norm.mean))
    return g * norm.factor, Affine(-norm.factor * of_bias, of_factor, of_bias)


relu.defvjp(lambda x, norm: (relu(x, norm), (x, norm)), lambda saved, g: relu_gradient(*saved, g))


def sum_of_pixels(x: Array, weight: Array | float = 1.0) -> Array:
    """Sum of x [..., C] over all axes but the last, times weights of its leading axes -> [C]."""
    weight = jnp.asarray(weight, x.dtype)
    weight = weight.reshape(*weight.shape, *[1] * (x.ndim - weight.ndim))

    def product(x, weight):  # on a CPU a third of the time that XLA's sum takes
        row = jnp.broadcast_to(weight, (*x.shape[:-1], 1)).reshape(1, -1)
        return jnp.matmul(row, x.reshape(-1, x.shape[-1]), precision="highest")[0]

    def plain(x, weight):
        return jnp.sum(x * weight, axis=tuple(range(x.ndim - 1)))

    return jax.lax.platform_dependent(x, weight, cpu=product, default=plain)
