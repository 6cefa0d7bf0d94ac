"""Builders: parameters (and an encoder) in, components out; and initialisers of the parameters.

A builder takes any encoder `x -> (mean [K, D], log_var [K, D])` and any pytree of pseudo-inputs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.posteriors import normal_log_prob
from vamp_jax.priors.arrays import widened
from vamp_jax.priors.checks import (
    check_counts,
    check_no_nan,
    check_real,
    check_sizes,
    check_stddev,
    num_examples,
)
from vamp_jax.priors.mixture import GaussianMixture
from vamp_jax.priors.pseudo_inputs import Bounds, Squash, bounded, clip, is_floating, join_fixed

Array = jax.Array
Params = dict[str, Any]
Encode = Callable[[Any], tuple[Array, Array]]


def standard_normal(
    params: Params | None = None, encode: Encode | None = None, *, latent_dim: int
) -> GaussianMixture:
    """N(0, I) in `latent_dim` dimensions, as a mixture of K = 1 (the paper's "SG")."""
    del params, encode  # the builders share one signature; this one needs neither
    check_counts("standard_normal", latent_dim=latent_dim)
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
    mean, log_var = (entry("mixture_of_gaussians", params, name) for name in ("mean", "log_var"))
    return _mixture("mixture_of_gaussians", mean, log_var, params)


def vamp(
    params: Params,
    encode: Encode,
    *,
    bounds: Bounds | Mapping[str, Bounds] | None = None,
    fixed: Any = None,
    squash: Squash = clip,
) -> GaussianMixture:
    """The VampPrior 1/K sum_k q(z | u_k): learned pseudo-inputs through the encoder (eq. 9).

    Gradients reach the pseudo-inputs and, through the components, the encoder's parameters: prior
    and posterior "cooperate" (section 3). Nothing is stopped here; do not stop it outside.

    Args:
      params: `pseudo_inputs`, a pytree of arrays [K, ...] that `encode` takes, and
        `weight_logits` [K] if the weights are learned.
      encode: K pseudo-inputs -> (mean [K, D], log_var [K, D]); the posterior's own encoder.
      bounds: clips every pseudo-input to this range before it is encoded. The paper's models use
        (0, 1), a hard tanh: outside the range the gradient is zero. A side may be None (open) or
        an array, a number for each feature; {"name of a leaf": (lowest, highest), ...} bounds
        these leaves alone. None leaves all free. Leaves that are not floating stay as they are.
      fixed: the second tree of `split_fixed`, leaves that do not learn; the first is then in
        `pseudo_inputs`.
      squash: how `bounds` are kept: `clip`, `straight_through_clip` or `sigmoid` of
        `priors.pseudo_inputs`.
    Raises:
      ValueError: for pseudo-inputs or bounds that cannot be, or an encoder that returns other
        shapes.
    """
    pseudo_inputs = bounded("vamp", entry("vamp", params, "pseudo_inputs"), bounds, squash)
    if fixed is not None:
        pseudo_inputs = join_fixed("vamp", pseudo_inputs, fixed)
    return _mixture("vamp", *encode_components("vamp", encode, pseudo_inputs), params)


def vamp_data(params: Params, encode: Encode) -> GaussianMixture:
    """The VampPrior on K fixed training examples instead of learned pseudo-inputs.

    The examples get no gradient; the encoder's parameters do, through the components.

    Args:
      params: `pseudo_inputs`, a pytree of arrays [K, ...] that `encode` takes, and
        `weight_logits` [K] if the weights are learned.
      encode: K examples -> (mean [K, D], log_var [K, D]); the posterior's own encoder.
    Raises:
      ValueError: for examples that cannot be or hold NaN, or an encoder that returns other shapes.
    """
    examples = entry("vamp_data", params, "pseudo_inputs")
    check_no_nan("vamp_data", "examples", examples)
    examples = jax.tree.map(jax.lax.stop_gradient, examples)
    return _mixture("vamp_data", *encode_components("vamp_data", encode, examples), params)


def entry(name: str, params: Params, key: str) -> Any:
    """Returns params[key], or raises a ValueError in the name of a function."""
    if not isinstance(params, Mapping) or key not in params:
        held = sorted(params) if isinstance(params, Mapping) else type(params).__name__
        raise ValueError(f"{name}: params must be a dict with {key!r}, but is or has {held}.")
    return params[key]


def encode_components(name: str, encode: Encode, inputs: Any) -> tuple[Array, Array]:
    """(mean, log_var) of K pseudo-inputs."""
    num_components = num_examples(name, "pseudo_inputs", inputs)
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


def _mixture(name: str, mean: Array, log_var: Array, params: Params) -> GaussianMixture:
    if jnp.ndim(mean) != 2 or jnp.shape(mean) != jnp.shape(log_var):
        raise ValueError(
            f"{name}: mean and log_var must both be [K, D], but have shapes "
            f"{jnp.shape(mean)} and {jnp.shape(log_var)}."
        )
    check_sizes(name, mean)
    check_real(name, "mean", mean)
    check_real(name, "log_var", log_var)
    mean, log_var = widened((mean, log_var))
    num_components = mean.shape[0]
    logits = params.get("weight_logits")
    if logits is None:
        log_weight = jnp.full(num_components, -math.log(num_components), mean.dtype)
    elif jnp.shape(logits) == (num_components,):
        log_weight = jax.nn.log_softmax(widened(logits))
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
    check_counts(name, num_components=num_components, latent_dim=latent_dim)
    check_stddev(name, stddev)
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
    check_counts("init_vamp", num_components=num_components)
    check_stddev("init_vamp", stddev)
    if not isinstance(x_shape, tuple | list):
        raise ValueError(f"init_vamp: x_shape is {x_shape!r}; it must be a tuple of sizes.")
    check_counts("init_vamp", **{f"x_shape[{i}]": size for i, size in enumerate(x_shape)})
    noise = jax.random.normal(rng, (num_components, *x_shape))
    return _with_weights({"pseudo_inputs": mean + stddev * noise}, num_components, learned_weights)


def init_vamp_from_data(
    rng: Array, examples: Any, *, stddev: float = 0.01, learned_weights: bool = False
) -> Params:
    """K given examples (a pytree of arrays [K, ...]) plus N(0, stddev^2) noise on floating leaves.

    With `stddev=0` these are the fixed examples that `vamp_data` wants.

    Raises:
      ValueError: for examples of different K, or that hold NaN.
    """
    num_components = num_examples("init_vamp_from_data", "examples", examples)
    check_stddev("init_vamp_from_data", stddev)
    check_no_nan("init_vamp_from_data", "examples", examples)
    leaves, treedef = jax.tree.flatten(examples)
    keys = jax.random.split(rng, len(leaves))
    noisy = [
        _with_noise(key, leaf, stddev) if stddev and is_floating(leaf) else leaf
        for leaf, key in zip(leaves, keys, strict=True)
    ]
    params = {"pseudo_inputs": jax.tree.unflatten(treedef, noisy)}
    return _with_weights(params, num_components, learned_weights)


def _with_noise(rng: Array, leaf: Array, stddev: float) -> Array:
    leaf = jnp.asarray(leaf)
    return leaf + stddev * jax.random.normal(rng, leaf.shape, leaf.dtype)


def _with_weights(params: Params, num_components: int, learned_weights: bool) -> Params:
    if learned_weights:
        params["weight_logits"] = jnp.zeros(num_components)
    return params


# ---------------------------------------------------------------------------------------------
# Shortcuts: the density at once.


def standard_normal_log_prob(z: Array) -> Array:
    """ln N(z | 0, I): [..., D] -> [...], in nats."""
    check_real("standard_normal_log_prob", "z", z)
    return normal_log_prob(widened(z), jnp.zeros(()), jnp.zeros(()))


def mixture_of_gaussians_log_prob(z: Array, params: Params) -> Array:
    """ln p(z) under `mixture_of_gaussians(params)`: [..., D] -> [...], in nats."""
    return mixture_of_gaussians(params).log_prob(z)


def vamp_log_prob(
    z: Array,
    params: Params,
    encode: Encode,
    *,
    bounds: Bounds | Mapping[str, Bounds] | None = None,
    fixed: Any = None,
    squash: Squash = clip,
) -> Array:
    """ln p(z) under `vamp(params, encode, ...)`: [..., D] -> [...], in nats."""
    return vamp(params, encode, bounds=bounds, fixed=fixed, squash=squash).log_prob(z)


def vamp_data_log_prob(z: Array, examples: Any, encode: Encode) -> Array:
    """ln p(z) under the VampPrior of these K examples: [..., D] -> [...], in nats."""
    return vamp_data({"pseudo_inputs": examples}, encode).log_prob(z)
