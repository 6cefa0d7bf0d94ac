"""VAE and HVAE against NumPy in float64 with the same weights; layers, sizes, initialisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from vamp_jax import layers
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE

F32 = np.float32
SHAPE = (3, 2, 1)
SMALL = dict(image_shape=SHAPE, likelihood="bernoulli", latent_dim=4, hidden_dim=7)
FULL = dict(image_shape=(28, 28, 1), likelihood="bernoulli", latent_dim=40, hidden_dim=300)


# ---------------------------------------------------------------------------------------------
# The paper's formulas in NumPy: `p` is the model's tree of parameters. Used by test_objectives.


def dense64(p, *inputs):
    leading = np.broadcast_shapes(*(x.shape[:-1] for x in inputs))
    x = np.concatenate([np.broadcast_to(x, (*leading, x.shape[-1])) for x in inputs], axis=-1)
    return x @ np.float64(p["kernel"]) + np.float64(p["bias"])


def gated64(p, *inputs):
    return dense64(p["linear"], *inputs) * scipy.special.expit(dense64(p["gate"], *inputs))


def gaussian64(p, h):
    return dense64(p["mean"], h), np.clip(dense64(p["log_var"], h), -6.0, 2.0)


def encode64(p, x):
    name = "q_z" if "q_z" in p else "q_z2"
    h = np.float64(x).reshape(*x.shape[:-3], -1)
    h = gated64(p[f"{name}_layers_1"], gated64(p[f"{name}_layers_0"], h))
    return gaussian64(p[name], h)


def encode_z1_64(p, x, z2):
    from_x = gated64(p["q_z1_from_x"], np.float64(x).reshape(*x.shape[:-3], -1))
    return gaussian64(p["q_z1"], gated64(p["q_z1_joint"], from_x, gated64(p["q_z1_from_z2"], z2)))


def prior_z1_64(p, z2):
    return gaussian64(p["p_z1"], gated64(p["p_z1_layers_1"], gated64(p["p_z1_layers_0"], z2)))


def decode64(p, *latents):
    """The likelihood's parameters, [..., H W C] each."""
    if len(latents) == 1:
        h = gated64(p["p_x_layers_1"], gated64(p["p_x_layers_0"], *latents))
    else:
        z1, z2 = latents
        h = gated64(p["p_x_joint"], gated64(p["p_x_from_z1"], z1), gated64(p["p_x_from_z2"], z2))
    names = ("logits",) if "logits" in p["p_x"] else ("mean", "log_scale")
    return tuple(dense64(p["p_x"][name], h) for name in names)


def random_params(model, seed=0):
    """Weights of every tensor large enough to reach the clips; log-variances from -9 to 5."""
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *model.image_shape)))
    rng = np.random.RandomState(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if "bias" in name:
            spread = 4.0 if "log_var" in name else 1.0
            return rng.uniform(-spread, spread, leaf.shape).astype(F32)
        return (1.5 * rng.standard_normal(leaf.shape) / leaf.shape[0] ** 0.5).astype(F32)

    return jax.tree_util.tree_map_with_path(draw, shapes)["params"]


def call(model, params, method, *args):
    return jax.jit(functools.partial(model.apply, method=method))({"params": params}, *args)


def compare(ours, expected):
    """Leaves of the same values; ours may be in the shape of images."""
    for one, other in zip(ours, expected, strict=True):
        np.testing.assert_allclose(np.reshape(one, np.shape(other)), other, rtol=1e-5, atol=2e-5)


# ---------------------------------------------------------------------------------------------
# Forward passes.


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised_logistic"])
def test_vae_is_the_papers(likelihood):
    model = VAE(**{**SMALL, "likelihood": likelihood})
    params = random_params(model)
    rng = np.random.RandomState(1)
    x = rng.uniform(size=(5, *SHAPE)).astype(F32)
    z = rng.standard_normal((5, 4)).astype(F32)
    compare(call(model, params, "encode", x), encode64(params, x))
    decoded = call(model, params, "decode", z)
    assert len(decoded) == (1 if likelihood == "bernoulli" else 2)
    assert all(part.shape == (5, *SHAPE) for part in decoded)
    compare(decoded, decode64(params, z))


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised_logistic"])
def test_hvae_is_the_papers(likelihood):
    model = HVAE(**{**SMALL, "likelihood": likelihood})
    params = random_params(model)
    rng = np.random.RandomState(1)
    x = rng.uniform(size=(5, *SHAPE)).astype(F32)
    z1, z2 = rng.standard_normal((2, 5, 4)).astype(F32)
    compare(call(model, params, "encode", x), encode64(params, x))
    features = call(model, params, "features", x)
    compare(call(model, params, "encode_z1", features, z2), encode_z1_64(params, x, z2))
    compare(call(model, params, "prior_z1", z2), prior_z1_64(params, z2))
    decoded = call(model, params, "decode", z1, z2)
    assert all(part.shape == (5, *SHAPE) for part in decoded)
    compare(decoded, decode64(params, z1, z2))


def test_hvae_broadcasts_samples_against_images():
    """[S, B, D] latents beside [B, F] features are S separate calls."""
    model = HVAE(**SMALL)
    params = random_params(model)
    rng = np.random.RandomState(1)
    x = rng.uniform(size=(5, *SHAPE)).astype(F32)
    z1, z2 = rng.standard_normal((2, 3, 5, 4)).astype(F32)
    features = call(model, params, "features", x)
    together = call(model, params, "encode_z1", features, z2)
    compare(together, encode_z1_64(params, x, z2))
    assert together[0].shape == (3, 5, 4)
    decoded = call(model, params, "decode", z1, z2)
    assert decoded[0].shape == (3, 5, *SHAPE)
    compare(decoded, decode64(params, z1, z2))


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_log_variances_are_clipped_and_means_are_not(kind):
    model = kind(**SMALL)
    params = random_params(model)
    x = np.random.RandomState(0).uniform(size=(200, *SHAPE)).astype(F32)
    params = jax.tree.map(lambda leaf: 5 * leaf, params)
    mean, log_var = call(model, params, "encode", x)
    assert np.min(log_var) == -6.0 and np.max(log_var) == 2.0
    assert np.max(np.abs(mean)) > 10.0
    expected_mean, expected_log_var = encode64(params, x)
    np.testing.assert_allclose(mean, expected_mean, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(log_var, expected_log_var, rtol=1e-4, atol=1e-3)


# ---------------------------------------------------------------------------------------------
# Layers.


def test_dense_of_several_inputs_is_dense_of_their_concatenation():
    rng = np.random.RandomState(0)
    one, two, three = (rng.standard_normal((5, n)).astype(F32) for n in (3, 1, 4))
    layer = layers.Dense(6)
    params = layer.init(jax.random.key(0), one, two, three)
    assert params["params"]["kernel"].shape == (8, 6)
    apart = layer.apply(params, one, two, three)
    together = layer.apply(params, np.concatenate([one, two, three], axis=-1))
    np.testing.assert_allclose(apart, together, atol=2e-6)
    np.testing.assert_allclose(apart, dense64(params["params"], one, two, three), atol=2e-6)


def test_dense_broadcasts_leading_axes():
    rng = np.random.RandomState(0)
    samples, images = rng.standard_normal((7, 5, 3)), rng.standard_normal((5, 2))
    layer = layers.GatedDense(6)
    params = layer.init(jax.random.key(0), images.astype(F32), samples.astype(F32))
    result = layer.apply(params, images.astype(F32), samples.astype(F32))
    assert result.shape == (7, 5, 6)
    np.testing.assert_allclose(result, gated64(params["params"], images, samples), atol=2e-6)


# ---------------------------------------------------------------------------------------------
# Sizes and initialisation.


def gated_size(fan_in, features):
    return 2 * (fan_in + 1) * features


@pytest.mark.parametrize("likelihood", ["bernoulli", "discretised_logistic"])
def test_parameter_counts(likelihood):
    """40 units in stochastic layers, 300 in dense hidden ones, counted by hand."""
    two_hidden = gated_size(784, 300) + gated_size(300, 300)
    from_latent = gated_size(40, 300)
    head = 2 * 301 * 40
    pixels = (1 if likelihood == "bernoulli" else 2) * 301 * 784
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
    dense = [
        (np.float64(layer["kernel"]), np.float64(layer["bias"]))
        for layer in jax.tree.leaves(params, is_leaf=lambda node: "kernel" in node)
    ]
    assert len(dense) == 2 * 4 + 2 + 1  # gated, Gaussian head, logits
    for kernel, bias in dense:
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
    assert len({kernel[0, 0] for kernel, _ in dense}) == len(dense)  # no two layers start alike
