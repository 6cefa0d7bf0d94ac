"""A prior's components: a mixture of diagonal Gaussians, its density and its sampler."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vamp_jax.posteriors import LOG_2PI, normal_log_prob, normal_sample
from vamp_jax.priors.checks import check_counts, check_sizes

Array = jax.Array


class GaussianMixture(NamedTuple):
    """sum_k w_k N(z | mean_k, diag(exp(log_var_k))), with ln w = log_weight and sum_k w_k = 1."""

    mean: Array  # [K, D]
    log_var: Array  # [K, D]
    log_weight: Array  # [K]

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z), [..., D] -> [...]; see `priors.log_prob`."""
        check_points("log_prob", z, self)
        if block_size is not None:
            check_counts("log_prob", block_size=block_size)
        return _log_prob(z, self, block_size=block_size)

    def responsibilities(self, z: Array) -> Array:
        """p(k | z), [..., D] -> [..., K]; see `priors.responsibilities`."""
        check_points("responsibilities", z, self)
        return jax.nn.softmax(component_log_prob(z, self) + self.log_weight, axis=-1)

    def sample(self, rng: Array, num_samples: int) -> Array:
        """Draws a component by its weight, then a point of it, N times: [N, D]."""
        check_counts("sample", num_samples=num_samples)
        check_mixture("sample", self)
        component_rng, noise_rng = jax.random.split(rng)
        index = jax.random.categorical(component_rng, self.log_weight, shape=(num_samples,))
        dtype = jnp.result_type(self.mean)
        noise = jax.random.normal(noise_rng, (num_samples, self.mean.shape[1]), dtype)
        return self.mean[index] + jnp.exp(0.5 * self.log_var[index]) * noise

    def sample_component(self, rng: Array, component: int | Array, num_samples: int) -> Array:
        """Draws N points of one component: [N, D]."""
        noise = jax.random.normal(rng, (num_samples, self.mean.shape[1]), self.mean.dtype)
        return normal_sample(noise, self.mean[component], self.log_var[component])

    def component_means(self) -> Array:
        """Where the components lie: [K, D]."""
        return self.mean


def component_log_prob(z: Array, prior: GaussianMixture) -> Array:
    """ln N(z | mean_k, diag(exp(log_var_k))) for each component: [..., D] -> [..., K], in nats.

    The plain broadcast over [..., K, D], without the weights: the reference for `log_prob`.

    Raises:
      ValueError: when the last axis of z is not the prior's D.
    """
    check_points("component_log_prob", z, prior)
    return normal_log_prob(z[..., None, :], prior.mean, prior.log_var)


def check_points(name: str, z: Array, prior: GaussianMixture) -> None:
    """Raises a ValueError, in the name of a function, unless z is [..., D] for this prior's D."""
    check_mixture(name, prior)
    if not hasattr(z, "shape"):
        raise ValueError(f"{name}: z must be an array, not a {type(z).__name__}.")
    if jnp.shape(z)[-1:] != jnp.shape(prior.mean)[1:]:
        raise ValueError(
            f"{name}: z must be [..., {prior.mean.shape[1]}] for this prior, but has shape "
            f"{jnp.shape(z)}."
        )


def check_mixture(name: str, prior: GaussianMixture) -> None:
    """Raises a ValueError, in the name of a function, unless prior is a mixture that fits."""
    if not isinstance(prior, GaussianMixture):
        raise ValueError(
            f"{name}: prior must be a GaussianMixture, as the builders return, not a "
            f"{type(prior).__name__}."
        )
    if jnp.ndim(prior.mean) != 2 or jnp.shape(prior.mean) != jnp.shape(prior.log_var):
        raise ValueError(
            f"{name}: the prior's mean and log_var must both be [K, D], but have shapes "
            f"{jnp.shape(prior.mean)} and {jnp.shape(prior.log_var)}."
        )
    if jnp.shape(prior.log_weight) != jnp.shape(prior.mean)[:1]:
        raise ValueError(
            f"{name}: the prior's log_weight must be [K] = ({prior.mean.shape[0]},), but has "
            f"shape {jnp.shape(prior.log_weight)}."
        )
    check_sizes(name, prior.mean)


# ---------------------------------------------------------------------------------------------
# The density.


@functools.partial(jax.jit, static_argnames="block_size")
def _log_prob(z: Array, prior: GaussianMixture, *, block_size: int | None) -> Array:
    """As `GaussianMixture.log_prob`, its arguments checked."""
    points = jnp.reshape(z, (-1, z.shape[-1]))
    num_components = prior.mean.shape[0]
    if block_size is None or block_size >= num_components:
        result = _mixture_log_prob(points, *prior)
    else:
        blocks = jax.tree.map(_in_blocks(block_size), _padded(prior, block_size))
        # Recomputed in the backward pass: keeping S K numbers is what the blocks are to avoid.
        block = jax.checkpoint(lambda part: _mixture_log_prob(points, *part))
        result = logsumexp(jax.lax.map(block, blocks), axis=0)
    return jnp.reshape(result, z.shape[:-1])


def _padded(prior: GaussianMixture, multiple: int) -> GaussianMixture:
    """Components of weight zero up to a multiple."""
    extra = -prior.mean.shape[0] % multiple
    return GaussianMixture(
        jnp.pad(prior.mean, ((0, extra), (0, 0))),
        jnp.pad(prior.log_var, ((0, extra), (0, 0))),
        jnp.pad(prior.log_weight, (0, extra), constant_values=-jnp.inf),
    )


def _in_blocks(block_size: int) -> Callable[[Array], Array]:
    return lambda x: jnp.reshape(x, (-1, block_size, *x.shape[1:]))


# The quadratic form as two matrix products (z^2 by 1/var, z by mean/var) is an order of magnitude
# faster than the broadcast, forward and above all backward, but cancels: with log-variances of -6
# and means of 10 its terms reach 1e6 while their sum is of order 1. In float64 that costs nothing
# (errors below 1e-9), and the products are still far cheaper than the broadcast. Derivatives are
# written out as matrix products too, and stay in float32: with the same log-variances and means a
# gradient's error can reach 1e-3 of its largest entry; with ones of order 1 it is below 1e-5.


def _float64_log_joint(
    z: Array, mean: Array, log_var: Array, log_weight: Array
) -> tuple[Array, Array]:
    dtype = jnp.result_type(z, mean, log_var, log_weight)

    def products(z, mean, log_var, log_weight):
        z, mean, log_var, log_weight = (
            x.astype(jnp.float64) for x in (z, mean, log_var, log_weight)
        )
        precision = jnp.exp(-log_var)
        scaled_mean = mean * precision
        constant = log_weight - 0.5 * jnp.sum(mean * scaled_mean + log_var + LOG_2PI, axis=-1)
        return constant + z @ scaled_mean.T - 0.5 * ((z * z) @ precision.T)

    def broadcast(z, mean, log_var, log_weight):
        prior = GaussianMixture(mean, log_var, log_weight)
        return (component_log_prob(z, prior) + log_weight).astype(jnp.float64)

    # TPUs only emulate float64; there the fused broadcast is the better bargain.
    joint = jax.lax.platform_dependent(
        z, mean, log_var, log_weight, tpu=broadcast, default=products
    )
    largest = jnp.max(joint, axis=-1, keepdims=True)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)  # all weights zero: -inf, not nan
    shifted = (joint - largest).astype(dtype)
    total = jax.vmap(logsumexp)(shifted)
    return (largest[:, 0] + total).astype(dtype), shifted - total[:, None]


@jax.custom_batching.custom_vmap
def _batchable_log_joint(z, mean, log_var, log_weight):
    with jax.enable_x64(True):
        return _float64_log_joint(z, mean, log_var, log_weight)


@_batchable_log_joint.def_vmap
def _log_joint_vmap(axis_size, batched, z, *prior):
    # JAX would apply its own rules after the block that enables 64 bits, and so to 32-bit types.
    if not any(batched[1:]):  # more points of one prior: as many rows more
        value, share = _batchable_log_joint(jnp.reshape(z, (-1, z.shape[-1])), *prior)
        value, share = jnp.reshape(value, z.shape[:2]), jnp.reshape(share, (*z.shape[:2], -1))
    else:
        args = [
            x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, is_batched in zip((z, *prior), batched, strict=True)
        ]
        value, share = jax.lax.map(lambda each: _batchable_log_joint(*each), args)
    return (value, share), (True, True)


@jax.custom_jvp
def log_joint(z: Array, mean: Array, log_var: Array, log_weight: Array) -> tuple[Array, Array]:
    """(ln p(z) [S], ln p(k | z) [S, K]) for z [S, D] and a mixture of K components."""
    return _batchable_log_joint(z, mean, log_var, log_weight)


@log_joint.defjvp
def log_joint_jvp(primals, tangents):
    """d ln p(z) = sum_k p(k | z) d ln p(k, z), and d ln p(k | z) = d ln p(k, z) - d ln p(z)."""
    z, mean, log_var, log_weight = primals
    dz, dmean, dlog_var, dlog_weight = tangents
    value, log_share = log_joint(*primals)
    # A component of weight zero has no share, whatever else it holds.
    share = jnp.where(jnp.isneginf(log_weight), 0.0, jnp.exp(log_share))  # [S, K]

    # Distances do not change under a common shift, and round-off shrinks with the numbers.
    centre = jax.lax.stop_gradient(jnp.mean(mean, axis=0))
    z, mean = z - centre, mean - centre
    precision = jnp.exp(-log_var)
    scaled_mean = mean * precision

    def cross(a, b):  # [S, D], [K, D] -> [S, K]
        return jnp.matmul(a, b.T, precision=jax.lax.Precision.HIGHEST)

    dlog_joint = (
        cross(dz, scaled_mean)
        - cross(dz * z, precision)
        + cross(z, precision * dmean - scaled_mean * dlog_var)
        + cross(0.5 * z * z, precision * dlog_var)
        + jnp.sum(-scaled_mean * dmean + 0.5 * (mean * scaled_mean - 1.0) * dlog_var, axis=-1)
        + dlog_weight
    )
    dvalue = jnp.sum(share * dlog_joint, axis=-1)
    return (value, log_share), (dvalue, dlog_joint - dvalue[:, None])


def _mixture_log_prob(z: Array, mean: Array, log_var: Array, log_weight: Array) -> Array:
    return log_joint(z, mean, log_var, log_weight)[0]
