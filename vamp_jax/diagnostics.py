"""What a model does with its latent units and its prior: pure functions, in nats.

The talk's rewriting of the ELBO, averaged over the N examples of a data set, with the aggregated
posterior q(z) = 1/N sum_n q(z|x_n) of the top layer:

    E_x[ELBO] = reconstruction - E_x[KL of z1] + E_x[H[q(z|x)]] - CE(q(z), p(z))
    CE(q(z), p(z)) = H[q(z)] + KL(q(z) || p(z)),      I(x; z) = H[q(z)] - E_x[H[q(z|x)]]
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vamp_jax import priors
from vamp_jax.posteriors import LOG_2PI, check_units, normal_log_density
from vamp_jax.priors import GaussianMixture

Array = jax.Array

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016


def _check_rows(name: str, **arrays: Array) -> None:
    """Raises a ValueError unless all are [N, D] with one N and D of at least 1."""
    shapes = {field: jnp.shape(array) for field, array in arrays.items()}
    first = next(iter(shapes.values()))
    if len(first) != 2 or 0 in first or any(shape != first for shape in shapes.values()):
        listed = ", ".join(f"{field} {shape}" for field, shape in shapes.items())
        raise ValueError(f"{name}: arguments must be [N, D], N >= 1, but have shapes {listed}.")


def unit_variances(means: Array) -> Array:
    """Var_x(E[z_u | x]) of each unit from the posterior means of N examples: [N, D] -> [D]."""
    _check_rows("unit_variances", means=means)
    return jnp.var(means, axis=0)


def active_units(means: Array) -> Array:
    """Counts the units with Var_x(E[z_u | x]) > 0.01 (section 5): [N, D] -> a whole number."""
    return jnp.sum(unit_variances(means) > ACTIVE_VARIANCE)


def normal_entropy(log_var: Array) -> Array:
    """H[N(., diag(exp(log_var)))] = 1/2 sum_d (1 + ln 2 pi + log_var_d): [..., D] -> [...]."""
    return 0.5 * jnp.sum(1.0 + LOG_2PI + log_var, axis=-1)


class Decomposition(NamedTuple):
    """The terms of the ELBO that meet in the top layer, in nats."""

    encoder_entropy: Array  # E_x[H[q(z|x)]]
    cross_entropy: Array  # CE(q(z), p(z))
    aggregated_entropy: Array  # H[q(z)]
    kl_to_prior: Array  # KL(q(z) || p(z))
    mutual_information: Array  # I(x; z)


def aggregated_posterior(mean: Array, log_var: Array) -> GaussianMixture:
    """Returns q(z) = 1/N sum_n q(z|x_n), the posteriors of N examples [N, D] as one mixture."""
    _check_rows("aggregated_posterior", mean=mean, log_var=log_var)
    count = mean.shape[0]
    return GaussianMixture(mean, log_var, jnp.full(count, -math.log(count)))


def decompose(log_posterior: Array, log_q: Array, log_p: Array, log_var: Array) -> Decomposition:
    """Computes the decomposition from draws z ~ q(z|x_n), equally many from each posterior.

    The entropies of single posteriors are in closed form. I = E[ln q(z|x) - ln q(z)] and
    KL(q(z) || p(z)) = E[ln q(z) - ln p(z)] are means over the draws of differences. What is random
    in ln q(z|x) alone cancels in them, so I never exceeds ln N, and the terms add up to the ELBO of
    the same draws.

    Args:
      log_posterior: ln q(z|x_n) of each draw under the posterior it is from, [M].
      log_q: ln q(z) of the draws under `aggregated_posterior`, [M].
      log_p: ln p(z) of the draws, [M].
      log_var: of q(z|x_n), [N, D].
    Raises:
      ValueError: for other shapes, or an M that is no multiple of N.
    """
    _check_rows("decompose", log_var=log_var)
    shapes = [jnp.shape(values) for values in (log_posterior, log_q, log_p)]
    draws, count = shapes[0], jnp.shape(log_var)[0]
    if len(draws) != 1 or shapes != [draws] * 3 or not draws[0] or draws[0] % count:
        raise ValueError(
            "decompose: log_posterior, log_q and log_p must all be [M], M a multiple of N = "
            f"{count}, but have shapes {', '.join(map(str, shapes))}."
        )
    encoder_entropy = jnp.mean(normal_entropy(log_var))
    mutual_information = jnp.mean(log_posterior - log_q)
    kl_to_prior = jnp.mean(log_q - log_p)
    aggregated_entropy = encoder_entropy + mutual_information
    return Decomposition(
        encoder_entropy=encoder_entropy,
        cross_entropy=aggregated_entropy + kl_to_prior,
        aggregated_entropy=aggregated_entropy,
        kl_to_prior=kl_to_prior,
        mutual_information=mutual_information,
    )


def marginal_kl_per_unit(z: Array, mean: Array, log_var: Array, prior: GaussianMixture) -> Array:
    """One draw of ln q(z_u|x) - ln p(z_u) for each unit u, p(z_u) the prior's marginal.

    A mixture does not factorise, so these do not add up to the KL of the layer; they say which
    units carry information. [B, D] each -> [B, D], in nats; memory O(K D).
    """
    _check_rows("marginal_kl_per_unit", z=z, mean=mean, log_var=log_var)
    priors.check_points("marginal_kl_per_unit", z, prior)

    def one(z, mean, log_var):
        components = normal_log_density(z, prior.mean, prior.log_var)  # [K, D]
        log_p = jax.nn.logsumexp(components + prior.log_weight[:, None], axis=0)
        return normal_log_density(z, mean, log_var) - log_p

    return jax.lax.map(lambda row: one(*row), (z, mean, log_var), batch_size=20)


def normal_kl_per_unit(mean: Array, log_var: Array, p_mean: Array, p_log_var: Array) -> Array:
    """KL(N(mean, var) || N(p_mean, p_var)) of each unit in closed form: [..., D] -> [..., D]."""
    check_units(
        "normal_kl_per_unit", mean=mean, log_var=log_var, p_mean=p_mean, p_log_var=p_log_var
    )
    difference = (mean - p_mean) ** 2 * jnp.exp(-p_log_var)
    return 0.5 * (p_log_var - log_var + jnp.exp(log_var - p_log_var) + difference - 1.0)


class PriorUse(NamedTuple):
    """How a mixture's components are used by the examples' draws of z."""

    mass: Array  # mean responsibility of each component, [K]; sums to 1
    entropy: Array  # of the mass, in nats; ln K when all are used alike
    dead: Array  # components with less than a hundredth of an equal share


def prior_use(z: Array, prior: priors.Density) -> PriorUse:
    """Computes how much draws z [M, D] use each component: their mean responsibilities."""
    _check_rows("prior_use", z=z)
    share = jax.lax.map(lambda point: priors.responsibilities(point, prior), z, batch_size=500)
    mass = jnp.mean(share, axis=0)
    entropy = -jnp.sum(jnp.where(mass > 0, mass * jnp.log(jnp.where(mass > 0, mass, 1.0)), 0.0))
    return PriorUse(mass, entropy, jnp.sum(mass < 0.01 / mass.shape[0]))


def pseudo_input_use(
    pseudo_inputs: Array, at_start: Array, bounds: tuple[float, float] = (0.0, 1.0)
) -> dict[str, Array]:
    """Measures how far pseudo-inputs [K, ...] have moved, and how many values are clipped.

    Returns:
      distance: root mean square, over the values of each, of the clipped difference, [K].
      at_clip: the share of all values outside the open interval `bounds`: they get no gradient.
    Raises:
      ValueError: for shapes that differ, or no values.
    """
    shapes = jnp.shape(pseudo_inputs), jnp.shape(at_start)
    if len(shapes[0]) < 2 or shapes[0] != shapes[1] or 0 in shapes[0]:
        raise ValueError(
            f"pseudo_input_use: both must be [K, ...] of one shape, but have {shapes[0]} and "
            f"{shapes[1]}."
        )
    low, high = bounds
    moved = jnp.clip(pseudo_inputs, low, high) - jnp.clip(at_start, low, high)
    axes = tuple(range(1, moved.ndim))
    outside = (pseudo_inputs <= low) | (pseudo_inputs >= high)
    return {"distance": jnp.sqrt(jnp.mean(moved**2, axis=axes)), "at_clip": jnp.mean(outside)}
