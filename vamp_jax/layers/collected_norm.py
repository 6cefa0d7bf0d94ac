"""Batch normalisation of dense layers whose statistics are collected, not averaged on the run.

While the collection 'batch_stats' is mutable, a layer stores the mean and variance of the rows that
it sees, and normalises by them; otherwise it normalises by what is stored. A training step collects
those of its batch first and then uses them for all it computes, pseudo-inputs among them: gradients
go through both. After an epoch they are collected over the training set, for validation and all
that follows (Soenderby et al. 2016, arXiv 1602.02282, found running averages to be worse).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers.dense import he_kernel
from vamp_jax.posteriors import Normal

Array = jax.Array

EPSILON = 1e-5


class CollectedNorm(nn.Module):
    """(x - mean) / sqrt(var + epsilon) * scale + bias over all axes but the last: [..., C]."""

    axis_name: str | None = None  # of the mapped axis over whose devices the batch is spread

    @nn.compact
    def __call__(self, x: Array, row_weight: Array | None = None) -> Array:
        """Normalises x [..., B, C]; `row_weight` [B], 1 or 0 for padding, is for collecting."""
        shape = x.shape[-1:]
        scale = self.param("scale", nn.initializers.ones, shape)
        bias = self.param("bias", nn.initializers.zeros, shape)
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
        var = self.variable("batch_stats", "var", jnp.ones, shape)
        if self.is_mutable_collection("batch_stats") and not self.is_initializing():
            weight = jnp.ones(()) if row_weight is None else row_weight[:, None]
            weight = jnp.broadcast_to(weight, (*x.shape[:-1], 1))
            count = self._sum(weight)
            mean.value = self._sum(weight * x) / count
            var.value = self._sum(weight * (x - mean.value) ** 2) / count
        return (x - mean.value) * jax.lax.rsqrt(var.value + EPSILON) * scale + bias

    def _sum(self, x: Array) -> Array:
        total = jnp.sum(x, axis=tuple(range(x.ndim - 1)))
        return total if self.axis_name is None else jax.lax.psum(total, self.axis_name)


class NormedDense(nn.Module):
    """W x, batch-normalised; the norm has the bias."""

    features: int
    kernel_init: Callable = he_kernel
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Array, row_weight: Array | None = None) -> Array:
        kernel = self.param("kernel", self.kernel_init, (x.shape[-1], self.features))
        return CollectedNorm(self.axis_name, name="norm")(x @ kernel, row_weight)


class NormedMLP(nn.Module):
    """Two dense layers with batch norm and leaky ReLUs: [..., F] -> [..., features]."""

    features: int
    kernel_init: Callable = he_kernel
    axis_name: str | None = None

    @nn.compact
    def __call__(self, h: Array, row_weight: Array | None = None) -> Array:
        for name in ("first", "second"):
            layer = NormedDense(self.features, self.kernel_init, self.axis_name, name=name)
            h = nn.leaky_relu(layer(h, row_weight))
        return h


class NormedNormalHead(nn.Module):
    """A diagonal normal: mean and variance, the latter a softplus, of batch-normalised layers.

    The log-variance is clipped to [-6, 2], as that of all normals here is.
    """

    features: int
    kernel_init: Callable = he_kernel
    axis_name: str | None = None

    @nn.compact
    def __call__(self, h: Array, row_weight: Array | None = None) -> Normal:
        parts = [
            NormedDense(self.features, self.kernel_init, self.axis_name, name=name)(h, row_weight)
            for name in ("mean", "var")
        ]
        # ln softplus(a), whose softplus would be 0 far below.
        log_var = jnp.log(jax.nn.softplus(jnp.maximum(parts[1], -10.0)))
        return Normal(parts[0], jnp.clip(log_var, -6.0, 2.0))
