"""The functions that work on every prior: `log_prob`, `sample` and `responsibilities`."""

from typing import Any, Protocol

import jax

Array = jax.Array


class Density(Protocol):
    """p(z) as a pytree of arrays with three methods; `GaussianMixture` is one, write your own."""

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z) in nats: [..., D] -> [...]."""
        ...

    def sample(self, rng: Array, num_samples: int) -> Array:
        """Draws from p(z): [N, D]."""
        ...

    def responsibilities(self, z: Array) -> Array:
        """p(k | z) of each of K components: [..., D] -> [..., K]."""
        ...


def _check_density(name: str, prior: Any) -> None:
    needed = ("log_prob", "sample", "responsibilities")
    if not all(callable(getattr(prior, method, None)) for method in needed):
        raise ValueError(
            f"{name}: prior must be a GaussianMixture, as the builders return, or have the methods "
            f"{', '.join(needed)}, but is a {type(prior).__name__}."
        )


def log_prob(z: Array, prior: Density, *, block_size: int | None = None) -> Array:
    """Computes ln p(z) in nats; of a mixture, ln sum_k w_k N(z | mean_k, diag(exp(log_var_k))).

    For a `GaussianMixture` it is exact to half a unit in the last place of its float32 result on
    CPU and GPU (see `mixture._float64_log_joint`), and takes memory O(S K). Gradients reach z and
    every field of the prior, in forward and reverse mode, to any order; with `block_size` to the
    first only.

    Args:
      z: [..., D], S points in all.
      prior: K components in D dimensions, or another density.
      block_size: goes through the components in blocks of this many, so that memory is
        O(S block_size) whatever K is; None takes all at once.
    Returns:
      [...]
    Raises:
      ValueError: when the last axis of z is not the prior's D, or block_size is below 1.
    """
    _check_density("log_prob", prior)
    return prior.log_prob(z, block_size=block_size)


def responsibilities(z: Array, prior: Density) -> Array:
    """Computes p(k | z), each component's share in the density: [..., D] -> [..., K]."""
    _check_density("responsibilities", prior)
    return prior.responsibilities(z)


def sample(rng: Array, prior: Density, num_samples: int) -> Array:
    """Draws N points from p(z), [N, D]; of a mixture a component by its weight, then a point."""
    _check_density("sample", prior)
    return prior.sample(rng, num_samples)
