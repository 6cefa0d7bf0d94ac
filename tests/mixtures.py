"""Mixtures and a small VampPrior for tests; the densities are SciPy's and NumPy's in float64."""

import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from vamp_jax.priors import GaussianMixture

F32 = np.float32


def joint64(z, prior):
    """ln w_k + ln N(z | k): [S, D] -> [S, K]."""
    z, mean, log_var, log_weight = (np.asarray(a, np.float64) for a in (z, *prior))
    density = scipy.stats.norm.logpdf(z[:, None], mean, np.exp(0.5 * log_var))
    return density.sum(axis=-1) + log_weight


def log_prob64(z, prior):
    return scipy.special.logsumexp(joint64(z, prior), axis=-1)


def gradients64(z, prior, cotangent):
    """d sum_s cotangent_s ln p(z_s) / d (z, mean, log_var, log_weight), by hand."""
    joint = joint64(z, prior)
    share = np.exp(joint - scipy.special.logsumexp(joint, axis=-1, keepdims=True))
    share = (share * np.asarray(cotangent, np.float64)[:, None])[..., None]  # [S, K, 1]
    z, mean, log_var = (np.asarray(a, np.float64) for a in (z, prior.mean, prior.log_var))
    standard = (z[:, None] - mean) * np.exp(-0.5 * log_var)
    pull = standard * np.exp(-0.5 * log_var)
    return (
        -(share * pull).sum(axis=1),
        (share * pull).sum(axis=0),
        (0.5 * share * (standard**2 - 1)).sum(axis=0),
        share.sum(axis=(0, 2)),
    )


def random_mixture(seed, num_components, dim, *, scale=1.0, log_var=(-2.0, 2.0)):
    rng = np.random.RandomState(seed)
    return GaussianMixture(
        rng.uniform(-scale, scale, (num_components, dim)).astype(F32),
        rng.uniform(*log_var, (num_components, dim)).astype(F32),
        np.log(rng.dirichlet(np.ones(num_components))).astype(F32),
    )


def random_points(seed, prior, count, *, scale=None):
    """Points of the components or, with a scale, anywhere in [-scale, scale]^D."""
    rng = np.random.RandomState(seed)
    num_components, dim = prior.mean.shape
    if scale is not None:
        return rng.uniform(-scale, scale, (count, dim)).astype(F32)
    k = rng.randint(num_components, size=count)
    noise = rng.standard_normal((count, dim))
    return (prior.mean[k] + np.exp(0.5 * prior.log_var[k]) * noise).astype(F32)


ORDINARY = dict(scale=2.0, log_var=(-2.0, 2.0))
EXTREME = dict(scale=10.0, log_var=(-6.0, 2.0))
NARROW = dict(scale=10.0, log_var=(-6.0, -6.0))


def linear_encode(weights, x):
    """A small encoder: x [K, 3] -> mean and log-variance [K, 2]."""
    return x @ weights["mean"], jnp.tanh(x @ weights["log_var"])


def linear_weights(seed=0):
    rng = np.random.RandomState(seed)
    return {name: rng.standard_normal((3, 2)).astype(F32) for name in ("mean", "log_var")}


def small_vamp(learned_weights=False):
    """The VampPrior of five pseudo-inputs and the linear encoder; float64 components too."""
    rng = np.random.RandomState(5)
    weights = linear_weights()
    params = {"pseudo_inputs": rng.uniform(0, 1, (5, 3)).astype(F32)}
    if learned_weights:
        params["weight_logits"] = rng.standard_normal(5).astype(F32)
    return params, weights
