"""VAE and HVAE against NumPy in float64 with the same weights; layers, sizes, initialisation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from tests import reference
from tests.cases import F32, SMALL, draw_noise, random_params
from tests.reference import SHAPE
from vamp_jax import likelihoods
from vamp_jax.layers import dense
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE

FULL = dict(x_shape=(28, 28, 1), likelihood=likelihoods.BERNOULLI, latent_dim=40, hidden_dim=300)
LIKELIHOODS = [likelihoods.BERNOULLI, likelihoods.DISCRETISED_LOGISTIC]
each_likelihood = pytest.mark.parametrize("likelihood", LIKELIHOODS, ids=lambda one: one.name)


def call(network, params, method, *args):
    return jax.jit(functools.partial(network.apply, method=method))({"params": params}, *args)


def compare(ours, expected):
    """Leaves of the same values; ours may be in the shape of images."""
    ours = jax.tree.map(lambda one, other: np.reshape(one, np.shape(other)), tuple(ours), expected)
    chex.assert_trees_all_close(ours, expected, rtol=1e-5, atol=2e-5)


def random_images(count=5):
    return np.random.RandomState(1).uniform(size=(count, *SHAPE)).astype(F32)


# ---------------------------------------------------------------------------------------------
# Forward passes.


@each_likelihood
def test_vae_is_the_papers(likelihood):
    network = VAE(**{**SMALL, "likelihood": likelihood})
    params, x = random_params(network), random_images()
    latents = draw_noise(network, 5)
    compare(call(network, params, "encode", x), reference.encode(params, x))
    heads = call(network, params, "decode", latents)
    assert len(heads) == len(likelihood.heads(SHAPE))
    chex.assert_shape(heads, (5, *SHAPE))
    compare(heads, reference.decode(params, latents))


@each_likelihood
def test_hvae_is_the_papers(likelihood):
    network = HVAE(**{**SMALL, "likelihood": likelihood})
    params, x = random_params(network), random_images()
    latents = draw_noise(network, 5)
    compare(call(network, params, "encode", x), reference.encode(params, x))
    features, z2 = call(network, params, "features", x), latents["z2"]
    q_z1 = reference.encode_z1(params, x, z2)
    compare(call(network, params, "encode_z1", features, z2), q_z1)
    compare(call(network, params, "prior_z1", z2), reference.prior_z1(params, z2))
    heads = call(network, params, "decode", latents)
    assert len(heads) == len(likelihood.heads(SHAPE))
    chex.assert_shape(heads, (5, *SHAPE))
    compare(heads, reference.decode(params, latents))


def test_hvae_broadcasts_samples_against_images():
    """[S, B, D] latents beside [B, F] features are S separate calls."""
    network = HVAE(**SMALL)
    params, x = random_params(network), random_images()
    latents = draw_noise(network, 3, 5)
    features = call(network, params, "features", x)
    together = call(network, params, "encode_z1", features, latents["z2"])
    chex.assert_shape(together, (3, 5, 4))
    compare(together, reference.encode_z1(params, x, latents["z2"]))
    heads = call(network, params, "decode", latents)
    chex.assert_shape(heads, (3, 5, *SHAPE))
    compare(heads, reference.decode(params, latents))


def test_hvae_draws_and_descends_by_its_own_densities():
    """`infer` from the top down with noise of each layer; `descend` from p(z1|z2)."""
    network = HVAE(**SMALL)
    params, x = random_params(network), random_images()
    noise = draw_noise(network, 5)
    top = call(network, params, "encode", x)
    features = call(network, params, "features", x)
    latents, log_q = call(network, params, "infer", top, features, noise)

    def sample(mean, log_var, noise):
        return mean + np.exp(0.5 * log_var) * noise

    q_z2 = reference.encode(params, x)
    z2 = sample(*q_z2, noise["z2"])
    q_z1 = reference.encode_z1(params, x, z2)
    z1 = sample(*q_z1, noise["z1"])
    expected = {"z1": z1, "z2": z2}
    chex.assert_trees_all_close(latents, expected, rtol=1e-5, atol=2e-5)
    densities = {"z1": reference.normal(z1, *q_z1), "z2": reference.normal(z2, *q_z2)}
    chex.assert_trees_all_close(log_q, densities, rtol=1e-5, atol=2e-5)
    below = call(network, params, "descend", latents["z2"], noise)
    expected = {"z1": sample(*reference.prior_z1(params, z2), noise["z1"]), "z2": z2}
    chex.assert_trees_all_close(below, expected, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_log_variances_are_clipped_and_means_are_not(kind):
    model = kind(**SMALL)
    params = random_params(model)
    x = np.random.RandomState(0).uniform(size=(200, *SHAPE)).astype(F32)
    params = jax.tree.map(lambda leaf: 5 * leaf, params)
    mean, log_var = call(model, params, "encode", x)
    assert np.min(log_var) == -6.0 and np.max(log_var) == 2.0
    assert np.max(np.abs(mean)) > 10.0
    expected_mean, expected_log_var = reference.encode(params, x)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(log_var, expected_log_var, rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------------------------------------
# Layers.


def test_dense_of_several_inputs_is_dense_of_their_concatenation():
    rng = np.random.RandomState(0)
    one, two, three = (rng.standard_normal((5, n)).astype(F32) for n in (3, 1, 4))
    layer = dense.Dense(6)
    params = layer.init(jax.random.key(0), one, two, three)
    assert params["params"]["kernel"].shape == (8, 6)
    apart = layer.apply(params, one, two, three)
    together = layer.apply(params, np.concatenate([one, two, three], axis=-1))
    np.testing.assert_allclose(apart, together, atol=2e-6)
    np.testing.assert_allclose(apart, reference.dense(params["params"], one, two, three), atol=2e-6)


def test_dense_broadcasts_leading_axes():
    rng = np.random.RandomState(0)
    samples, images = rng.standard_normal((7, 5, 3)), rng.standard_normal((5, 2))
    layer = dense.GatedDense(6)
    params = layer.init(jax.random.key(0), images.astype(F32), samples.astype(F32))
    result = layer.apply(params, images.astype(F32), samples.astype(F32))
    assert result.shape == (7, 5, 6)
    np.testing.assert_allclose(
        result, reference.gated(params["params"], images, samples), atol=2e-6
    )


# ---------------------------------------------------------------------------------------------
# Sizes and initialisation.


def gated_size(fan_in, features):
    return 2 * (fan_in + 1) * features


@each_likelihood
def test_parameter_counts(likelihood):
    """40 units in stochastic layers, 300 in dense hidden ones, counted by hand."""
    two_hidden = gated_size(784, 300) + gated_size(300, 300)
    from_latent = gated_size(40, 300)
    head = 2 * 301 * 40
    pixels = len(likelihood.heads(SHAPE)) * 301 * 784
    vae = two_hidden + head + from_latent + gated_size(300, 300) + pixels
    q_z1 = gated_size(784, 300) + from_latent + gated_size(600, 300) + head
    p_z1 = from_latent + gated_size(300, 300) + head
    p_x = 2 * from_latent + gated_size(600, 300) + pixels
    hvae = two_hidden + head + q_z1 + p_z1 + p_x
    for kind, expected in ((VAE, vae), (HVAE, hvae)):
        model = kind(**{**FULL, "likelihood": likelihood})
        shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 28, 28, 1)))
        assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == expected


def test_initialisation():
    """Weights N(0, 2 / fan_in), not truncated; biases U(-1 / sqrt(fan_in), 1 / sqrt(fan_in))."""
    model = VAE(**FULL)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 28, 28, 1)))["params"]
    layers = [
        (np.float64(layer["kernel"]), np.float64(layer["bias"]))
        for layer in jax.tree.leaves(params, is_leaf=lambda node: "kernel" in node)
    ]
    assert len(layers) == 2 * 4 + 2 + 1  # gated, Gaussian head, logits
    for kernel, bias in layers:
        fan_in = kernel.shape[0]
        weights = kernel.ravel() / (2 / fan_in) ** 0.5
        error = 1 / len(weights) ** 0.5
        assert abs(weights.mean()) < 4.5 * error
        assert abs(weights.std() - 1) < 4.5 * error / 2**0.5
        assert np.abs(weights).max() > 3.3  # a truncated normal would end at 2.3
        assert abs(scipy.stats.kurtosis(weights)) < 5 * 24**0.5 * error
        bound = fan_in**-0.5
        assert np.abs(bias).max() <= bound
        assert scipy.stats.kstest(bias, scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-4
    assert len({kernel[0, 0] for kernel, _ in layers}) == len(layers)  # no two layers start alike


def test_free_heads_are_parameters_and_no_functions_of_z():
    likelihood = likelihoods.DISCRETISED_LOGISTIC._replace(free=("log_scale",))
    network = VAE(**{**SMALL, "likelihood": likelihood})
    params = random_params(network)
    chex.assert_shape(params["p_x"]["log_scale"], SHAPE)
    mean, log_scale = call(network, params, "decode", draw_noise(network, 3, 5))
    chex.assert_shape(mean, (3, 5, *SHAPE))
    np.testing.assert_array_equal(log_scale, params["p_x"]["log_scale"])
