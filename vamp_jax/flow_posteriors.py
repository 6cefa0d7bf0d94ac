"""Posteriors with a flow: a diagonal normal bent by maps that depend on x (see `flows`).

    ln q(z|x) = ln N(z_0 | mean, var) - sum_t ln |det dz_t/dz_{t-1}|,    z = z_T

The parameters of a flow are computed once for each example and broadcast against its samples.

The components of a VampPrior are the posteriors of the pseudo-inputs, and their density at a point
needs the inverse of K flows. Householder flows have one, and their posteriors are normals with
full covariance: their VampPrior is exact. With the others the VampPrior is a mixture of the *bases*
N(mean(u_k), var(u_k)): a valid prior, tied to the encoder, but not the mixture of the posteriors.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vamp_jax import flows
from vamp_jax.posteriors import Normal

Array = jax.Array


class Planar(NamedTuple):
    """Planar flows (Rezende & Mohamed 2015). No density at a given point."""

    base: Normal
    u: Array  # [..., T, D]
    w: Array  # [..., T, D]
    b: Array  # [..., T]

    @property
    def component(self) -> Normal:
        """The base."""
        return self.base

    def sample_and_log_prob(self, noise: Array) -> tuple[Array, Array]:
        """A draw [..., D] and its log-density [...], in nats."""
        z, log_q = self.base.sample_and_log_prob(noise)
        for t in range(self.b.shape[-1]):
            z, log_det = flows.planar(z, self.u[..., t, :], self.w[..., t, :], self.b[..., t])
            log_q = log_q - log_det
        return z, log_q


class Sylvester(NamedTuple):
    """Sylvester flows (van den Berg et al. 2018). No density at a given point."""

    base: Normal
    q: Array  # [..., T, D, M], orthonormal columns
    r1: Array  # [..., T, M, M]
    r2: Array  # [..., T, M, M]
    b: Array  # [..., T, M]

    @property
    def component(self) -> Normal:
        """The base."""
        return self.base

    def sample_and_log_prob(self, noise: Array) -> tuple[Array, Array]:
        """A draw [..., D] and its log-density [...], in nats."""
        z, log_q = self.base.sample_and_log_prob(noise)
        for t in range(self.b.shape[-2]):
            q, r1, r2 = (part[..., t, :, :] for part in (self.q, self.r1, self.r2))
            z, log_det = flows.sylvester(z, q, r1, r2, self.b[..., t, :])
            log_q = log_q - log_det
        return z, log_q


class Householder(NamedTuple):
    """Householder flows (Tomczak & Welling 2016): N(H mean, H diag(var) H^T), H orthogonal."""

    base: Normal
    v: Array  # directions of the reflections, [..., T, D]

    @property
    def component(self) -> tuple[Array, Array, Array]:
        """(mean, log_var, rotation) of the posterior itself: the VampPrior is exact."""
        return (*self.base, flows.householder_matrix(self.v))

    def log_prob(self, z: Array) -> Array:
        """ln q(z|x): [..., D] -> [...], in nats."""
        return self.base.log_prob(self._before(z))

    def noise_of(self, z: Array) -> Array:
        """The noise of which z is the draw: [..., D] -> [..., D]."""
        return self.base.noise_of(self._before(z))

    def _before(self, z: Array) -> Array:
        """z before the reflections, each of which undoes itself."""
        for t in reversed(range(self.v.shape[-2])):
            z, _ = flows.householder(z, self.v[..., t, :])
        return z

    def sample_and_log_prob(self, noise: Array) -> tuple[Array, Array]:
        """A draw [..., D] and its log-density [...], in nats."""
        z, log_q = self.base.sample_and_log_prob(noise)
        for t in range(self.v.shape[-2]):
            z, _ = flows.householder(z, self.v[..., t, :])
        return z, log_q


class InverseAutoregressive(NamedTuple):
    """Inverse autoregressive flows (Kingma et al. 2016). No density at a given point.

    (It would take D passes of the network, one after the other, for each point.)
    """

    base: Normal
    context: Array  # what the flow knows of x, [..., C]
    steps: Any  # parameters of `flows.inverse_autoregressive`, the same for all x

    @property
    def component(self) -> Normal:
        """The base."""
        return self.base

    def sample_and_log_prob(self, noise: Array) -> tuple[Array, Array]:
        """A draw [..., D] and its log-density [...], in nats."""
        z, log_q = self.base.sample_and_log_prob(noise)
        z, log_det = flows.inverse_autoregressive(z, self.steps, self.context)
        return z, log_q - log_det


def triangular_bases(num_flows: int, dim: int) -> Array:
    """Returns Q of triangular Sylvester flows: identity and reversal by turns, [T, D, D]."""
    eye = jnp.eye(dim)
    return jnp.stack([eye[::-1] if t % 2 else eye for t in range(num_flows)])
