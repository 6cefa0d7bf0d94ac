"""The gradients of priors in float64, at extreme inputs, under jit, vmap and pmap."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.mixtures import (
    EXTREME,
    ORDINARY,
    gradients64,
    linear_encode,
    log_prob64,
    random_mixture,
    random_points,
    small_vamp,
)
from vamp_jax import priors
from vamp_jax.priors import GaussianMixture

F32 = np.float32


# ---------------------------------------------------------------------------------------------
# Extreme inputs.


@functools.partial(jax.jit, static_argnames="block_size")
def value_and_gradients(z, prior, cotangent, block_size=None):
    """Values, and the gradient of their weighted sum to z and the prior's fields."""

    def loss(z, prior):
        values = priors.log_prob(z, prior, block_size=block_size)
        return jnp.sum(cotangent * values), values

    (_, values), (dz, dprior) = jax.value_and_grad(loss, (0, 1), has_aux=True)(z, prior)
    return values, (dz, *dprior)


@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("log_var", [-20.0, -6.0, 2.0, 20.0])
@pytest.mark.parametrize("size", [0.0, 1.0, 1e3])
def test_extreme_inputs_stay_finite_and_right(log_var, size, block_size):
    rng = np.random.RandomState(0)
    prior = GaussianMixture(
        rng.standard_normal((5, 4)).astype(F32),
        np.full((5, 4), log_var, F32),
        np.full(5, -np.log(5), F32),
    )
    z = (size * rng.standard_normal((6, 4))).astype(F32)
    values, gradients = value_and_gradients(z, prior, np.ones(6, F32), block_size)
    np.testing.assert_allclose(values, log_prob64(z, prior), rtol=1e-6)
    for gradient, expected in zip(gradients, gradients64(z, prior, np.ones(6)), strict=True):
        assert np.all(np.isfinite(gradient))
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.parametrize("log_var", [-20.0, -16.0, -12.0, -8.0])
def test_gradients_of_narrow_components_at_their_own_draws(log_var, block_size):
    """Where the terms of the quadratic form reach 1e10, and their sum is of order 1."""
    rng = np.random.RandomState(0)
    mean = rng.choice([-10.0, -3.0, 3.0, 10.0], (5, 4)).astype(F32)
    prior = GaussianMixture(mean, np.full((5, 4), log_var, F32), np.full(5, -np.log(5), F32))
    z = mean[[0, 1, 1, 3]] + np.exp(0.5 * log_var) * rng.standard_normal((4, 4))
    z, cotangent = z.astype(F32), rng.standard_normal(4).astype(F32)
    _, gradients = value_and_gradients(z, prior, cotangent, block_size)
    for gradient, expected in zip(gradients, gradients64(z, prior, cotangent), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("block_size", [None, 1, 2])
def test_dead_component_has_no_part(block_size):
    """Weight zero: no part in the value or the gradient, even where z sits on its mean."""
    prior = GaussianMixture(
        np.array([[0.0, 1.0], [4.0, 4.0], [-1.0, 0.0]], F32),
        np.array([[0.0, 0.5], [-6.0, -6.0], [0.3, 0.0]], F32),
        np.array([np.log(0.3), -np.inf, np.log(0.7)], F32),
    )
    z = np.array([[4.0, 4.0], [0.0, 0.0]], F32)
    living = jax.tree.map(lambda leaf: leaf[[0, 2]], prior)
    values, gradients = value_and_gradients(z, prior, np.ones(2, F32), block_size)
    np.testing.assert_allclose(values, log_prob64(z, living), atol=5e-6)
    for gradient in gradients[1:]:
        np.testing.assert_array_equal(np.asarray(gradient)[1], 0.0)
    expected = gradients64(z, living, np.ones(2))
    np.testing.assert_allclose(gradients[0], expected[0], rtol=1e-5, atol=1e-5)
    for gradient, wanted in zip(gradients[1:], expected[1:], strict=True):
        np.testing.assert_allclose(np.asarray(gradient)[[0, 2]], wanted, rtol=1e-5, atol=1e-5)


def test_all_components_dead_is_minus_infinity_not_nan():
    prior = GaussianMixture(np.zeros((2, 3), F32), np.zeros((2, 3), F32), np.full(2, -np.inf, F32))
    # Traced: weights that are known are refused, since they do not sum to 1.
    result = jax.jit(priors.log_prob)(np.zeros((1, 3), F32), prior)
    np.testing.assert_array_equal(result, [-np.inf])


# ---------------------------------------------------------------------------------------------
# Gradients and transformations.


@pytest.mark.parametrize("block_size", [None, 64])
@pytest.mark.parametrize(
    "ranges, far, tolerance",
    [
        (ORDINARY, False, 5e-6),
        (ORDINARY, True, 5e-6),
        (EXTREME, False, 2e-3),
        (EXTREME, True, 5e-5),
    ],
)
def test_gradients_are_those_of_float64(ranges, far, tolerance, block_size):
    """To z, the means, the log-variances and the log-weights; error over the largest entry."""
    prior = random_mixture(0, 500, 40, **ranges)
    z = random_points(1, prior, 100, scale=ranges["scale"] if far else None)
    cotangent = np.random.RandomState(2).standard_normal(100).astype(F32)
    _, gradients = value_and_gradients(z, prior, cotangent, block_size)
    for gradient, expected in zip(gradients, gradients64(z, prior, cotangent), strict=True):
        error = np.abs(np.asarray(gradient) - expected).max()
        assert error <= tolerance * np.abs(expected).max()


def plain_log_prob(z, mean, log_var, log_weight):
    """The mixture written out in JAX, for float64 derivatives of any order."""
    square = (z[..., None, :] - mean) ** 2 / jnp.exp(log_var)
    joint = log_weight - 0.5 * jnp.sum(square + log_var + jnp.log(2 * jnp.pi), axis=-1)
    return jax.scipy.special.logsumexp(joint, axis=-1)


def test_hessian_and_forward_mode_are_those_of_float64():
    prior = random_mixture(0, 3, 2)
    z = np.array([0.3, -0.5], F32)

    def ours(z, mean, log_var, log_weight):
        return priors.log_prob(z, GaussianMixture(mean, log_var, log_weight))

    args = (z, *prior)
    with jax.enable_x64(True):
        args64 = tuple(jnp.asarray(np.float64(a)) for a in args)
        gradient64 = jax.jit(jax.grad(plain_log_prob, (0, 1, 2, 3)))(*args64)
        hessian64 = jax.jit(jax.hessian(plain_log_prob, (0, 1, 2, 3)))(*args64)
    assert hessian64[0][0].dtype == np.float64
    forward = jax.jit(jax.jacfwd(ours, (0, 1, 2, 3)))(*args)
    hessian = jax.jit(jax.hessian(ours, (0, 1, 2, 3)))(*args)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), forward, gradient64)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=5e-5), hessian, hessian64)


def test_jit_vmap_and_pmap_change_nothing():
    prior = random_mixture(0, 10, 4)
    z = random_points(1, prior, 16).reshape(8, 2, 4)
    expected = log_prob64(z.reshape(-1, 4), prior).reshape(8, 2)
    several = jax.tree.map(lambda leaf: np.stack([leaf] * 8), prior)
    assert jax.local_device_count() == 8
    for result in (
        jax.jit(priors.log_prob)(z, prior),
        jax.vmap(priors.log_prob, (0, None))(z, prior),
        jax.vmap(priors.log_prob)(z, several),
        jax.vmap(jax.vmap(priors.log_prob, (0, None)), (0, None))(z, prior),
        jax.pmap(priors.log_prob, in_axes=(0, None))(z, prior),
        jax.pmap(functools.partial(priors.log_prob, block_size=3))(z, several),
    ):
        np.testing.assert_allclose(result, expected, atol=5e-6)


def test_gradients_under_vmap_and_pmap():
    prior = random_mixture(0, 10, 4)
    z = random_points(1, prior, 8)
    expected = gradients64(z, prior, np.ones(8))
    grad = jax.grad(priors.log_prob, (0, 1))
    for mapped in (jax.vmap(grad, (0, None)), jax.pmap(grad, in_axes=(0, None))):
        dz, dprior = mapped(z, prior)
        np.testing.assert_allclose(dz, expected[0], atol=2e-5)
        for gradient, wanted in zip(dprior, expected[1:], strict=True):
            np.testing.assert_allclose(np.sum(gradient, axis=0), wanted, atol=2e-5)


def test_sample_and_responsibilities_under_pmap():
    prior = random_mixture(0, 10, 4)
    keys = jax.random.split(jax.random.key(0), 8)
    sample = functools.partial(priors.sample, num_samples=5)
    z = jax.pmap(sample, in_axes=(0, None))(keys, prior)
    one_by_one = np.stack([sample(key, prior) for key in keys])
    np.testing.assert_allclose(z, one_by_one, atol=1e-5)
    share = jax.pmap(priors.responsibilities, in_axes=(0, None))(z, prior)
    np.testing.assert_allclose(share, priors.responsibilities(one_by_one, prior), atol=1e-5)


def test_second_call_does_not_trace_again():
    prior = random_mixture(0, 10, 4)
    traces = []

    def traced(z, prior):
        traces.append(None)
        return priors.log_prob(z, prior)

    function = jax.jit(traced)
    for seed in (1, 2):
        function(random_points(seed, prior, 8), prior)
    assert len(traces) == 1


def vamp_loss(params, weights, z, *, data=False):
    encode = functools.partial(linear_encode, weights)
    if data:
        return jnp.sum(priors.vamp_data_log_prob(z, params["pseudo_inputs"], encode))
    return jnp.sum(priors.vamp_log_prob(z, params, encode))


@pytest.mark.parametrize("data", [False, True])
def test_gradients_of_the_vamp_prior(data):
    """Float64 central differences of a NumPy VampPrior: pseudo-inputs, encoder, z."""
    params, weights = small_vamp()
    z = np.random.RandomState(1).standard_normal((6, 2)).astype(F32)

    def loss64(u, mean_weights, log_var_weights, z):
        mean, log_var = u @ mean_weights, np.tanh(u @ log_var_weights)
        return log_prob64(z, GaussianMixture(mean, log_var, np.full(len(u), -np.log(len(u))))).sum()

    args = [np.float64(a) for a in (params["pseudo_inputs"], *weights.values(), z)]
    gradient = jax.grad(functools.partial(vamp_loss, data=data), (0, 1, 2))(params, weights, z)
    ours = [gradient[0]["pseudo_inputs"], *(gradient[1][name] for name in weights), gradient[2]]
    for place, result in enumerate(ours):
        expected = np.zeros_like(args[place])
        for at in np.ndindex(expected.shape):
            step = np.zeros_like(expected)
            step[at] = 1e-5
            above, below = (
                loss64(*args[:place], args[place] + sign * step, *args[place + 1 :])
                for sign in (1, -1)
            )
            expected[at] = (above - below) / 2e-5
        assert np.abs(expected).max() > 0.1
        if data and place == 0:  # fixed examples: they get none
            expected[:] = 0.0
        np.testing.assert_allclose(result, expected, atol=2e-5)
