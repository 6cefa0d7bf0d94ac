"""The diagonal normal against SciPy in float64, as functions and as a value."""

import chex
import jax
import numpy as np
import pytest
import scipy.stats

from vamp_jax import posteriors
from vamp_jax.posteriors import Normal

F32 = np.float32


def test_normal_log_prob_is_scipys():
    rng = np.random.RandomState(0)
    z, mean = (rng.uniform(-10, 10, (20, 7)).astype(F32) for _ in range(2))
    log_var = rng.uniform(-6, 2, (20, 7)).astype(F32)
    z64, mean64, sd64 = np.float64(z), np.float64(mean), np.exp(0.5 * np.float64(log_var))
    expected = scipy.stats.norm.logpdf(z64, mean64, sd64).sum(axis=-1)
    np.testing.assert_allclose(posteriors.normal_log_prob(z, mean, log_var), expected, rtol=1e-6)
    one = posteriors.normal_log_prob(z[0], mean[0], log_var[0])
    assert one.shape == () and np.isclose(one, expected[0], rtol=1e-6)


def test_normal_sample_has_the_mean_and_variance_it_is_asked_for():
    noise = np.random.RandomState(0).standard_normal((20000, 2)).astype(F32)
    mean, log_var = np.array([3.0, -1.0], F32), np.array([-4.0, 2.0], F32)
    z = np.float64(posteriors.normal_sample(noise, mean, log_var))
    for unit in range(2):
        cdf = scipy.stats.norm(mean[unit], np.exp(0.5 * np.float64(log_var[unit]))).cdf
        assert scipy.stats.kstest(z[:, unit], cdf).pvalue > 1e-3


@pytest.mark.parametrize("shape", [(1,), (5,), (4, 3), (2, 4, 3)])
def test_the_value_has_the_functions_as_methods(shape):
    rng = np.random.RandomState(0)
    mean, noise, z = (rng.standard_normal(shape).astype(F32) for _ in range(3))
    log_var = rng.uniform(-6, 2, shape).astype(F32)
    normal = Normal(mean, log_var)
    back = normal.noise_of(normal.sample(noise))
    np.testing.assert_allclose(back, noise, rtol=1e-3, atol=1e-4)
    drawn, log_q = normal.sample_and_log_prob(noise)
    chex.assert_trees_all_equal(drawn, posteriors.normal_sample(noise, mean, log_var))
    chex.assert_trees_all_equal(normal.sample(noise), drawn)
    chex.assert_shape(log_q, shape[:-1])
    sd = np.exp(0.5 * np.float64(log_var))
    # At the drawn point, which float32 rounds.
    expected = scipy.stats.norm.logpdf(np.float64(drawn), np.float64(mean), sd).sum(axis=-1)
    np.testing.assert_allclose(log_q, expected, rtol=1e-5, atol=1e-5)
    chex.assert_trees_all_equal(normal.log_prob(z), posteriors.normal_log_prob(z, mean, log_var))
    entropy = scipy.stats.norm(mean, sd).entropy().sum(axis=-1)
    np.testing.assert_allclose(normal.entropy(), entropy, rtol=1e-5, atol=1e-5)
    assert normal.base is normal and normal.component is normal


def test_the_value_is_a_pair_and_a_tree():
    normal = Normal(np.zeros((3, 2), F32), np.ones((3, 2), F32))
    mean, log_var = normal
    assert mean is normal.mean and log_var is normal.log_var
    first = jax.tree.map(lambda leaf: leaf[0], normal)
    assert isinstance(first, Normal)
    chex.assert_shape(first, (2,))
    assert jax.jit(lambda q: q.entropy())(normal).shape == (3,)


def test_extreme_log_variances_stay_finite():
    log_var = np.array([-80.0, -30.0, 30.0, 80.0], F32)
    normal = Normal(np.zeros(4, F32), log_var)
    z, log_q = normal.sample_and_log_prob(np.array([3.0, -1.0, 2.0, 0.0], F32))
    expected = scipy.stats.norm.logpdf(np.float64(z), 0, np.exp(0.5 * np.float64(log_var))).sum()
    np.testing.assert_allclose(log_q, expected, rtol=1e-5)
