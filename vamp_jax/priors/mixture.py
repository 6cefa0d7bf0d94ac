"""A prior's components: a mixture of diagonal Gaussians, its density and its sampler."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vamp_jax.posteriors import LOG_2PI, normal_log_prob
from vamp_jax.priors.arrays import (
    in_blocks,
    in_rows,
    once_differentiable,
    replicated,
    rows_at,
    widened,
)
from vamp_jax.priors.checks import (
    check_block_size,
    check_component,
    check_counts,
    check_real,
    check_sizes,
    check_weights,
)
from vamp_jax.typed_jit import jitted

Array = jax.Array


class GaussianMixture(NamedTuple):
    """sum_k w_k N(z | mean_k, diag(exp(log_var_k))), with ln w = log_weight and sum_k w_k = 1."""

    mean: Array  # [K, D]
    log_var: Array  # [K, D]
    log_weight: Array  # [K]

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z), [..., D] -> [...]; see `priors.log_prob`."""
        check_points("log_prob", z, self)
        check_block_size("log_prob", block_size)
        check_weights("log_prob", self.log_weight)
        return _log_prob(z, self, block_size=block_size)

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(k | z), [..., D] -> [..., K]; see `priors.responsibilities`."""
        check_points("responsibilities", z, self)
        check_block_size("responsibilities", block_size)
        check_weights("responsibilities", self.log_weight)
        return _responsibilities(z, self, block_size=block_size)

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Draws N points, of one component or of one by its weight each: [N, D]."""
        check_counts("sample", num_samples=num_samples)
        check_mixture("sample", self)
        if component is not None:
            check_component("sample", component, self.mean.shape[0])
        check_weights("sample", self.log_weight)
        mean, log_var, log_weight = map(replicated, widened(self))
        component_rng, noise_rng = jax.random.split(rng)
        if component is None:
            index = jax.random.categorical(component_rng, log_weight, shape=(num_samples,))
        else:
            index = jnp.full(num_samples, component)
        noise = jax.random.normal(noise_rng, (num_samples, mean.shape[1]), mean.dtype)
        return mean[index] + jnp.exp(0.5 * log_var[index]) * noise

    def component_means(self) -> Array:
        """Where the components lie: [K, D]."""
        return self.mean


def component_log_prob(z: Array, prior: GaussianMixture, *, block_size: int | None = None) -> Array:
    """ln N(z | mean_k, diag(exp(log_var_k))) for each component: [..., D] -> [..., K], in nats.

    The plain broadcast over [..., K, D], without the weights: the reference for `log_prob`.

    Args:
      z: [..., D]
      prior: K components in D dimensions.
      block_size: goes through the components in blocks of this many, so that no more than
        [..., block_size, D] is ever held beside the result.
    Raises:
      ValueError: when the last axis of z is not the prior's D, or block_size is below 1.
    """
    check_points("component_log_prob", z, prior)
    check_block_size("component_log_prob", block_size)
    return _component_log_prob(z, prior, block_size=block_size)


def check_points(name: str, z: Array, prior: GaussianMixture) -> None:
    """Raises a ValueError, in the name of a function, unless z is [..., D] for this prior's D."""
    check_mixture(name, prior)
    check_real(name, "z", z)
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
    for field, array in zip(prior._fields, prior, strict=True):
        check_real(name, f"the prior's {field}", array)


# ---------------------------------------------------------------------------------------------
# The density.


@jitted("block_size")
def _log_prob(z: Array, prior: GaussianMixture, *, block_size: int | None) -> Array:
    """As `GaussianMixture.log_prob`, its arguments checked."""
    z, prior = widened((z, prior))
    points, restore = in_rows(z)
    if block_size is None or block_size >= prior.mean.shape[0]:
        return restore(_mixture_log_prob(points, *prior))

    @once_differentiable
    def blocked(points, prior):
        # Recomputed in the backward pass: keeping S K numbers is what the blocks are to avoid.
        block = jax.checkpoint(lambda part: _mixture_log_prob(points, *part))
        return logsumexp(jax.lax.map(block, _blocks_of(prior, block_size)), axis=0)

    return restore(blocked(points, prior))


def _blocks_of(prior: GaussianMixture, block_size: int) -> GaussianMixture:
    """[M, block_size, ...] of each field, filled up with components of weight zero."""
    return GaussianMixture(
        in_blocks(prior.mean, block_size),
        in_blocks(prior.log_var, block_size),
        in_blocks(prior.log_weight, block_size, fill=-jnp.inf),
    )


@jitted("block_size")
def _component_log_prob(z: Array, prior: GaussianMixture, *, block_size: int | None) -> Array:
    """As `component_log_prob`, its arguments checked."""
    z, prior = widened((z, prior))
    num_components = prior.mean.shape[0]
    if block_size is None or block_size >= num_components:
        return _broadcast_log_prob(z, prior.mean, prior.log_var)
    points, restore = in_rows(z)
    mean, log_var, _ = _blocks_of(prior, block_size)
    block = jax.checkpoint(lambda part: _broadcast_log_prob(points, *part))
    found = jnp.moveaxis(jax.lax.map(block, (mean, log_var)), 0, 1)  # [S, M, block_size]
    found = jnp.reshape(found, (len(points), mean.shape[0] * block_size))
    return restore(found[:, :num_components])


def _broadcast_log_prob(z: Array, mean: Array, log_var: Array) -> Array:
    ones = tuple(range(z.ndim - 1))
    mean, log_var = jnp.expand_dims(mean, ones), jnp.expand_dims(log_var, ones)
    return normal_log_prob(z[..., None, :], mean, log_var)


@jitted("block_size")
def _responsibilities(z: Array, prior: GaussianMixture, *, block_size: int | None) -> Array:
    """As `GaussianMixture.responsibilities`, its arguments checked."""
    joint = _component_log_prob(z, prior, block_size=block_size)
    log_weight = prior.log_weight.astype(joint.dtype)
    return jax.nn.softmax(joint + jnp.expand_dims(log_weight, tuple(range(z.ndim - 1))), axis=-1)


# The quadratic form as two matrix products (z^2 by 1/var, z by mean/var) is an order of magnitude
# faster than the broadcast, forward and above all backward, but cancels: with log-variances of -6
# and means of 10 its terms reach 1e6 while their sum is of order 1. In float64 that costs nothing
# (errors below 1e-9, and below 1e-6 while squares over variances are below 1e9), and the products
# are still far cheaper than the broadcast. Derivatives are written out as matrix products too, and
# stay in float32. What cancels most is, at each point, the component with the largest share: that
# one is computed from differences, whatever its log-variance. Errors of the others count by their
# shares: with the same log-variances and means a gradient's error can reach 1e-3 of its largest
# entry; with ones of order 1 it is below 1e-5.


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
        return constant[None] + z @ scaled_mean.T - 0.5 * ((z * z) @ precision.T)

    def broadcast(z, mean, log_var, log_weight):
        joint = _broadcast_log_prob(z, mean, log_var) + log_weight[None]
        return joint.astype(jnp.float64)

    # TPUs only emulate float64; there the fused broadcast is the better bargain.
    joint = jax.lax.platform_dependent(
        z, mean, log_var, log_weight, tpu=broadcast, default=products
    )
    largest = jnp.max(joint, axis=-1, keepdims=True)
    largest = jnp.where(jnp.isfinite(largest), largest, 0.0)  # all weights zero: -inf, not nan
    shifted = (joint - largest).astype(dtype)
    total = jax.vmap(logsumexp)(shifted)
    value = largest[:, 0] + total.astype(jnp.float64)
    return value.astype(dtype), shifted - total[:, None]


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
    share = jnp.where(jnp.isneginf(log_weight)[None], 0.0, jnp.exp(log_share))  # [S, K]
    nearest, is_nearest = _nearest(log_share)
    exact = _tangent_at(
        z, dz, *(rows_at(x, nearest) for x in (mean, log_var, dmean, dlog_var, dlog_weight))
    )

    # Distances do not change under a common shift, and round-off shrinks with the numbers.
    centre = jax.lax.stop_gradient(jnp.mean(mean, axis=0, keepdims=True))
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
        + jnp.sum(-scaled_mean * dmean + 0.5 * (mean * scaled_mean - 1.0) * dlog_var, axis=-1)[None]
        + dlog_weight[None]
    )
    dlog_joint = jnp.where(is_nearest, exact[:, None], dlog_joint)
    dvalue = jnp.sum(share * dlog_joint, axis=-1)
    return (value, log_share), (dvalue, dlog_joint - dvalue[:, None])


def _nearest(log_share: Array) -> tuple[Array, Array]:
    """Of each point the component with the largest share, [S], and where it is in [S, K].

    By two maxima, which on a CPU take a fifth of the time of an argmax.
    """
    number = jnp.arange(log_share.shape[1], dtype=jnp.int32)[None]
    is_largest = log_share == jnp.max(log_share, axis=1, keepdims=True)
    nearest = jnp.max(jnp.where(is_largest, number, 0), axis=1)
    return nearest, nearest[:, None] == number


def _tangent_at(z, dz, mean, log_var, dmean, dlog_var, dlog_weight):
    """d ln p(k, z) [S] of one component for each point, from differences."""
    difference = z - mean
    scaled = difference * jnp.exp(-log_var)
    of_dims = scaled * (dmean - dz) + 0.5 * (scaled * difference - 1.0) * dlog_var
    return dlog_weight + jnp.sum(of_dims, axis=-1)


def _mixture_log_prob(z: Array, mean: Array, log_var: Array, log_weight: Array) -> Array:
    return log_joint(z, mean, log_var, log_weight)[0]
