"""Every prior integrates to one, and its sampler draws from its density."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from tests.mixtures import (
    log_prob64,
    random_mixture,
)
from vamp_jax import priors
from vamp_jax.priors import GaussianMixture

F32 = np.float32


def each_builder(dim):
    """Every kind of prior in `dim` dimensions, with weights of its own where it can have them."""
    weights = np.array([0.5, -1.0, 0.2], F32)
    u = np.array([[-2.0, 1.0], [0.5, -1.0], [1.5, 2.0]], F32)[:, :dim]
    params = {"pseudo_inputs": u, "weight_logits": weights}
    mog = {"mean": u, "log_var": np.array([[-1.0, 1.5], [0.5, -2.0], [-0.5, 0.5]], F32)[:, :dim]}

    def encode(u):
        return 1.2 * u, jnp.clip(u, -3.0, 1.0)

    return {
        "standard": priors.standard_normal(latent_dim=dim),
        "mog": priors.mixture_of_gaussians(mog),
        "vamp": priors.vamp(params, encode),
        "vamp_data": priors.vamp_data({"pseudo_inputs": u}, encode),
    }


BUILDERS = ("standard", "mog", "vamp", "vamp_data")


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("dim", [1, 2])
def test_integrates_to_one(name, dim):
    axis = np.linspace(-16, 16, 641)
    grid = np.stack(np.meshgrid(*[axis] * dim, indexing="ij"), axis=-1).astype(F32)
    density = np.exp(np.float64(priors.log_prob(grid, each_builder(dim)[name])))
    for _ in range(dim):
        density = scipy.integrate.simpson(density, x=axis, axis=0)
    assert abs(density - 1.0) < 1e-5


@functools.cache
def draws(name, dim, count=20000):
    return np.float64(priors.sample(jax.random.key(7), each_builder(dim)[name], count))


def as_float64(prior):
    return GaussianMixture(*(np.asarray(leaf, np.float64) for leaf in prior))


@pytest.mark.parametrize("name", BUILDERS)
def test_samples_follow_the_cumulative_distribution(name):
    mean, log_var, log_weight = as_float64(each_builder(1)[name])

    def cdf(z):
        parts = scipy.stats.norm.cdf(z[:, None], mean[:, 0], np.exp(0.5 * log_var[:, 0]))
        return parts @ np.exp(log_weight)

    assert scipy.stats.kstest(draws(name, 1)[:, 0], cdf).pvalue > 1e-3


@pytest.mark.parametrize("name", BUILDERS)
def test_samples_have_the_moments_of_the_mixture(name):
    mean, log_var, log_weight = as_float64(each_builder(2)[name])
    weight = np.exp(log_weight)
    expected_mean = weight @ mean
    second = np.einsum("k,ki,kj->ij", weight, mean, mean) + np.diag(weight @ np.exp(log_var))
    z = draws(name, 2)
    products = z[:, :, None] * z[:, None, :]
    for values, expected in ((z, expected_mean), (products, second)):
        error = np.abs(values.mean(axis=0) - expected)
        assert np.all(error < 4 * values.std(axis=0) / len(z) ** 0.5)


@pytest.mark.parametrize("name", BUILDERS)
def test_mean_log_density_of_samples_is_the_negative_entropy(name):
    """E_p[ln p] over our samples against the quadrature of p ln p: both sides must be p."""
    prior = each_builder(1)[name]
    axis = np.linspace(-16, 16, 20001)
    density = log_prob64(axis[:, None], prior)
    expected = scipy.integrate.simpson(np.exp(density) * density, x=axis)
    values = np.float64(priors.log_prob(draws(name, 1).astype(F32), prior))
    assert abs(values.mean() - expected) < 4 * values.std() / len(values) ** 0.5


def test_components_are_drawn_by_their_weights():
    weight = np.array([0.05, 0.3, 0.0, 0.45, 0.2])
    with np.errstate(divide="ignore"):
        log_weight = np.log(weight).astype(F32)
    mean = (100.0 * np.arange(5)[:, None] * np.ones(3)).astype(F32)
    prior = GaussianMixture(mean, np.zeros((5, 3), F32), log_weight)
    z = priors.sample(jax.random.key(3), prior, 5000)
    owner = np.argmax(priors.responsibilities(z, prior), axis=-1)
    counts = np.bincount(owner, minlength=5)
    assert counts[2] == 0
    alive = weight > 0
    assert scipy.stats.chisquare(counts[alive], 5000 * weight[alive]).pvalue > 1e-3
    # One component a sample, not one a coordinate.
    assert np.all(np.ptp(np.asarray(z), axis=-1) < 20)


def test_samples_average_to_the_weights_in_responsibility():
    prior = each_builder(2)["vamp"]
    share = np.asarray(priors.responsibilities(draws("vamp", 2).astype(F32), prior), np.float64)
    error = np.abs(share.mean(axis=0) - np.exp(np.float64(prior.log_weight)))
    assert np.all(error < 4 * share.std(axis=0) / len(share) ** 0.5)


def test_sample_is_a_function_of_its_key():
    prior = random_mixture(0, 4, 3)
    one, again, other = (priors.sample(jax.random.key(k), prior, 6) for k in (0, 0, 1))
    assert one.shape == (6, 3)
    np.testing.assert_array_equal(one, again)
    assert np.all(np.asarray(one) != np.asarray(other))
