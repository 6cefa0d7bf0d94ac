"""The variational Renyi bound: its limits, and its gradient by the weights of the paper."""

import math

import jax
import numpy as np
import pytest
import scipy.special

from vamp_jax.objectives import Renyi, log_mean_exp, renyi_mean

LOG_WEIGHTS = np.random.RandomState(0).normal(-80.0, 3.0, (7, 4)).astype(np.float32)


@pytest.mark.parametrize("alpha", [-20.0, -0.5, 0.0, 0.5, 0.9, 1.5, 3.0])
def test_value_is_that_of_float64(alpha):
    w = np.float64(LOG_WEIGHTS)
    expected = (scipy.special.logsumexp((1 - alpha) * w, axis=0) - math.log(7)) / (1 - alpha)
    np.testing.assert_allclose(renyi_mean(LOG_WEIGHTS, alpha), expected, rtol=1e-5)


def test_limits_are_the_elbo_the_importance_weighted_bound_and_vr_max():
    np.testing.assert_allclose(renyi_mean(LOG_WEIGHTS, 1.0), LOG_WEIGHTS.mean(0), rtol=1e-6)
    np.testing.assert_allclose(renyi_mean(LOG_WEIGHTS, 0.0), log_mean_exp(LOG_WEIGHTS), rtol=1e-6)
    np.testing.assert_array_equal(renyi_mean(LOG_WEIGHTS, -math.inf), LOG_WEIGHTS.max(0))
    # Falls as alpha grows, from the largest weight to the mean of the logarithms and below.
    values = [renyi_mean(LOG_WEIGHTS, alpha) for alpha in (-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0)]
    for larger, smaller in zip(values, values[1:], strict=False):
        assert np.all(larger > smaller)


@pytest.mark.parametrize("alpha", [-math.inf, -2.0, 0.0, 0.5, 1.0])
def test_gradient_weighs_each_draw_by_its_power(alpha):
    gradient = jax.grad(lambda w: renyi_mean(w, alpha).sum())(LOG_WEIGHTS)
    if alpha == -math.inf:
        expected = np.float64(LOG_WEIGHTS == LOG_WEIGHTS.max(0))
    else:
        expected = scipy.special.softmax((1 - alpha) * np.float64(LOG_WEIGHTS), axis=0)
    np.testing.assert_allclose(gradient, expected, atol=1e-5)


@pytest.mark.parametrize("alpha", [math.nan, math.inf])
def test_what_is_no_order_is_an_error(alpha):
    with pytest.raises(ValueError, match="alpha"):
        Renyi(3, alpha)
