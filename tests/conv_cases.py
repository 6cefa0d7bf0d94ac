"""Random images and XLA's own convolution, for the tests of convolutions."""

import jax
import numpy as np


def random(*shape, seed=0):
    """Standard normal numbers, the same for one shape and seed."""
    return np.random.default_rng((seed, *shape)).normal(size=shape).astype(np.float32)


def plain(x, kernel, stride):
    """The convolution by XLA, padded by half the kernel."""
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


def value_and_gradients(function, *arguments, g):
    """The value, and its cotangent g pulled back to every argument."""
    value, pull_back = jax.vjp(function, *arguments)
    return value, *pull_back(g)
