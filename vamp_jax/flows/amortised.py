"""Flows whose parameters an encoder can give for each example: planar, Householder, Sylvester."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.flows.checks import check_sizes, check_trailing, last_axis

Array = jax.Array
Params = dict[str, Any]

MARGIN = 1e-4  # planar and Sylvester keep 1 + (what must be above -1) at or above this


def _unit(v: Array) -> tuple[Array, Array]:
    """(v / ||v||, ||v||), [..., D] and [..., 1]; (0, 1) where v has (almost) no length."""
    # By the largest entry first: the squares of very large and very small entries do not fit.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(v), axis=-1, keepdims=True))
    zero = largest < 1e-12
    scale = jnp.where(zero, 1.0, largest).astype(v.dtype)
    scaled = jnp.where(zero, 0.0, v / scale)
    square = jnp.sum(scaled**2, axis=-1, keepdims=True)
    length = jnp.sqrt(jnp.where(zero, 1.0, square))
    return scaled / length, scale * length


def _sech2(y: Array) -> Array:
    """1 - tanh(y)^2, the derivative of tanh, without its cancellation."""
    decay = jnp.exp(-2.0 * jnp.abs(y))
    return 4.0 * decay / (1.0 + decay) ** 2


def planar(z: Array, u: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """Applies z' = z + u_hat tanh(w.z + b), ln|det| = ln(1 + (1 - tanh^2(w.z + b)) w.u_hat).

    The map is invertible for w.u_hat > -1. Any u gives such a u_hat = u + (m(w.u) - w.u) w/||w||^2
    with m(a) = -1 + MARGIN + softplus(a + c) and c such that m(0) = 0: u = 0 is the identity.
    There is no inverse in closed form.

    Args:
      z, u, w: [..., D]
      b: [...]
    Returns:
      z' [..., D] and ln|det| [...].
    Raises:
      ValueError: for shapes that do not fit together.
    """
    dim = last_axis("planar", z)
    wanted = {"z": (dim,), "u": (dim,), "w": (dim,), "b": ()}
    check_trailing("planar", wanted, {"z": z, "u": u, "w": w, "b": b})
    direction, length = _unit(w)
    along = jnp.sum(direction * u, axis=-1, keepdims=True) * length  # w.u, [..., 1]
    above = MARGIN + jax.nn.softplus(along + math.log(math.expm1(1.0 - MARGIN)))
    u_hat = u + (above - 1.0 - along) / length * direction  # w.u_hat = above - 1
    inner = jnp.sum(w * z, axis=-1, keepdims=True) + jnp.expand_dims(b, -1)
    bent = jnp.tanh(inner)
    log_det = jnp.log(bent**2 + _sech2(inner) * above)  # = 1 + sech2 (above - 1)
    return z + u_hat * bent, log_det[..., 0]


def householder(z: Array, v: Array) -> tuple[Array, Array]:
    """Reflects z' = z - 2 v (v.z) / ||v||^2; ln|det| = 0, and the map is its own inverse.

    Args:
      z, v: [..., D]; a v of length zero leaves z as it is.
    Returns:
      z' [..., D] and ln|det| [...].
    Raises:
      ValueError: for shapes that do not fit together.
    """
    dim = last_axis("householder", z)
    check_trailing("householder", {"z": (dim,), "v": (dim,)}, {"z": z, "v": v})
    direction, _ = _unit(v)
    reflected = z - 2.0 * direction * jnp.sum(direction * z, axis=-1, keepdims=True)
    return reflected, jnp.zeros(reflected.shape[:-1], reflected.dtype)


def householder_matrix(v: Array) -> Array:
    """Multiplies T reflections to H = H_T ... H_1: [..., T, D] -> [..., D, D], orthogonal.

    N(mean, S) goes through `householder` with v_1, ..., v_T to N(H mean, H S H^T).
    """
    if jnp.ndim(v) < 2 or 0 in jnp.shape(v)[-2:]:
        raise ValueError(f"householder_matrix: v must be [..., T, D], but has {jnp.shape(v)}.")
    direction, _ = _unit(v)
    identity = jnp.eye(v.shape[-1], dtype=direction.dtype)
    product = jnp.broadcast_to(identity, (*v.shape[:-2], *identity.shape))
    for t in range(v.shape[-2]):
        row = direction[..., t, None, :]  # [..., 1, D]
        product = product - 2.0 * jnp.swapaxes(row, -1, -2) * (row @ product)
    return product


def orthonormal(q: Array) -> Array:
    """Makes the columns of q orthonormal by Gram & Schmidt: [..., D, M] -> [..., D, M], M <= D.

    q = Q R with R upper triangular, its diagonal positive: so Q is unique, and follows q smoothly
    where the columns are independent.

    Raises:
      ValueError: for other shapes.
    """
    shape = jnp.shape(q)
    if len(shape) < 2 or not 1 <= shape[-1] <= shape[-2]:
        raise ValueError(f"orthonormal: q must be [..., D, M] with 1 <= M <= D, but has {shape}.")
    columns, r = jnp.linalg.qr(q)
    diagonal = jnp.diagonal(r, axis1=-2, axis2=-1)
    return columns * jnp.where(diagonal < 0, -1.0, 1.0)[..., None, :].astype(columns.dtype)


def sylvester(z: Array, q: Array, r1: Array, r2: Array, b: Array) -> tuple[Array, Array]:
    """Applies z' = z + Q R1 tanh(R2 Q^T z + b), ln|det| = sum_i ln(1 + tanh'_i r1_ii r2_ii).

    R1 and R2 are the upper triangles of r1 and r2. Their diagonals are bounded to
    sqrt(1 - MARGIN) tanh(.), so that r1_ii r2_ii > -1 and the map is invertible, though not in
    closed form. r1 = 0 is the identity.

    Args:
      z: [..., D]
      q: [..., D, M], orthonormal columns: `orthonormal(.)` (orthogonal Sylvester flows),
        `householder_matrix(.)` (Householder), or jnp.eye(D) and jnp.eye(D)[::-1] by turns
        (triangular).
      r1, r2: [..., M, M]
      b: [..., M]
    Returns:
      z' [..., D] and ln|det| [...].
    Raises:
      ValueError: for shapes that do not fit together.
    """
    dim, rank = last_axis("sylvester", z), jnp.shape(b)[-1] if jnp.ndim(b) else 0
    wanted = {"z": (dim,), "q": (dim, rank), "r1": (rank, rank), "r2": (rank, rank), "b": (rank,)}
    check_trailing("sylvester", wanted, {"z": z, "q": q, "r1": r1, "r2": r2, "b": b})
    bound = math.sqrt(1.0 - MARGIN)
    diagonals = [bound * jnp.tanh(jnp.diagonal(r, axis1=-2, axis2=-1)) for r in (r1, r2)]
    upper = [
        jnp.where(jnp.eye(rank, dtype=bool), diagonal[..., None], jnp.triu(r, 1))
        for r, diagonal in zip((r1, r2), diagonals, strict=True)
    ]
    projected = jnp.einsum("...dm,...d->...m", q, z)
    inner = jnp.einsum("...mn,...n->...m", upper[1], projected) + b
    bent = jnp.einsum("...mn,...n->...m", upper[0], jnp.tanh(inner))
    log_det = jnp.sum(jnp.log1p(_sech2(inner) * (diagonals[0] * diagonals[1])), axis=-1)
    return z + jnp.einsum("...dm,...m->...d", q, bent), log_det


def init_planar(rng: Array, latent_dim: int) -> Params:
    """Returns {u, w [D], b []} of `planar`, at the identity."""
    check_sizes("init_planar", latent_dim=latent_dim)
    w = jax.random.normal(rng, (latent_dim,)) / math.sqrt(latent_dim)
    return {"u": jnp.zeros(latent_dim), "w": w, "b": jnp.zeros(())}


def init_householder(rng: Array, latent_dim: int) -> Params:
    """Returns {v [D]} of `householder`, a reflection in a random direction."""
    check_sizes("init_householder", latent_dim=latent_dim)
    return {"v": jax.random.normal(rng, (latent_dim,))}


def init_sylvester(rng: Array, latent_dim: int, rank: int) -> Params:
    """Returns {q [D, M], r1, r2 [M, M], b [M]} of `sylvester`, at the identity.

    While q is trained it has to go through `orthonormal` before each use.
    """
    check_sizes("init_sylvester", latent_dim=latent_dim, rank=rank)
    q_rng, r2_rng = jax.random.split(rng)
    q = orthonormal(jax.random.normal(q_rng, (latent_dim, rank)))
    r2 = jax.random.normal(r2_rng, (rank, rank)) / math.sqrt(rank)
    return {"q": q, "r1": jnp.zeros((rank, rank)), "r2": r2, "b": jnp.zeros(rank)}
