"""The priors against SciPy and NumPy in float64, the samplers against the densities."""

import functools
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from tests.mixtures import gradients64, joint64, log_prob64, random_mixture, random_points
from vamp_jax import priors
from vamp_jax.priors import GaussianMixture

F32 = np.float32


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


# ---------------------------------------------------------------------------------------------
# Density.

ORDINARY = dict(scale=2.0, log_var=(-2.0, 2.0))
EXTREME = dict(scale=10.0, log_var=(-6.0, 2.0))
NARROW = dict(scale=10.0, log_var=(-6.0, -6.0))


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
# The density is one, and the sampler is the density's.


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


# ---------------------------------------------------------------------------------------------
# Memory.


def temporary_bytes(num_points, num_components, dim, *, block_size=None, gradient=False):
    """What the compiled program needs besides its inputs and outputs; nothing is run."""
    function = functools.partial(priors.log_prob, block_size=block_size)
    if gradient:
        function = jax.grad(lambda z, p: jnp.sum(priors.log_prob(z, p, block_size=block_size)), 1)
    shape = functools.partial(jax.ShapeDtypeStruct, dtype=jnp.float32)
    prior = GaussianMixture(
        shape((num_components, dim)), shape((num_components, dim)), shape((num_components,))
    )
    compiled = jax.jit(function).lower(shape((num_points, dim)), prior).compile()
    return compiled.memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("gradient", [False, True])
def test_blocks_keep_memory_flat(gradient):
    assert temporary_bytes(5000, 50000, 40, block_size=1000, gradient=gradient) < 1e9


@pytest.mark.parametrize("gradient", [False, True])
def test_memory_does_not_grow_with_points_times_components_times_dimensions(gradient):
    points, components, dim = 1000, 500, 400
    used = temporary_bytes(points, components, dim, gradient=gradient)
    assert used < 0.25 * 4 * points * components * dim


@pytest.mark.slow
def test_50000_components_by_5000_samples_fit_in_a_gigabyte():
    program = """
        import resource
        import jax
        from vamp_jax import priors
        key = jax.random.key(0)
        prior = priors.mixture_of_gaussians(priors.init_mixture_of_gaussians(key, 50000, 40))
        z = priors.sample(key, prior, 5000)
        jax.block_until_ready(priors.log_prob(z[:5], prior, block_size=1000))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        result = jax.block_until_ready(priors.log_prob(z, prior, block_size=1000))
        assert bool((result < 0).all())
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, check=True
    )
    unit = 1 if sys.platform == "darwin" else 1024
    assert int(done.stdout) * unit < 1e9
