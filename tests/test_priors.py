"""The priors against SciPy and NumPy in float64; mistakes in a sentence."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from tests.mixtures import (
    EXTREME,
    NARROW,
    ORDINARY,
    joint64,
    linear_encode,
    log_prob64,
    random_mixture,
    random_points,
    small_vamp,
)
from vamp_jax import priors

F32 = np.float32


@pytest.mark.parametrize("block_size", [None, 64])
@pytest.mark.parametrize("far", [False, True])
@pytest.mark.parametrize("ranges", [ORDINARY, EXTREME, NARROW])
def test_log_prob_is_scipys(ranges, far, block_size):
    prior = random_mixture(0, 500, 40, **ranges)
    z = random_points(1, prior, 100, scale=ranges["scale"] if far else None)
    expected = log_prob64(z, prior)
    error = np.abs(np.asarray(priors.log_prob(z, prior, block_size=block_size)) - expected)
    ulp = np.spacing(np.abs(expected).astype(F32))
    assert np.all(error <= np.maximum(1e-3, ulp))
    if not far:
        assert error.max() <= 2e-5


def test_log_prob_is_that_of_multivariate_normals():
    prior = random_mixture(2, 7, 4)
    z = random_points(3, prior, 50)
    parts = [
        scipy.stats.multivariate_normal(mean, np.diag(np.exp(log_var))).logpdf(z)
        for mean, log_var in zip(*np.float64(prior[:2]), strict=True)
    ]
    np.testing.assert_allclose(priors.component_log_prob(z, prior), np.stack(parts, -1), atol=2e-5)
    expected = np.log(np.exp(np.stack(parts, -1)) @ np.exp(np.float64(prior.log_weight)))
    np.testing.assert_allclose(priors.log_prob(z, prior), expected, atol=2e-5)


def test_plain_broadcast_form_is_the_reference():
    prior = random_mixture(0, 50, 40)
    z = random_points(1, prior, 20)
    expected = joint64(z, prior) - np.float64(prior.log_weight)
    np.testing.assert_allclose(priors.component_log_prob(z, prior), expected, rtol=1e-6, atol=2e-5)


def test_standard_normal():
    z = np.random.RandomState(0).standard_normal((30, 5)).astype(F32)
    expected = scipy.stats.norm.logpdf(np.float64(z)).sum(axis=-1)
    prior = priors.standard_normal(latent_dim=5)
    assert prior.mean.shape == (1, 5)
    np.testing.assert_allclose(priors.log_prob(z, prior), expected, atol=1e-5)
    np.testing.assert_allclose(priors.standard_normal_log_prob(z), expected, atol=1e-5)


def test_mixture_with_itself_as_only_component_is_a_normal():
    prior = random_mixture(4, 1, 6)
    z = random_points(5, prior, 20)
    expected = scipy.stats.multivariate_normal(
        np.float64(prior.mean[0]), np.diag(np.exp(np.float64(prior.log_var[0])))
    ).logpdf(z)
    np.testing.assert_allclose(priors.log_prob(z, prior), expected, atol=1e-5)
    np.testing.assert_array_equal(priors.responsibilities(z, prior), np.ones((20, 1)))


def test_mixtures_of_one_and_of_many_have_the_same_constants():
    """Identical components are one, and a standard normal among them: no 2 pi goes missing."""
    z = np.random.RandomState(0).standard_normal((10, 8)).astype(F32)
    params = {"mean": jnp.zeros((300, 8)), "log_var": jnp.zeros((300, 8))}
    many = priors.mixture_of_gaussians_log_prob(z, params)
    np.testing.assert_allclose(many, priors.standard_normal_log_prob(z), atol=1e-5)


def test_order_of_the_components_does_not_matter():
    prior = random_mixture(0, 30, 5)
    order = np.random.RandomState(1).permutation(30)
    shuffled = jax.tree.map(lambda leaf: leaf[order], prior)
    z = random_points(2, prior, 20)
    one, other = priors.log_prob(z, prior), priors.log_prob(z, shuffled)
    np.testing.assert_allclose(one, other, atol=2e-6)
    np.testing.assert_allclose(
        priors.responsibilities(z, prior)[:, order],
        priors.responsibilities(z, shuffled),
        atol=1e-6,
    )


@pytest.mark.parametrize("block_size", [1, 7, 29, 30, 31, 1000])
def test_every_block_size_gives_the_same(block_size):
    prior = random_mixture(0, 30, 5)
    z = random_points(1, prior, 20)
    result = priors.log_prob(z, prior, block_size=block_size)
    np.testing.assert_allclose(result, log_prob64(z, prior), atol=5e-6)


@pytest.mark.parametrize("leading", [(), (1,), (3,), (2, 1, 3), (0,), (2, 0)])
def test_leading_axes_stay(leading):
    prior = random_mixture(0, 4, 3)
    z = np.random.RandomState(0).standard_normal((*leading, 3)).astype(F32)
    expected = log_prob64(z.reshape(-1, 3), prior).reshape(leading)
    for block_size in (None, 3):
        result = priors.log_prob(z, prior, block_size=block_size)
        assert result.shape == leading and result.dtype == jnp.float32
        np.testing.assert_allclose(result, expected, atol=5e-6)
    assert priors.component_log_prob(z, prior).shape == (*leading, 4)
    assert priors.responsibilities(z, prior).shape == (*leading, 4)
    np.testing.assert_allclose(
        priors.standard_normal_log_prob(z), scipy.stats.norm.logpdf(z).sum(-1), atol=5e-6
    )


def test_responsibilities_are_bayes_rule():
    prior = random_mixture(0, 6, 3)
    z = random_points(1, prior, 40)
    joint = np.exp(joint64(z, prior))
    expected = joint / joint.sum(axis=-1, keepdims=True)
    result = priors.responsibilities(z, prior)
    np.testing.assert_allclose(result, expected, atol=2e-6)
    np.testing.assert_allclose(np.sum(result, axis=-1), 1.0, atol=1e-6)


# ---------------------------------------------------------------------------------------------
# Builders.


def test_vamp_is_the_mean_of_the_posteriors_of_its_pseudo_inputs():
    params, weights = small_vamp()
    u, w = np.float64(params["pseudo_inputs"]), {k: np.float64(v) for k, v in weights.items()}
    z = np.random.RandomState(1).standard_normal((20, 2)).astype(F32)
    posteriors = [
        scipy.stats.multivariate_normal(
            u_k @ w["mean"], np.diag(np.exp(np.tanh(u_k @ w["log_var"])))
        ).pdf(z)
        for u_k in u
    ]
    expected = np.log(np.mean(posteriors, axis=0))
    encode = functools.partial(linear_encode, weights)
    np.testing.assert_allclose(priors.vamp_log_prob(z, params, encode), expected, atol=1e-5)
    np.testing.assert_allclose(
        priors.vamp_data_log_prob(z, params["pseudo_inputs"], encode), expected, atol=1e-5
    )


def test_learned_weights_are_a_softmax():
    params, weights = small_vamp(learned_weights=True)
    prior = priors.vamp(params, functools.partial(linear_encode, weights))
    expected = np.log(scipy.special.softmax(np.float64(params["weight_logits"])))
    np.testing.assert_allclose(prior.log_weight, expected, atol=1e-6)

    def loss(params):
        return jnp.sum(
            priors.log_prob(jnp.ones((3, 2)), priors.vamp(params, lambda u: (u[:, :2], u[:, 1:])))
        )

    gradient = jax.grad(loss)(params)["weight_logits"]
    assert np.abs(gradient).max() > 1e-2
    np.testing.assert_allclose(np.sum(gradient), 0.0, atol=1e-5)  # a shift changes nothing


def test_pseudo_inputs_may_be_any_pytree():
    rng = np.random.RandomState(0)
    image, text = (rng.standard_normal(shape).astype(F32) for shape in ((4, 3, 2), (4, 5)))

    def encode(u):
        return u["image"].sum(axis=1), jnp.tanh(u["text"][0][:, :2])

    params = {"pseudo_inputs": {"image": image, "text": [text]}}
    prior = priors.vamp(params, encode, bounds=(0.0, 1.0))
    np.testing.assert_allclose(prior.mean, np.clip(image, 0, 1).sum(1), rtol=1e-6)
    np.testing.assert_allclose(prior.log_var, np.tanh(np.clip(text, 0, 1)[:, :2]), rtol=1e-6)
    fixed = priors.vamp_data(params, encode)
    np.testing.assert_allclose(fixed.mean, image.sum(1), rtol=1e-6)
    noisy = priors.init_vamp_from_data(jax.random.key(0), params["pseudo_inputs"], stddev=0.5)
    noise = jax.tree.map(lambda a, b: a - b, noisy["pseudo_inputs"], params["pseudo_inputs"])
    assert np.abs(noise["image"]).min() > 0 and np.abs(noise["text"][0]).min() > 0
    assert len(np.unique(np.concatenate([noise["image"].ravel(), noise["text"][0].ravel()]))) > 40


def test_bounds_clip_and_stop_the_gradient_outside():
    u = np.array([[-0.5, 0.5, 1.5], [0.25, 2.0, 0.75]], F32)

    def loss(params):
        prior = priors.vamp(params, lambda u: (u, jnp.zeros_like(u)), bounds=(0.0, 1.0))
        return jnp.sum(priors.log_prob(jnp.full((1, 3), 3.0), prior)), prior.mean

    gradient, mean = jax.grad(loss, has_aux=True)({"pseudo_inputs": u})
    np.testing.assert_array_equal(mean, np.clip(u, 0, 1))
    inside = (u > 0) & (u < 1)
    np.testing.assert_array_equal(np.asarray(gradient["pseudo_inputs"]) != 0, inside)


def test_without_bounds_pseudo_inputs_are_free():
    u = np.array([[-3.0, 7.0]], F32)
    prior = priors.vamp({"pseudo_inputs": u}, lambda u: (u, jnp.zeros_like(u)))
    np.testing.assert_array_equal(prior.mean, u)


def test_initialisers():
    key = jax.random.key(0)
    u = priors.init_vamp(key, 200, (6, 5, 2), mean=0.4, stddev=0.05)
    assert set(u) == {"pseudo_inputs"} and u["pseudo_inputs"].shape == (200, 6, 5, 2)
    count = u["pseudo_inputs"].size
    assert abs(np.mean(u["pseudo_inputs"]) - 0.4) < 4 * 0.05 / count**0.5
    assert abs(np.std(u["pseudo_inputs"]) - 0.05) < 4 * 0.05 / (2 * count) ** 0.5

    mog = priors.init_mixture_of_gaussians(key, 300, 40, stddev=3.0, learned_weights=True)
    assert mog["mean"].shape == mog["log_var"].shape == (300, 40)
    assert abs(np.std(mog["mean"]) - 3.0) < 4 * 3.0 / (2 * 12000) ** 0.5
    np.testing.assert_array_equal(mog["log_var"], 0.0)
    np.testing.assert_array_equal(mog["weight_logits"], np.zeros(300))

    examples = np.random.RandomState(0).uniform(size=(50, 4, 4, 1)).astype(F32)
    near = priors.init_vamp_from_data(key, examples)["pseudo_inputs"]
    assert abs(np.std(near - examples) - 0.01) < 4 * 0.01 / (2 * 800) ** 0.5
    same = priors.init_vamp_from_data(key, examples, stddev=0, learned_weights=True)
    np.testing.assert_array_equal(same["pseudo_inputs"], examples)
    assert same["weight_logits"].shape == (50,)


# ---------------------------------------------------------------------------------------------
# Mistakes.


def test_wrong_shapes_raise_a_sentence():
    good = random_mixture(0, 3, 2)
    z = np.zeros((5, 4), F32)
    for function in (priors.log_prob, priors.component_log_prob, priors.responsibilities):
        with pytest.raises(ValueError, match=r"z must be \[\.\.\., 2\].*shape \(5, 4\)"):
            function(z, good)
        with pytest.raises(ValueError, match=r"z must be \[\.\.\., 2\].*shape \(\)"):
            function(np.float32(0.0), good)
        with pytest.raises(ValueError, match=r"both be \[K, D\].*\(3, 2\) and \(3,\)"):
            function(z, good._replace(log_var=np.zeros(3, F32)))
        with pytest.raises(ValueError, match=r"log_weight must be \[K\] = \(3,\).*\(2,\)"):
            function(np.zeros((5, 2), F32), good._replace(log_weight=np.zeros(2, F32)))


def test_wrong_parameters_raise_a_sentence():
    with pytest.raises(ValueError, match=r"mixture_of_gaussians: .*\(3, 2\) and \(3, 1\)"):
        priors.mixture_of_gaussians({"mean": np.zeros((3, 2)), "log_var": np.zeros((3, 1))})
    with pytest.raises(ValueError, match=r"weight_logits must have shape \(3,\).*\(4,\)"):
        priors.mixture_of_gaussians(
            {"mean": np.ones((3, 2)), "log_var": np.ones((3, 2)), "weight_logits": np.ones(4)}
        )
    for build, name in ((priors.vamp, "vamp"), (priors.vamp_data, "vamp_data")):
        with pytest.raises(ValueError, match=rf"{name}: .*\(3, 2, 2\)"):
            build({"pseudo_inputs": np.zeros((3, 2, 2))}, lambda u: (u, u))
    with pytest.raises(ValueError, match="latent_dim is 0; it must be at least 1"):
        priors.standard_normal(latent_dim=0)
    with pytest.raises(ValueError, match="num_samples is 0; it must be at least 1"):
        priors.sample(jax.random.key(0), random_mixture(0, 3, 2), 0)
    with pytest.raises(ValueError, match="block_size is 0; it must be at least 1"):
        priors.log_prob(np.zeros((5, 2), F32), random_mixture(0, 3, 2), block_size=0)
