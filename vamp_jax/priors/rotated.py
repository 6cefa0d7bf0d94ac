"""A mixture of Gaussians with full covariance: diagonal ones, each rotated.

    p(z) = sum_k w_k N(z | R_k mean_k, R_k diag(exp(log_var_k)) R_k^T),    R_k orthogonal

It is the exact VampPrior of posteriors with Householder flows (vamp_jax.flow_posteriors).
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vamp_jax.posteriors import normal_log_prob, normal_sample
from vamp_jax.priors.arrays import in_rows, replicated, widened
from vamp_jax.priors.checks import (
    check_block_size,
    check_component,
    check_counts,
    check_weights,
)
from vamp_jax.priors.mixture import GaussianMixture, check_points

Array = jax.Array

NUMBERS_AT_ONCE = 1 << 22  # of the products [S, K, D]


class RotatedMixture(NamedTuple):
    """See above. Memory does not grow with points times components times dimensions."""

    base: GaussianMixture  # before the rotations
    rotation: Array  # R, [K, D, D]

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z), [..., D] -> [...], in nats; `block_size` is not needed, see above."""
        check_points("log_prob", z, self.base)
        check_block_size("log_prob", block_size)
        check_weights("log_prob", self.base.log_weight)
        return self._over_points(z, lambda joint: logsumexp(joint, axis=-1))

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(k | z): [..., D] -> [..., K], rows sum to 1."""
        check_points("responsibilities", z, self.base)
        check_block_size("responsibilities", block_size)
        check_weights("responsibilities", self.base.log_weight)
        return self._over_points(z, lambda joint: jax.nn.softmax(joint, axis=-1))

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Draws N points, of one component or of one by its weight each: [N, D]."""
        check_counts("sample", num_samples=num_samples)
        check_weights("sample", self.base.log_weight)
        (mean, log_var, log_weight), rotation = jax.tree.map(replicated, widened(self))
        component_rng, noise_rng = jax.random.split(rng)
        index = jax.random.categorical(component_rng, log_weight, shape=(num_samples,))
        if component is not None:
            check_component("sample", component, len(log_weight))
            index = jnp.full(num_samples, component)
        noise = jax.random.normal(noise_rng, (num_samples, mean.shape[1]))
        z = normal_sample(noise, mean[index], log_var[index])
        return jnp.einsum("nde,ne->nd", rotation[index], z, precision="highest")

    def component_means(self) -> Array:
        """Where the components lie: [K, D]."""
        return jnp.einsum("kde,ke->kd", self.rotation, self.base.mean, precision="highest")

    def _over_points(self, z: Array, of_joint) -> Array:
        """of_joint(ln p(k, z) [..., K]) of some points at a time."""
        num_components, dim = self.base.mean.shape
        chex.assert_shape(self.rotation, (num_components, dim, dim))
        z, (base, rotation) = widened((z, self))

        @jax.checkpoint  # or the backward pass would keep [S, K, D]
        def one(point):
            rotated = jnp.einsum("d,kde->ke", point, rotation, precision="highest")
            joint = normal_log_prob(rotated, base.mean, base.log_var)
            return of_joint(joint + base.log_weight)

        points, restore = in_rows(replicated(z))
        rows = max(1, min(len(points), NUMBERS_AT_ONCE // (num_components * dim)))
        return restore(jax.lax.map(one, points, batch_size=rows))
