"""Convolutions against XLA's own and against loops; batch norm against float64 and devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vamp_jax import conv_layers

# (kernel, stride, height, width, channels, features): all that the models use, and odd sizes.
CONVOLUTIONS = [
    (7, 1, 28, 28, 1, 32),
    (3, 2, 28, 20, 32, 32),
    (5, 1, 14, 10, 32, 64),
    (3, 2, 14, 14, 64, 64),
    (3, 1, 7, 5, 64, 6),
    (3, 1, 8, 8, 3, 64),
    (3, 2, 9, 7, 2, 3),
    (5, 2, 7, 8, 2, 3),
    (7, 2, 11, 6, 2, 3),
    (1, 1, 4, 5, 3, 2),
    (5, 3, 10, 12, 2, 3),
]


def plain(x, kernel, stride):
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), [(pad, pad)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def assert_close(actual, expected, rtol=1e-5):
    """Within rtol of the largest entry: sums of thousands of terms cancel in the small ones."""
    expected = np.asarray(expected)
    assert actual.shape == expected.shape
    scale = max(np.abs(expected).max(), 1e-30)
    np.testing.assert_allclose(np.asarray(actual) / scale, expected / scale, rtol=0, atol=rtol)


def random(*shape, seed=0):
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def value_and_gradients(function, x, kernel, g):
    value, pull_back = jax.vjp(function, x, kernel)
    return value, *pull_back(g)


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=str)
def test_conv_is_xlas_forward_and_backward_alone_and_in_a_scan(case):
    size, stride, height, width, channels, features = case
    x = random(4, height, width, channels)
    kernel = random(size, size, channels, features, seed=1)
    g = random(*plain(x, kernel, stride).shape, seed=2)
    expected = value_and_gradients(lambda x, k: plain(x, k, stride), x, kernel, g)

    def ours(x, kernel, g):
        return value_and_gradients(lambda x, k: conv_layers.conv(x, k, stride), x, kernel, g)

    def in_scan(x, kernel, g):
        return jax.lax.scan(lambda c, _: (c, ours(x * c, kernel, g)), 1.0, None, length=2)[1]

    alone, scanned = jax.jit(ours)(x, kernel, g), jax.jit(in_scan)(x, kernel, g)
    for one, many, wanted in zip(alone, scanned, expected, strict=True):
        assert_close(one, wanted)
        assert_close(many[1], wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_conv_is_a_sum_over_explicit_loops(stride):
    x, kernel = random(2, 6, 5, 2), random(3, 3, 2, 4, seed=1)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = range(0, 6, stride), range(0, 5, stride)
    expected = np.zeros((2, len(rows), len(columns), 4))
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = padded[:, row : row + 3, column : column + 3]
            expected[:, i, j] = np.einsum("nhwc,hwcf->nf", window, kernel)
    assert_close(conv_layers.conv(x, kernel, stride), expected)


def test_reverse_mode_jacobian_passes_through():
    x, kernel = random(1, 4, 4, 1), random(3, 3, 1, 2, seed=1)
    jacobian = jax.jacrev(lambda x: conv_layers.conv(x, kernel, 2))(x)
    assert_close(jacobian, jax.jacfwd(lambda x: plain(x, kernel, 2))(x))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU kernels")
def test_no_slow_convolution_inside_a_scan():
    # XLA's fast CPU kernel takes this order of axes only; it reorders outside of loops alone.
    def loss(params, x):
        a, b, c = params
        h = conv_layers.conv(conv_layers.conv(x, a), b, 2)
        return jnp.sum(conv_layers.masked_conv(h, c, "B") ** 2)

    def epoch(params, x):
        def step(params, _):
            grads = jax.grad(loss)(params, x)
            return jax.tree.map(lambda p, g: p - g, params, grads), None

        return jax.lax.scan(step, params, None, length=3)[0]

    params = (random(7, 7, 3, 32), random(3, 3, 32, 64), random(3, 3, 64, 64))
    text = jax.jit(epoch).lower(params, random(4, 8, 8, 3)).compile().as_text()
    orders = re.findall(r"dim_labels=(\S+?)[,\s}]", text)
    assert len(orders) >= 8  # three forward, three kernel and two input gradients
    assert set(orders) == {"b01f_01io->b01f"}
    assert "rhs_reversal" not in text


@pytest.mark.parametrize("kind", conv_layers.MASKS)
def test_masked_conv_masks_the_value_but_not_the_kernels_gradient(kind):
    x, kernel = random(3, 6, 5, 4), random(3, 3, 4, 8, seed=1)
    g = random(3, 6, 5, 8, seed=2)
    masked = conv_layers.apply_mask(kernel, kind)
    value, dx, _ = value_and_gradients(lambda x, k: plain(x, k, 1), x, masked, g)
    _, _, dkernel = value_and_gradients(lambda x, k: plain(x, k, 1), x, kernel, g)
    ours = jax.jit(
        lambda x, k, g: value_and_gradients(
            lambda x, k: conv_layers.masked_conv(x, k, kind), x, k, g
        )
    )(x, kernel, g)
    for actual, expected in zip(ours, (value, dx, dkernel), strict=True):
        assert_close(actual, expected)


def test_masks_a_and_b_are_pixelcnns():
    np.testing.assert_array_equal(conv_layers.MASKS["A"], [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(conv_layers.MASKS["B"], [[1, 1, 1], [1, 1, 0], [0, 0, 0]])


def test_masked_conv_of_several_inputs_is_that_of_their_concatenation():
    layer = conv_layers.MaskedConv(5, ("A", "A"), (1, 2))
    x, z = random(4, 6, 6, 1), random(3, 4, 6, 6, 2)
    variables = layer.init(jax.random.key(0), x, z)
    both = np.concatenate([np.broadcast_to(x, (3, *x.shape)), z], axis=-1)
    kernel = conv_layers.apply_mask(variables["params"]["kernel"], "A")
    expected = np.stack([plain(part, kernel, 1) for part in both])
    assert_close(layer.apply(variables, x, z), expected)


def test_gated_conv_has_two_convolutions_and_pytorchs_initialisation():
    layer = conv_layers.GatedConv(64, 5, 2)
    x = random(3, 2, 12, 8, 32)
    params = layer.init(jax.random.key(0), x)["params"]
    assert params["linear"]["kernel"].shape == params["gate"]["kernel"].shape == (5, 5, 32, 64)
    bound = (5 * 5 * 32) ** -0.5
    for name in ("linear", "gate"):
        kernel, bias = params[name]["kernel"], params[name]["bias"]
        assert 0.999 * bound < jnp.abs(kernel).max() <= bound
        np.testing.assert_allclose(kernel.std(), bound / 3**0.5, rtol=0.01)
        assert 0.8 * bound < jnp.abs(bias).max() <= bound
    assert not np.array_equal(params["linear"]["kernel"], params["gate"]["kernel"])

    flat = x.reshape(6, 12, 8, 32)
    linear, gate = (
        np.asarray(plain(flat, params[n]["kernel"], 2) + params[n]["bias"], np.float64)
        for n in ("linear", "gate")
    )
    expected = (linear / (1.0 + np.exp(-gate))).reshape(3, 2, 6, 4, 64)
    assert_close(layer.apply({"params": params}, x), expected)


# ---------------------------------------------------------------------------------------------
# Batch norm: PyTorch's definition, written out in float64.


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
    return layer.apply(
        variables, x, train=train, row_weight=row_weight, mutable=["batch_stats"] if train else []
    )


def test_batch_norm_against_float64_with_padding():
    x, scale, bias, g = batch_norm_inputs(7)
    weight = np.array([1, 1, 0, 1, 1, 1, 0], np.float32)
    real = weight > 0
    g[~real] = 0.0
    value, dx, dscale, dbias, mean, var = batch_norm_reference(x, scale, bias, weight, g)
    layer = conv_layers.BatchNorm()

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
    layer = conv_layers.BatchNorm(axis_name="devices")

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
    ours, _ = apply_batch_norm(conv_layers.BatchNorm(), jnp.ones(2), jnp.zeros(2), x)
    np.testing.assert_allclose(np.asarray(ours).std((0, 1, 2)), 1.0, rtol=1e-3)


def test_batch_norm_inference_uses_running_statistics_for_any_leading_axes():
    x, scale, bias, _ = batch_norm_inputs(3)
    ours, _ = apply_batch_norm(conv_layers.BatchNorm(), scale, bias, x, train=False)
    assert_close(ours, (x - 0.5) / np.sqrt(2.0 + 1e-5) * scale + bias)
    pixels, _ = apply_batch_norm(conv_layers.BatchNorm(), scale, bias, x[:, 1, 2], train=False)
    assert_close(pixels, ours[:, 1, 2])


def test_batch_norm_starts_at_pytorchs_values():
    variables = conv_layers.BatchNorm().init(jax.random.key(0), random(2, 3, 4, 5))
    for collection, name, value in [
        ("params", "scale", 1),
        ("params", "bias", 0),
        ("batch_stats", "mean", 0),
        ("batch_stats", "var", 1),
    ]:
        np.testing.assert_array_equal(variables[collection][name], np.full(5, value))
