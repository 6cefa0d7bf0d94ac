"""Autoregressive flows (AF) and inverse ones (IAF), their networks masked as in MADE."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.flows.checks import check_sizes, last_axis
from vamp_jax.flows.dense import bounded_log_scale, dense, init_dense

Array = jax.Array
Params = dict[str, Any]
# How a step changes a unit: made's (m, s) -> (scale, its logarithm, shift).
Affine = Callable[[Array, Array], tuple[Array, Array, Array]]


def init_made(
    rng: Array,
    latent_dim: int,
    *,
    hidden: tuple[int, ...] = (320, 320),
    context_dim: int = 0,
    forget_bias: float = 2.0,
) -> Params:
    """Returns the parameters of `made`, whose outputs start at m = 0 and s = forget_bias."""
    check_sizes("init_made", latent_dim=latent_dim)
    check_sizes("init_made", **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
    layers_rng, context_rng = jax.random.split(rng)
    params = init_dense(layers_rng, (latent_dim, *hidden, 2 * latent_dim))
    s_bias = jnp.full(latent_dim, forget_bias)
    params[f"dense_{len(hidden)}"]["bias"] = jnp.concatenate([jnp.zeros(latent_dim), s_bias])
    if context_dim:
        shape = (context_dim, params["dense_0"]["bias"].shape[0])
        scale = 1.0 / math.sqrt(context_dim)
        params["context"] = {"kernel": scale * jax.random.normal(context_rng, shape)}
    return params


def made_dim(params: Params) -> int:
    """Returns the D of the parameters of `made`."""
    return jnp.shape(params["dense_0"]["kernel"])[0]


def made(z: Array, params: Params, context: Array | None = None) -> tuple[Array, Array]:
    """Computes (m, s), [..., D] each, where m_i and s_i depend on z_1, ..., z_{i-1} and context.

    Hidden unit j of each layer sees z_1, ..., z_{j mod D}; those that see none carry the context
    to the first output.

    Args:
      z: [..., D]
      params: of `init_made`.
      context: [..., C], added to the first layer; its leading axes broadcast against z's.
    Raises:
      ValueError: for shapes that do not fit together.
    """
    dim = last_axis("made", z)
    wanted = made_dim(params)
    if wanted != dim:
        raise ValueError(f"made: z must be [..., {wanted}], but has shape {jnp.shape(z)}.")
    if (context is None) != ("context" not in params):
        raise ValueError(
            "made: context must be given where params have a 'context', and only there."
        )
    num_layers = len(params) - ("context" in params)
    x, seen = z, np.arange(1, dim + 1)  # what unit i passes on depends on z_1, ..., z_seen[i]
    for i in range(num_layers):
        kernel, bias = params[f"dense_{i}"]["kernel"], params[f"dense_{i}"]["bias"]
        last = i == num_layers - 1
        may_see = np.tile(np.arange(dim), 2) if last else np.arange(kernel.shape[1]) % dim
        mask = seen[:, None] <= may_see
        x = dense(x, jnp.where(mask, kernel, 0.0), bias)
        if i == 0 and context is not None:
            x = x + jnp.matmul(context, params["context"]["kernel"])
        x, seen = x if last else jax.nn.leaky_relu(x), may_see
    m, s = jnp.split(x, 2, axis=-1)
    return m, s


def _weighted_mean(m: Array, s: Array) -> tuple[Array, Array, Array]:
    """Of inverse autoregressive flows: sigma z + (1 - sigma) m with sigma = sigmoid(s)."""
    sigma = jax.nn.sigmoid(s)
    return sigma, jax.nn.log_sigmoid(s), (1.0 - sigma) * m


def _scaled_and_shifted(m: Array, s: Array) -> tuple[Array, Array, Array]:
    """Of autoregressive flows: z exp(s) + m with s bounded."""
    log_scale = bounded_log_scale(s)
    return jnp.exp(log_scale), log_scale, m


def _forward(z: Array, steps: Params, context: Array | None, affine: Affine) -> tuple[Array, Array]:
    """Applies z' = scale z + shift in each step, the units reversed between steps."""
    log_det: Array | float = 0.0
    for t in range(len(steps)):
        z = jnp.flip(z, -1) if t else z
        scale, log_scale, shift = affine(*made(z, steps[f"step_{t}"], context))
        z = scale * z + shift
        log_det = log_det + jnp.sum(log_scale, axis=-1)
    return z, jnp.asarray(log_det)


def _backward(
    z: Array, steps: Params, context: Array | None, affine: Affine
) -> tuple[Array, Array]:
    """Undoes `_forward`: D passes for each step."""
    log_det: Array | float = 0.0
    for t in reversed(range(len(steps))):
        z, step_log_det = _invert_step(z, steps[f"step_{t}"], context, affine)
        log_det = log_det + step_log_det
        z = jnp.flip(z, -1) if t else z
    return z, jnp.asarray(log_det)


def _invert_step(
    target: Array, step: Params, context: Array | None, affine: Affine
) -> tuple[Array, Array]:
    units = jnp.arange(target.shape[-1])

    def one_pass(i, z):
        scale, _, shift = affine(*made(z, step, context))
        return jnp.where(units == i, (target - shift) / scale, z)

    context_axes = () if context is None else jnp.shape(context)[:-1]
    shape = jnp.broadcast_shapes(target.shape[:-1], context_axes)
    z = jnp.zeros((*shape, len(units)), jnp.result_type(target))
    z = jax.lax.fori_loop(0, len(units), one_pass, z)
    _, log_scale, _ = affine(*made(z, step, context))
    return z, -jnp.sum(log_scale, axis=-1)


def inverse_autoregressive(
    z: Array, steps: Params, context: Array | None = None
) -> tuple[Array, Array]:
    """Applies z' = sigma z + (1 - sigma) m, ln|det| = sum_i ln sigma_i, in each of T steps.

    (m, s) = made(z, step, context) and sigma = sigmoid(s); the order of the units is reversed
    between steps. One pass of a step draws; the density at a given z' needs
    `inverse_autoregressive_inverse`, which takes D passes one after the other.

    Args:
      z: [..., D]
      steps: of `init_inverse_autoregressive`.
      context: [..., C], or None where the parameters have no context.
    Returns:
      z' [..., D] and ln|det| [...].
    Raises:
      ValueError: for shapes that do not fit together.
    """
    return _forward(z, steps, context, _weighted_mean)


def inverse_autoregressive_inverse(
    z: Array, steps: Params, context: Array | None = None
) -> tuple[Array, Array]:
    """Undoes `inverse_autoregressive`: (z, ln|det|) of the inverse map, D passes for each step.

    Pass i finds z_i = (z'_i - (1 - sigma_i) m_i) / sigma_i from z_1, ..., z_{i-1}. Where a sigma is
    far below 1, rounding grows by 1 / sigma.
    """
    last_axis("inverse_autoregressive_inverse", z)
    return _backward(z, steps, context, _weighted_mean)


def init_inverse_autoregressive(
    rng: Array, latent_dim: int, *, num_steps: int = 2, **options: Any
) -> Params:
    """Returns {step_0, step_1, ...} of `init_made`, whose options it takes; near the identity."""
    check_sizes("init_inverse_autoregressive", num_steps=num_steps)
    return _init_steps(rng, latent_dim, num_steps, **options)


def autoregressive(z: Array, steps: Params) -> tuple[Array, Array]:
    """Applies z' = z exp(s) + m, ln|det| = sum_i s_i, in each of T steps.

    (m, s) = made(z, step), s bounded to (-MAX_LOG_SCALE, MAX_LOG_SCALE) by a tanh. Every second
    step goes through the units from the last to the first; they keep their places. From z to noise
    it is the flow of a prior: the density at a given z takes one pass of a step, a draw takes the D
    passes of `autoregressive_inverse`.

    Args:
      z: [..., D]
      steps: of `init_autoregressive`.
    Returns:
      z' [..., D] and ln|det| [...].
    Raises:
      ValueError: for shapes that do not fit together.
    """
    z, log_det = _forward(z, steps, None, _scaled_and_shifted)
    return _as_before(z, steps), log_det


def autoregressive_inverse(z: Array, steps: Params) -> tuple[Array, Array]:
    """Undoes `autoregressive`: (z, ln|det|) of the inverse map, D passes for each step.

    Pass i finds z_i = (z'_i - m_i) exp(-s_i) from z_1, ..., z_{i-1}.
    """
    last_axis("autoregressive_inverse", z)
    return _backward(_as_before(z, steps), steps, None, _scaled_and_shifted)


def _as_before(z: Array, steps: Params) -> Array:
    """The units in their order, which an even number of steps leaves reversed."""
    return z if len(steps) % 2 else jnp.flip(z, -1)


def init_autoregressive(
    rng: Array, latent_dim: int, *, num_steps: int = 4, hidden: tuple[int, ...] = (320,)
) -> Params:
    """Returns {step_0, step_1, ...} of `init_made` with hidden layers of these sizes: the identity.

    Sizes of at least D let every unit depend on all before it.
    """
    check_sizes("init_autoregressive", num_steps=num_steps)
    return _init_steps(rng, latent_dim, num_steps, hidden=hidden, forget_bias=0.0)


def _init_steps(rng: Array, latent_dim: int, num_steps: int, **options: Any) -> Params:
    keys = jax.random.split(rng, num_steps)
    return {f"step_{t}": init_made(key, latent_dim, **options) for t, key in enumerate(keys)}
