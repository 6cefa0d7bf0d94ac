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
from vamp_jax.priors import GaussianMixture

Array = jax.Array

ACTIVE_VARIANCE = 0.01  # Burda et al. 2016


def unit_variances(means: Array) -> Array:
    """Var_x(E[z_u | x]) of each unit from the posterior means of N examples: [N, D] -> [D]."""
    return jnp.var(means, axis=0)


def active_units(means: Array) -> Array:
    """How many units have Var_x(E[z_u | x]) > 0.01 (section 5): [N, D] -> a whole number."""
    return jnp.sum(unit_variances(means) > ACTIVE_VARIANCE)


def normal_entropy(log_var: Array) -> Array:
    """H[N(., diag(exp(log_var)))] = 1/2 sum_d (1 + ln 2 pi + log_var_d): [..., D] -> [...]."""
    return 0.5 * jnp.sum(1.0 + math.log(2.0 * math.pi) + log_var, axis=-1)


class Decomposition(NamedTuple):
    """The terms of the ELBO that meet in the top layer, in nats."""

    encoder_entropy: Array  # E_x[H[q(z|x)]]
    cross_entropy: Array  # CE(q(z), p(z))
    aggregated_entropy: Array  # H[q(z)]
    kl_to_prior: Array  # KL(q(z) || p(z))
    mutual_information: Array  # I(x; z)


def decompose(
    z: Array, mean: Array, log_var: Array, prior: GaussianMixture, *, block_size: int = 1000
) -> Decomposition:
    """The decomposition over N examples, with one or more draws of z for each.

    q(z) is the mixture of all N posteriors; entropies of single posteriors are in closed form,
    the expectations over q(z) are means over the draws.

    Args:
      z: draws from the N posteriors, [M, D], equally many from each.
      mean, log_var: of q(z|x_n), [N, D].
      prior: p(z).
      block_size: components of q(z) at a time; memory is O(M block_size).
    """
    count = mean.shape[0]
    aggregated = GaussianMixture(mean, log_var, jnp.full(count, -math.log(count)))
    aggregated_entropy = -jnp.mean(priors.log_prob(z, aggregated, block_size=block_size))
    cross_entropy = -jnp.mean(priors.log_prob(z, prior, block_size=block_size))
    encoder_entropy = jnp.mean(normal_entropy(log_var))
    return Decomposition(
        encoder_entropy=encoder_entropy,
        cross_entropy=cross_entropy,
        aggregated_entropy=aggregated_entropy,
        kl_to_prior=cross_entropy - aggregated_entropy,
        mutual_information=aggregated_entropy - encoder_entropy,
    )
