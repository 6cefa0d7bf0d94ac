"""The exemplar prior: every training example is a component, and all share one variance.

    p(z) = 1/N sum_n N(z | mean(x_n), exp(log_var) I)                        (Norouzi et al. 2020)

An example must not see itself in training, or its posterior's own mean is the best prior of all:
for example i the sum leaves out n = i and divides by N - 1. `block_size` keeps memory flat for any
N; where N components cost too much time, `neighbours.py` sums over the few nearest alone.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

from vamp_jax.priors.arrays import in_blocks, in_rows, once_differentiable, placed_like, widened
from vamp_jax.priors.builders import Encode, Params, encode_components, entry
from vamp_jax.priors.checks import check_block_size, check_no_nan, num_examples
from vamp_jax.priors.mixture import (
    GaussianMixture,
    check_points,
    component_log_prob,
    log_joint,
)
from vamp_jax.typed_jit import jitted

Array = jax.Array


class Exemplar(NamedTuple):
    """1/N sum_n N(z | mean_n, exp(log_var) I), or for each point without one of them.

    `exclude` are the training examples that z was drawn for, whole numbers of the shape of z's
    leading axes (or one that broadcasts against it); below 0 excludes none. None excludes none.
    """

    mean: Array  # [N, D]
    log_var: Array  # []
    exclude: Array | None = None  # [...]

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z), [..., D] -> [...]; see `priors.log_prob`."""
        _check(self, "log_prob", z)
        check_block_size("log_prob", block_size)
        return _log_prob(z, self, block_size=block_size)

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(n | z) of each example, [..., D] -> [..., N]; 0 for the one that is excluded."""
        _check(self, "responsibilities", z)
        check_block_size("responsibilities", block_size)
        return _responsibilities(z, self, block_size=block_size)

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Draws an example of all N, then a point of its component: [num_samples, D]."""
        return _as_mixture(self).sample(rng, num_samples, component=component)

    def component_means(self) -> Array:
        """Where the components lie: [N, D]."""
        return self.mean


def exemplar(params: Params, encode: Encode, *, exclude: Array | None = None) -> Exemplar:
    """Builds the exemplar prior of N training examples.

    The examples get no gradient; the encoder's parameters do, through the components' means, and
    the shared variance does.

    Args:
      params: `pseudo_inputs`, the examples as a pytree of arrays [N, ...] that `encode` takes, and
        `log_var` [], as `init_exemplar` returns them.
      encode: N examples -> (mean [N, D], log_var [N, D]); only the mean is used.
      exclude: the indices of the examples whose z will be evaluated, to leave each out of its own
        prior: in training those of the batch, [B]; None leaves none out.
    Raises:
      ValueError: for invalid examples, an encoder that returns other shapes, a log_var that
        is no scalar, or an exclude that holds no whole numbers.
    """
    examples = jax.lax.stop_gradient(entry("exemplar", params, "pseudo_inputs"))
    mean, _ = encode_components("exemplar", encode, examples)
    log_var = jnp.asarray(entry("exemplar", params, "log_var"))
    if exclude is not None:
        exclude = jnp.asarray(exclude)
    prior = Exemplar(jnp.asarray(mean), log_var, exclude)
    _check_exemplar(prior, "exemplar")
    return prior


def init_exemplar(examples: Any, *, log_var: float = 0.0) -> Params:
    """Returns the examples, a pytree of arrays [N, ...], as they are, and the shared log-variance.

    The examples are constants: keep them out of the optimiser's hands where N is large.
    """
    num_examples("init_exemplar", "examples", examples)
    check_no_nan("init_exemplar", "examples", examples)
    if not math.isfinite(log_var):
        raise ValueError(f"init_exemplar: log_var is {log_var}; it must be finite.")
    return {"pseudo_inputs": examples, "log_var": jnp.asarray(log_var, jnp.float32)}


# ---------------------------------------------------------------------------------------------
# All of them, in blocks.


def _as_mixture(prior: Exemplar) -> GaussianMixture:
    mean, log_var = widened((prior.mean, prior.log_var))
    count = mean.shape[0]
    log_weight = jnp.full(count, -math.log(count), mean.dtype)
    return GaussianMixture(mean, jnp.broadcast_to(log_var, mean.shape), log_weight)


def _check_exemplar(prior: Exemplar, name: str) -> None:
    if jnp.ndim(prior.mean) != 2 or 0 in jnp.shape(prior.mean):
        raise ValueError(
            f"{name}: the exemplars' mean must be [N, D], both at least 1, but has shape "
            f"{jnp.shape(prior.mean)}."
        )
    if jnp.shape(prior.log_var):
        raise ValueError(
            f"{name}: the exemplars' log_var must be one number, [], but has shape "
            f"{jnp.shape(prior.log_var)}."
        )
    if prior.exclude is None:
        return
    if not jnp.issubdtype(jnp.result_type(prior.exclude), jnp.integer):
        raise ValueError(
            f"{name}: exclude must hold indices, whole numbers, but is of "
            f"{jnp.result_type(prior.exclude)}."
        )
    if prior.mean.shape[0] == 1:
        raise ValueError(f"{name}: there is only one example, so that none can be excluded.")


def _check(prior: Exemplar, name: str, z: Array) -> None:
    _check_exemplar(prior, name)
    check_points(name, z, _as_mixture(prior))
    if prior.exclude is None:
        return
    leading = jnp.shape(z)[:-1]
    try:
        fits = jnp.broadcast_shapes(leading, jnp.shape(prior.exclude)) == leading
    except ValueError:
        fits = False
    if not fits:
        raise ValueError(
            f"{name}: exclude must broadcast to z's leading axes {leading}, but has shape "
            f"{jnp.shape(prior.exclude)}."
        )


def _flat(z: Array, prior: Exemplar) -> tuple[Array, Array, Callable[[Array], Array]]:
    """Points [S, D], the index that each leaves out, [S], -1 for none; and as `in_rows`."""
    exclude = jnp.asarray(-1) if prior.exclude is None else jnp.asarray(prior.exclude)
    exclude = placed_like(jnp.broadcast_to(exclude, z.shape[:-1]), z)
    exclude = jnp.reshape(in_rows(exclude[..., None])[0], -1)
    points, restore = in_rows(z)
    return points, jnp.where(exclude < prior.mean.shape[0], exclude, -1), restore


@jitted("block_size")
def _log_prob(z: Array, prior: Exemplar, *, block_size: int | None) -> Array:
    points, exclude, restore = _flat(z, prior)
    points, mean, log_var = widened((points, prior.mean, prior.log_var))
    num = mean.shape[0]
    size = block_size or num

    def log_sum(points, exclude, log_var, mean, index):
        """ln sum over these examples of N(z | mean_n, exp(log_var) I), but for the excluded."""
        log_weight = jnp.where(index < num, 0.0, -jnp.inf).astype(mean.dtype)
        log_var = jnp.broadcast_to(log_var, mean.shape)
        value, log_share = log_joint(points, mean, log_var, log_weight)
        return value + _kept_log_sum(log_share, index[None] != exclude[:, None])

    @once_differentiable
    def blocked(points, exclude, log_var, mean):
        blocks = in_blocks(mean, size), in_blocks(jnp.arange(num), size, fill=num)
        block = jax.checkpoint(lambda part: log_sum(points, exclude, log_var, *part))
        return logsumexp(jax.lax.map(block, blocks), axis=0)

    if size >= num:
        total = log_sum(points, exclude, log_var, mean, jnp.arange(num))
    else:
        total = blocked(points, exclude, log_var, mean)
    log_count = jnp.where(exclude < 0, math.log(num), math.log(max(num - 1, 1)))
    return restore(total - log_count.astype(total.dtype))


def _kept_log_sum(log_share: Array, keep: Array) -> Array:
    """ln sum over what is kept of exp(log_share): [S, b] -> [S]; -inf, and no nan, for nothing."""
    some = jnp.any(keep & (log_share > -jnp.inf), axis=-1)
    kept = jnp.where(keep, log_share, -jnp.inf)
    kept = jnp.where(some[:, None], kept, 0.0)
    return jnp.where(some, jax.vmap(logsumexp)(kept), -jnp.inf)


@jitted("block_size")
def _responsibilities(z: Array, prior: Exemplar, *, block_size: int | None) -> Array:
    points, exclude, restore = _flat(z, prior)
    joint = component_log_prob(points, _as_mixture(prior), block_size=block_size)
    keep = jnp.arange(prior.mean.shape[0])[None] != exclude[:, None]
    share = jax.nn.softmax(jnp.where(keep, joint, -jnp.inf), axis=-1)
    return restore(share)
