"""The priors p(z) of the paper (Tomczak & Welling 2018, section 3) as pure functions.

All four are mixtures of diagonal Gaussians, so *building* the components and *using* them are
kept apart: a builder (`standard_normal`, `mixture_of_gaussians`, `vamp`, `vamp_data`) returns a
`GaussianMixture`, and `log_prob`, `sample` and `responsibilities` work on any of them. Build once,
use often: the VampPrior's encoder runs in the builder only.

The functions take any encoder `x -> (mean [K, D], log_var [K, D])` and any pytree of
pseudo-inputs; nothing here knows of the models or the trainer of this package. Nats everywhere.
"""

import functools
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vamp_jax.posteriors import LOG_2PI, normal_log_prob

Array = jax.Array
Params = dict[str, Any]
Encode = Callable[[Any], tuple[Array, Array]]


class GaussianMixture(NamedTuple):
    """sum_k w_k N(z | mean_k, diag(exp(log_var_k))), with ln w = log_weight and sum_k w_k = 1."""

    mean: Array  # [K, D]
    log_var: Array  # [K, D]
    log_weight: Array  # [K]


# ---------------------------------------------------------------------------------------------
# Builders: parameters (and an encoder) in, components out.


def standard_normal(
    params: Params | None = None, encode: Encode | None = None, *, latent_dim: int
) -> GaussianMixture:
    """N(0, I) in `latent_dim` dimensions, as a mixture of K = 1 (the paper's "SG")."""
    del params, encode  # the builders share one signature; this one needs neither
    _check_counts("standard_normal", latent_dim=latent_dim)
    return GaussianMixture(jnp.zeros((1, latent_dim)), jnp.zeros((1, latent_dim)), jnp.zeros(1))


def mixture_of_gaussians(params: Params, encode: Encode | None = None) -> GaussianMixture:
    """1/K sum_k N(mu_k, diag(sigma_k^2)) with free parameters (the paper's "MoG").

    Args:
      params: `mean` [K, D], `log_var` [K, D], and `weight_logits` [K] if the weights are learned.
      encode: unused.
    Raises:
      ValueError: when a parameter is missing or the shapes do not fit together.
    """
    del encode
    mean, log_var = (_entry("mixture_of_gaussians", params, name) for name in ("mean", "log_var"))
    return _mixture("mixture_of_gaussians", mean, log_var, params)


def vamp(
    params: Params, encode: Encode, *, bounds: tuple[float, float] | None = None
) -> GaussianMixture:
    """The VampPrior 1/K sum_k q(z | u_k): learned pseudo-inputs through the encoder (eq. 9).

    Gradients reach the pseudo-inputs and, through the components, the encoder's parameters: prior
    and posterior "cooperate" (section 3). Nothing is stopped here; do not stop it outside.

    Args:
      params: `pseudo_inputs`, a pytree of arrays [K, ...] that `encode` takes, and
        `weight_logits` [K] if the weights are learned.
      encode: K pseudo-inputs -> (mean [K, D], log_var [K, D]); the posterior's own encoder.
      bounds: clips every pseudo-input to this range before it is encoded. The paper's models use
        (0, 1), a hard tanh: outside the range the gradient is zero. None leaves them free.
    Raises:
      ValueError: for pseudo-inputs or bounds that cannot be, or an encoder that returns other
        shapes.
    """
    pseudo_inputs = _entry("vamp", params, "pseudo_inputs")
    if bounds is not None:
        if len(bounds) != 2 or not bounds[0] <= bounds[1]:
            raise ValueError(f"vamp: bounds is {bounds}; it must be (lowest, highest).")
        pseudo_inputs = jax.tree.map(lambda u: jnp.clip(u, *bounds), pseudo_inputs)
    return _mixture("vamp", *_encoded("vamp", encode, pseudo_inputs), params)


def vamp_data(params: Params, encode: Encode) -> GaussianMixture:
    """The VampPrior on K fixed training examples instead of learned pseudo-inputs.

    The examples get no gradient; the encoder's parameters do, through the components.

    Args:
      params: `pseudo_inputs`, a pytree of arrays [K, ...] that `encode` takes, and
        `weight_logits` [K] if the weights are learned.
      encode: K examples -> (mean [K, D], log_var [K, D]); the posterior's own encoder.
    Raises:
      ValueError: for examples that cannot be, or an encoder that returns other shapes.
    """
    examples = jax.tree.map(jax.lax.stop_gradient, _entry("vamp_data", params, "pseudo_inputs"))
    return _mixture("vamp_data", *_encoded("vamp_data", encode, examples), params)


def _entry(name: str, params: Params, key: str) -> Any:
    if not isinstance(params, Mapping) or key not in params:
        held = sorted(params) if isinstance(params, Mapping) else type(params).__name__
        raise ValueError(f"{name}: params must be a dict with {key!r}, but is or has {held}.")
    return params[key]


def _encoded(name: str, encode: Encode, inputs: Any) -> tuple[Array, Array]:
    """(mean, log_var) of K pseudo-inputs."""
    num_components = _num_examples(name, "pseudo_inputs", inputs)
    if not callable(encode):
        raise ValueError(f"{name}: encode must be a function, but is {encode!r}.")
    encoded = encode(inputs)
    if not isinstance(encoded, tuple | list) or len(encoded) != 2:
        raise ValueError(
            f"{name}: encode must return (mean, log_var), but returned {type(encoded).__name__}"
            + (f" of {len(encoded)}." if isinstance(encoded, tuple | list) else ".")
        )
    for part in encoded:
        if jnp.shape(part)[:1] != (num_components,):
            raise ValueError(
                f"{name}: encode must return mean and log_var [K, D] with K = {num_components}, "
                f"one row for each pseudo-input, but returned shape {jnp.shape(part)}."
            )
    return encoded


def _num_examples(name: str, field: str, examples: Any) -> int:
    """K of a pytree of arrays [K, ...]."""
    shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(examples)]
    counts = {shape[:1] for shape in shapes}
    if len(counts) != 1 or not all(counts) or (0,) in counts:
        raise ValueError(
            f"{name}: {field} must be a pytree of arrays [K, ...] with one K of at least 1, but "
            f"has shapes {shapes}."
        )
    return shapes[0][0]


def _check_counts(name: str, **counts: int) -> None:
    for field, count in counts.items():
        if not isinstance(count, numbers.Integral) or count < 1:
            raise ValueError(
                f"{name}: {field} is {count!r}; it must be at least 1, and a whole number."
            )


def _check_stddev(name: str, stddev: float) -> None:
    if isinstance(stddev, numbers.Real) and not 0 <= stddev < math.inf:
        raise ValueError(f"{name}: stddev is {stddev}; it must be finite and not negative.")


def _mixture(name: str, mean: Array, log_var: Array, params: Params) -> GaussianMixture:
    if jnp.ndim(mean) != 2 or jnp.shape(mean) != jnp.shape(log_var):
        raise ValueError(
            f"{name}: mean and log_var must both be [K, D], but have shapes "
            f"{jnp.shape(mean)} and {jnp.shape(log_var)}."
        )
    _check_sizes(name, mean)
    num_components = mean.shape[0]
    logits = params.get("weight_logits")
    if logits is None:
        log_weight = jnp.full(num_components, -math.log(num_components), mean.dtype)
    elif jnp.shape(logits) == (num_components,):
        log_weight = jax.nn.log_softmax(logits)
    else:
        raise ValueError(
            f"{name}: weight_logits must have shape ({num_components},), one for each component, "
            f"but has {jnp.shape(logits)}."
        )
    return GaussianMixture(mean, log_var, log_weight)


# ---------------------------------------------------------------------------------------------
# Initialisers of the parameters: a plain dict out.


def init_mixture_of_gaussians(
    rng: Array,
    num_components: int,
    latent_dim: int,
    *,
    stddev: float = 1.0,
    learned_weights: bool = False,
) -> Params:
    """Means drawn from N(0, stddev^2), log-variances 0; see `mixture_of_gaussians`."""
    name = "init_mixture_of_gaussians"
    _check_counts(name, num_components=num_components, latent_dim=latent_dim)
    _check_stddev(name, stddev)
    params = {
        "mean": stddev * jax.random.normal(rng, (num_components, latent_dim)),
        "log_var": jnp.zeros((num_components, latent_dim)),
    }
    return _with_weights(params, num_components, learned_weights)


def init_vamp(
    rng: Array,
    num_components: int,
    x_shape: tuple[int, ...],
    *,
    mean: float,
    stddev: float,
    learned_weights: bool = False,
) -> Params:
    """K pseudo-inputs of shape `x_shape` drawn from N(mean, stddev^2), as in the paper."""
    _check_counts("init_vamp", num_components=num_components)
    _check_stddev("init_vamp", stddev)
    if not isinstance(x_shape, tuple | list):
        raise ValueError(f"init_vamp: x_shape is {x_shape!r}; it must be a tuple of sizes.")
    _check_counts("init_vamp", **{f"x_shape[{i}]": size for i, size in enumerate(x_shape)})
    noise = jax.random.normal(rng, (num_components, *x_shape))
    return _with_weights({"pseudo_inputs": mean + stddev * noise}, num_components, learned_weights)


def init_vamp_from_data(
    rng: Array, examples: Any, *, stddev: float = 0.01, learned_weights: bool = False
) -> Params:
    """K given examples (a pytree of arrays [K, ...]) plus N(0, stddev^2) noise on every leaf.

    With `stddev=0` these are the fixed examples that `vamp_data` wants.
    """
    num_components = _num_examples("init_vamp_from_data", "examples", examples)
    _check_stddev("init_vamp_from_data", stddev)
    leaves, treedef = jax.tree.flatten(examples)
    keys = jax.random.split(rng, len(leaves))
    noisy = [
        jnp.asarray(leaf) + stddev * jax.random.normal(key, jnp.shape(leaf)) if stddev else leaf
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    params = {"pseudo_inputs": jax.tree.unflatten(treedef, noisy)}
    return _with_weights(params, num_components, learned_weights)


def _with_weights(params: Params, num_components: int, learned_weights: bool) -> Params:
    if learned_weights:
        params["weight_logits"] = jnp.zeros(num_components)
    return params


# ---------------------------------------------------------------------------------------------
# Density.


def component_log_prob(z: Array, prior: GaussianMixture) -> Array:
    """ln N(z | mean_k, diag(exp(log_var_k))) for each component: [..., D] -> [..., K], in nats.

    The plain broadcast over [..., K, D], without the weights: the reference for `log_prob`.

    Raises:
      ValueError: when the last axis of z is not the prior's D.
    """
    check_points("component_log_prob", z, prior)
    return normal_log_prob(z[..., None, :], prior.mean, prior.log_var)


def responsibilities(z: Array, prior: GaussianMixture) -> Array:
    """p(k | z): the share of each component in the density, [..., D] -> [..., K], rows sum to 1."""
    return jax.nn.softmax(component_log_prob(z, prior) + prior.log_weight, axis=-1)


@functools.partial(jax.jit, static_argnames="block_size")
def log_prob(z: Array, prior: GaussianMixture, *, block_size: int | None = None) -> Array:
    """ln p(z) = logsumexp_k [ ln w_k + ln N(z | mean_k, diag(exp(log_var_k))) ], in nats.

    Exact to half a unit in the last place of its float32 result on CPU and GPU (see
    `_float64_log_joint`), in memory O(S K), with gradients to z and to every field of the prior,
    in forward and reverse mode; to any order, but with `block_size` to the first only.

    Args:
      z: [..., D], S points in all.
      prior: K components in D dimensions.
      block_size: goes through the components in blocks of this many, so that memory is
        O(S block_size) whatever K is; None takes all at once.
    Returns:
      [...]
    Raises:
      ValueError: when the last axis of z is not the prior's D, or block_size is below 1.
    """
    check_points("log_prob", z, prior)
    if block_size is not None:
        _check_counts("log_prob", block_size=block_size)
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


def check_points(name: str, z: Array, prior: GaussianMixture) -> None:
    """Raises a ValueError, in the name of a function, unless z is [..., D] for this prior's D."""
    _check_prior(name, prior)
    if not hasattr(z, "shape"):
        raise ValueError(f"{name}: z must be an array, not a {type(z).__name__}.")
    if jnp.shape(z)[-1:] != jnp.shape(prior.mean)[1:]:
        raise ValueError(
            f"{name}: z must be [..., {prior.mean.shape[1]}] for this prior, but has shape "
            f"{jnp.shape(z)}."
        )


def _check_prior(name: str, prior: GaussianMixture) -> None:
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
    _check_sizes(name, prior.mean)


def _check_sizes(name: str, mean: Array) -> None:
    if 0 in jnp.shape(mean):
        raise ValueError(
            f"{name}: K components in D dimensions must both be at least 1, but mean has shape "
            f"{jnp.shape(mean)}."
        )


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
def _log_joint(z: Array, mean: Array, log_var: Array, log_weight: Array) -> tuple[Array, Array]:
    """(ln p(z) [S], ln p(k | z) [S, K]) for z [S, D] and a mixture of K components."""
    return _batchable_log_joint(z, mean, log_var, log_weight)


@_log_joint.defjvp
def _log_joint_jvp(primals, tangents):
    """d ln p(z) = sum_k p(k | z) d ln p(k, z), and d ln p(k | z) = d ln p(k, z) - d ln p(z)."""
    z, mean, log_var, log_weight = primals
    dz, dmean, dlog_var, dlog_weight = tangents
    value, log_share = _log_joint(*primals)
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
    return _log_joint(z, mean, log_var, log_weight)[0]


def standard_normal_log_prob(z: Array) -> Array:
    """ln N(z | 0, I): [..., D] -> [...], in nats."""
    return normal_log_prob(z, jnp.zeros(()), jnp.zeros(()))


def mixture_of_gaussians_log_prob(z: Array, params: Params) -> Array:
    """ln p(z) under `mixture_of_gaussians(params)`: [..., D] -> [...], in nats."""
    return log_prob(z, mixture_of_gaussians(params))


def vamp_log_prob(
    z: Array, params: Params, encode: Encode, *, bounds: tuple[float, float] | None = None
) -> Array:
    """ln p(z) under `vamp(params, encode)`: [..., D] -> [...], in nats."""
    return log_prob(z, vamp(params, encode, bounds=bounds))


def vamp_data_log_prob(z: Array, examples: Any, encode: Encode) -> Array:
    """ln p(z) under the VampPrior of these K examples: [..., D] -> [...], in nats."""
    return log_prob(z, vamp_data({"pseudo_inputs": examples}, encode))


# ---------------------------------------------------------------------------------------------
# Sampling.


def sample(rng: Array, prior: GaussianMixture, num_samples: int) -> Array:
    """Draws from the mixture: a component by its weight, then a point of it. Returns [N, D]."""
    _check_counts("sample", num_samples=num_samples)
    _check_prior("sample", prior)
    component_rng, noise_rng = jax.random.split(rng)
    index = jax.random.categorical(component_rng, prior.log_weight, shape=(num_samples,))
    noise = jax.random.normal(noise_rng, (num_samples, prior.mean.shape[1]), prior.mean.dtype)
    return prior.mean[index] + jnp.exp(0.5 * prior.log_var[index]) * noise
