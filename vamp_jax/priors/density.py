"""What every prior can do: `log_prob`, `sample` and `responsibilities` of a `Density`."""

from typing import Any, Protocol

import jax

Array = jax.Array


class Density(Protocol):
    """p(z) as a pytree of arrays with three methods; `GaussianMixture` is one, write your own."""

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z) in nats: [..., D] -> [...]."""
        ...

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Draws from p(z), or from p(z | k) of one component: [N, D]."""
        ...

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(k | z) of each of K components: [..., D] -> [..., K]."""
        ...


def _check_density(name: str, prior: Any) -> None:
    needed = ("log_prob", "sample", "responsibilities")
    if not all(callable(getattr(prior, method, None)) for method in needed):
        raise ValueError(
            f"{name}: prior must be a GaussianMixture, as the builders return, or have the methods "
            f"{', '.join(needed)}, but is a {type(prior).__name__}."
        )


def _given(**options: Any) -> dict[str, Any]:
    """The options that are not None: a density without components need not know of them."""
    return {name: value for name, value in options.items() if value is not None}


def log_prob(z: Array, prior: Density, *, block_size: int | None = None) -> Array:
    """Evaluates ln p(z), of a mixture ln sum_k w_k N(z | mean_k, diag(exp(log_var_k))), in nats.

    Of a `GaussianMixture` exact to half a unit in the last place of its float32 result on CPU and
    GPU, while squares of z and means over variances are below 1e9 (see
    `mixture._float64_log_joint`), in memory O(S K), with gradients to z and to every
    field of the prior, in forward and reverse mode; to any order, but with `block_size` to the
    first only (a second derivative is refused). Arrays of 16 bits are taken as float32.

    Args:
      z: [..., D], S points in all.
      prior: K components in D dimensions, or another density.
      block_size: goes through the components in blocks of this many, so that memory is
        O(S block_size) whatever K is; None takes all at once.
    Returns:
      [...]
    Raises:
      ValueError: when z is not real or its last axis not the prior's D, block_size is below 1, or
        the weights do not sum to 1 (if they are known: not under `jit`).
    """
    _check_density("log_prob", prior)
    return prior.log_prob(z, **_given(block_size=block_size))


def responsibilities(z: Array, prior: Density, *, block_size: int | None = None) -> Array:
    """Computes p(k | z), the share of each component in the density; rows sum to 1.

    Args:
      z: [..., D]
      prior: K components in D dimensions.
      block_size: goes through the components in blocks of this many, so that no more than
        [..., block_size, D] is ever held beside the result.
    Returns:
      [..., K]
    Raises:
      ValueError: as `log_prob`.
    """
    _check_density("responsibilities", prior)
    return prior.responsibilities(z, **_given(block_size=block_size))


def sample(rng: Array, prior: Density, num_samples: int, *, component: int | None = None) -> Array:
    """Draws from p(z), of a mixture a component by its weight, then a point of it.

    Args:
      component: draws all from this one, from 0 to K - 1.
    Returns:
      [num_samples, D]
    Raises:
      ValueError: for num_samples below 1, a component that there is not, or (if they are known)
        weights that do not sum to 1.
    """
    _check_density("sample", prior)
    return prior.sample(rng, num_samples, **_given(component=component))
