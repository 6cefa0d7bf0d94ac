"""Batch norm against PyTorch's definition in float64, alone, padded and over devices."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.conv_cases import assert_close, random, value_and_gradients
from vamp_jax.layers import batch_norm


def batch_norm_reference(x, scale, bias, row_weight, g):
    """Value, gradients (x, scale, bias) of sum(g * value), batch mean and unbiased variance."""
    x, g = x[row_weight > 0].astype(np.float64), g[row_weight > 0].astype(np.float64)
    axes, count = (0, 1, 2), x[..., 0].size
    mean, var = x.mean(axes), x.var(axes)
    deviation = np.sqrt(var + 1e-5)
    normed = (x - mean) / deviation
    dnormed = g * scale
    dx = (dnormed - dnormed.mean(axes) - normed * (dnormed * normed).mean(axes)) / deviation
    value = normed * scale + bias
    return value, dx, (g * normed).sum(axes), g.sum(axes), mean, var * count / (count - 1)


def batch_norm_inputs(rows, features=5):
    x = random(rows, 3, 4, features) * 2.0 + 3.0
    return x, random(features, seed=1), random(features, seed=2), random(*x.shape, seed=3)


def apply_batch_norm(layer, scale, bias, x, row_weight=None, train=True):
    stats = {"mean": jnp.full(x.shape[-1], 0.5), "var": jnp.full(x.shape[-1], 2.0)}
    variables = {"params": {"scale": scale, "bias": bias}, "batch_stats": stats}
    norm, updated = layer.apply(
        variables, x, train=train, row_weight=row_weight, mutable=["batch_stats"] if train else []
    )
    return norm(x), updated


def test_batch_norm_against_float64_with_padding():
    x, scale, bias, g = batch_norm_inputs(7)
    weight = np.array([1, 1, 0, 1, 1, 1, 0], np.float32)
    real = weight > 0
    g[~real] = 0.0
    value, dx, dscale, dbias, mean, var = batch_norm_reference(x, scale, bias, weight, g)
    layer = batch_norm.BatchNorm()

    def forward(x, scale, bias):
        result, updated = apply_batch_norm(layer, scale, bias, x, weight)
        return result, updated["batch_stats"]

    ours, pull_back, stats = jax.vjp(forward, x, scale, bias, has_aux=True)
    assert_close(ours[real], value)
    for actual, expected in zip(pull_back(g), (dx, dscale, dbias), strict=True):
        assert_close(actual[real] if actual.ndim == 4 else actual, expected)
    assert not np.any(pull_back(g)[0][~real])
    assert_close(stats["mean"], 0.9 * 0.5 + 0.1 * mean)
    assert_close(stats["var"], 0.9 * 2.0 + 0.1 * var)


def test_batch_norm_over_devices_with_uneven_padding():
    # Two rows on each of eight devices, of which all but the first have padding; one is empty.
    x, scale, bias, g = batch_norm_inputs(16)
    weight = np.array([1, 1] + [1, 0] * 6 + [0, 0], np.float32)
    real = weight > 0
    g[~real] = 0.0
    value, dx, dscale, dbias, mean, var = batch_norm_reference(x, scale, bias, weight, g)
    layer = batch_norm.BatchNorm(axis_name="devices")

    def on_device(x, g, weight):
        def loss(x, scale, bias):
            result, updated = apply_batch_norm(layer, scale, bias, x, weight)
            return jnp.sum(g * result), (result, updated["batch_stats"])

        grads, (result, stats) = jax.grad(loss, (0, 1, 2), has_aux=True)(x, scale, bias)
        return grads[0], jax.lax.psum(grads[1:], "devices"), result, stats

    shards = [a.reshape(8, 2, *a.shape[1:]) for a in (x, g, weight)]
    dx_ours, grads, result, stats = jax.pmap(on_device, axis_name="devices")(*shards)
    assert_close(result.reshape(x.shape)[real], value)
    assert_close(dx_ours.reshape(x.shape)[real], dx)
    assert_close(grads[0][0], dscale)
    assert_close(grads[1][0], dbias)
    for device in range(8):
        assert_close(stats["mean"][device], 0.9 * 0.5 + 0.1 * mean)
        assert_close(stats["var"][device], 0.9 * 2.0 + 0.1 * var)


def test_batch_norm_variance_survives_a_large_mean():
    x = random(64, 3, 4, 2) + 1000.0
    ours, _ = apply_batch_norm(batch_norm.BatchNorm(), jnp.ones(2), jnp.zeros(2), x)
    np.testing.assert_allclose(np.asarray(ours).std((0, 1, 2)), 1.0, rtol=1e-3)


def test_batch_norm_inference_uses_running_statistics_for_any_leading_axes():
    x, scale, bias, _ = batch_norm_inputs(3)
    ours, _ = apply_batch_norm(batch_norm.BatchNorm(), scale, bias, x, train=False)
    assert_close(ours, (x - 0.5) / np.sqrt(2.0 + 1e-5) * scale + bias)
    pixels, _ = apply_batch_norm(batch_norm.BatchNorm(), scale, bias, x[:, 1, 2], train=False)
    assert_close(pixels, ours[:, 1, 2])


def test_batch_norm_starts_at_pytorchs_values():
    variables = batch_norm.BatchNorm().init(jax.random.key(0), random(2, 3, 4, 5))
    for collection, name, value in [
        ("params", "scale", 1),
        ("params", "bias", 0),
        ("batch_stats", "mean", 0),
        ("batch_stats", "var", 1),
    ]:
        np.testing.assert_array_equal(variables[collection][name], np.full(5, value))


def test_relu_and_its_gradients_are_those_of_the_formula():
    x, g = random(3, 4, 5, 6), random(3, 4, 5, 6, seed=1)
    norm = batch_norm.Affine(*(random(6, seed=seed) for seed in (2, 3, 4)))

    def plain(x, mean, factor, bias):
        return jnp.maximum(0.0, (x - mean) * factor + bias)

    expected = value_and_gradients(plain, x, *norm, g=g)
    ours = value_and_gradients(batch_norm.relu, x, norm, g=g)
    for actual, wanted in zip(jax.tree.leaves(ours), expected, strict=True):
        assert_close(actual, wanted)
    pixels = value_and_gradients(batch_norm.relu, x[0, 0], norm, g=g[0, 0])
    for actual, wanted in zip(
        jax.tree.leaves(pixels), value_and_gradients(plain, x[0, 0], *norm, g=g[0, 0]), strict=True
    ):
        assert_close(actual, wanted)


def test_sum_of_pixels_is_in_float64_what_numpy_gives():
    x, weight = random(2, 7, 3, 4, 5) + 10.0, random(2, 7, seed=1)
    axes = (0, 1, 2, 3)
    assert_close(batch_norm.sum_of_pixels(x), x.sum(axes, dtype=np.float64))
    weighted = (x.astype(np.float64) * weight[..., None, None, None]).sum(axes)
    assert_close(batch_norm.sum_of_pixels(x, weight), weighted)
