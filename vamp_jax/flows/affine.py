"""Affine couplings (RealNVP): as fast backwards as forwards."""

from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.flows.checks import check_sizes, last_axis
from vamp_jax.flows.dense import bounded_log_scale, init_dense, mlp

Array = jax.Array
Params = dict[str, Any]


def _halves(z: Array, flip: bool) -> tuple[Array, Array]:
    """The half that stays and the half that is changed."""
    first, second = z[..., : z.shape[-1] // 2], z[..., z.shape[-1] // 2 :]
    return (second, first) if flip else (first, second)


def _joined(kept: Array, changed: Array, flip: bool) -> Array:
    return jnp.concatenate([changed, kept] if flip else [kept, changed], axis=-1)


def _shift_and_log_scale(kept: Array, params: Params) -> tuple[Array, Array]:
    shift, log_scale = jnp.split(mlp(kept, params), 2, axis=-1)
    return shift, bounded_log_scale(log_scale)


def coupling_dim(params: Params) -> int:
    """Returns the D of the parameters of a coupling."""
    last = params[f"dense_{len(params) - 1}"]["bias"]
    return jnp.shape(params["dense_0"]["kernel"])[0] + jnp.shape(last)[0] // 2


def _check_coupling(name: str, z: Array, params: Params, flip: bool) -> None:
    dim, made_for = last_axis(name, z), coupling_dim(params)
    if dim != made_for:
        raise ValueError(
            f"{name}: z must be [..., {made_for}] for these parameters, but has {jnp.shape(z)}."
        )
    if jnp.shape(params["dense_0"]["kernel"])[0] != (dim - dim // 2 if flip else dim // 2):
        raise ValueError(f"{name}: flip is {flip}, but the parameters were made for {not flip}.")


def coupling(z: Array, params: Params, *, flip: bool = False) -> tuple[Array, Array]:
    """Keeps a half of z and applies c' = c exp(s(kept)) + t(kept) to the other; ln|det| = sum s.

    s is bounded to (-MAX_LOG_SCALE, MAX_LOG_SCALE) by a tanh. Of D = 1 the kept half is empty (of
    a flipped one the other), so that s and t are constants.

    Args:
      z: [..., D]
      params: of `init_coupling` with the same `flip`.
      flip: keeps the second half instead of the first.
    Returns:
      z' [..., D] and ln|det| [...].
    Raises:
      ValueError: when D is not the parameters'.
    """
    _check_coupling("coupling", z, params, flip)
    kept, changed = _halves(z, flip)
    shift, log_scale = _shift_and_log_scale(kept, params)
    changed = changed * jnp.exp(log_scale) + shift
    return _joined(kept, changed, flip), jnp.sum(log_scale, axis=-1)


def coupling_inverse(z: Array, params: Params, *, flip: bool = False) -> tuple[Array, Array]:
    """Undoes `coupling`, at the same cost: (z, ln|det|) of the inverse map."""
    _check_coupling("coupling_inverse", z, params, flip)
    kept, changed = _halves(z, flip)
    shift, log_scale = _shift_and_log_scale(kept, params)
    changed = (changed - shift) * jnp.exp(-log_scale)
    return _joined(kept, changed, flip), -jnp.sum(log_scale, axis=-1)


def init_coupling(
    rng: Array, latent_dim: int, *, hidden: tuple[int, ...] = (128, 128), flip: bool = False
) -> Params:
    """Returns the network of `coupling`, its last layer zero: the identity."""
    check_sizes("init_coupling", latent_dim=latent_dim)
    check_sizes("init_coupling", **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
    half = latent_dim // 2
    kept = latent_dim - half if flip else half
    return init_dense(rng, (kept, *hidden, 2 * (latent_dim - kept)))


def couplings(z: Array, stack: Params) -> tuple[Array, Array]:
    """Applies the couplings of a stack in turn, every second one flipped: z' and ln|det|."""
    log_det: Array | float = 0.0
    for i in range(len(stack)):
        z, step_log_det = coupling(z, stack[f"coupling_{i}"], flip=i % 2 == 1)
        log_det = log_det + step_log_det
    return z, jnp.asarray(log_det)


def couplings_inverse(z: Array, stack: Params) -> tuple[Array, Array]:
    """Undoes `couplings`, at the same cost: (z, ln|det|) of the inverse map."""
    log_det: Array | float = 0.0
    for i in reversed(range(len(stack))):
        z, step_log_det = coupling_inverse(z, stack[f"coupling_{i}"], flip=i % 2 == 1)
        log_det = log_det + step_log_det
    return z, jnp.asarray(log_det)


def init_couplings(
    rng: Array, latent_dim: int, *, num_layers: int = 8, hidden: tuple[int, ...] = (128, 128)
) -> Params:
    """Returns {coupling_0, coupling_1, ...} of `init_coupling`, flipped by turns: the identity."""
    check_sizes("init_couplings", num_layers=num_layers)
    return {
        f"coupling_{i}": init_coupling(key, latent_dim, hidden=hidden, flip=i % 2 == 1)
        for i, key in enumerate(jax.random.split(rng, num_layers))
    }
