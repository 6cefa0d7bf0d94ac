"""Convolutional layers against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.conv_cases import assert_close, plain, random
from vamp_jax.layers import batch_norm, conv, conv_gradients


def test_masked_conv_of_several_inputs_is_that_of_their_concatenation():
    layer = conv.MaskedConv(5, ("A", "A"), (1, 2))
    x, z = random(4, 6, 6, 1), random(3, 4, 6, 6, 2)
    variables = layer.init(jax.random.key(0), x, z)
    both = np.concatenate([np.broadcast_to(x, (3, *x.shape)), z], axis=-1)
    kernel = conv_gradients.apply_mask(variables["params"]["kernel"], "A")
    expected = np.stack([plain(part, kernel, 1) for part in both])
    assert_close(layer.apply(variables, x, z), expected)


def test_masked_conv_of_relu_is_that_of_the_rectified_input():
    layer = conv.MaskedConv(5, ("B",), (3,))
    x = random(2, 4, 6, 6, 3)
    norm = batch_norm.Affine(random(3), random(3, seed=1), random(3, seed=2))
    variables = layer.init(jax.random.key(0), x)
    ours = layer.apply(variables, x, norm, method="after_relu")
    assert_close(ours, layer.apply(variables, jnp.maximum(0.0, norm(x))))


def test_gated_conv_has_two_convolutions_and_pytorchs_initialisation():
    layer = conv.GatedConv(64, 5, 2)
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
