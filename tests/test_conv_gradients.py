"""Gated and masked convolutions and their gradients, against XLA's own and against loops."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.conv_cases import assert_close, plain, random, value_and_gradients
from vamp_jax.layers import batch_norm, conv_gradients

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


def plain_gated(x, kernel, bias, stride):
    linear, gate = jnp.split(plain(x, kernel, stride) + bias, 2, axis=-1)
    return linear / (1.0 + jnp.exp(-gate))


# All images in one chunk; two chunks, the last with a row of zeros; one image a chunk. In chunks
# but one size is slow: the others go the same way.
CHUNKED = [
    pytest.param(
        *(case, count, chunks),
        marks=[pytest.mark.slow] if chunks > 1 and case != CONVOLUTIONS[-1] else [],
        id=f"{case}-{count}-{chunks}",
    )
    for case in CONVOLUTIONS
    for count, chunks in [(4, 1), (5, 2), (4, 4)]
]


@pytest.mark.parametrize(("case", "count", "chunks"), CHUNKED)
def test_gated_conv_forward_and_backward_alone_and_in_a_scan(monkeypatch, case, count, chunks):
    size, stride, height, width, channels, features = case
    x = random(count, height, width, channels)
    kernel = random(size, size, channels, 2 * features, seed=1) / (size * channels**0.5)
    bias = random(2 * features, seed=2)
    g = random(*plain_gated(x, kernel, bias, stride).shape, seed=3)
    if chunks > 1:
        numbers = x.size + 3 * g.size  # with the convolution, before its gate
        monkeypatch.setattr(conv_gradients, "CHUNK", -(-numbers // chunks))
    split = conv_gradients._in_chunks(x, np.concatenate([g, g], -1), g)
    assert [len(part) for part in split] == [chunks] * 3

    def with_gradients(function):
        return lambda x, k, b, g: value_and_gradients(
            lambda *inputs: function(*inputs, stride), x, k, b, g=g
        )

    expected = with_gradients(plain_gated)(x, kernel, bias, g)
    ours = with_gradients(conv_gradients.gated_conv)

    def in_scan(x, kernel, bias, g):
        step = lambda c, _: (c, ours(x * c, kernel, bias, g))  # noqa: E731
        return jax.lax.scan(step, 1.0, None, length=2)[1]

    alone, scanned = (jax.jit(run)(x, kernel, bias, g) for run in (ours, in_scan))
    for one, many, wanted in zip(alone, scanned, expected, strict=True):
        assert_close(one, wanted)
        assert_close(many[1], wanted)


@pytest.mark.parametrize("stride", [1, 2])
def test_gated_conv_is_a_sum_over_explicit_loops(stride):
    x, kernel, bias = random(2, 6, 5, 2), random(3, 3, 2, 4, seed=1), random(4, seed=2)
    padded = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows, columns = range(0, 6, stride), range(0, 5, stride)
    both = np.zeros((2, len(rows), len(columns), 4)) + bias
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = padded[:, row : row + 3, column : column + 3]
            both[:, i, j] += np.einsum("nhwc,hwcf->nf", window, kernel)
    expected = both[..., :2] / (1.0 + np.exp(-both[..., 2:]))
    assert_close(conv_gradients.gated_conv(x, kernel, bias, stride), expected)


def test_reverse_mode_jacobian_passes_through():
    x, kernel, bias = random(1, 4, 4, 1), random(3, 3, 1, 4, seed=1), random(4, seed=2)
    jacobian = jax.jacrev(lambda x: conv_gradients.gated_conv(x, kernel, bias, 2))(x)
    assert_close(jacobian, jax.jacfwd(lambda x: plain_gated(x, kernel, bias, 2))(x))


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="about XLA's CPU kernels")
def test_no_slow_convolution_inside_a_scan():
    # XLA's fast CPU kernel takes this order of axes only; it reorders outside of loops alone.
    def loss(params, x):
        a, b, c = params
        h = conv_gradients.gated_conv(x, a, jnp.zeros(64))
        h = conv_gradients.gated_conv(h, b, jnp.zeros(128), 2)
        return jnp.sum(conv_gradients.masked_conv(h, c, "B") ** 2)

    def epoch(params, x):
        def step(params, _):
            grads = jax.grad(loss)(params, x)
            return jax.tree.map(lambda p, g: p - g, params, grads), None

        return jax.lax.scan(step, params, None, length=3)[0]

    params = (random(7, 7, 3, 64), random(3, 3, 32, 128), random(3, 3, 64, 64))
    text = jax.jit(epoch).lower(params, random(4, 8, 8, 3)).compile().as_text()
    orders = re.findall(r"dim_labels=(\S+?)[,\s}]", text)
    assert len(orders) >= 8  # three forward, three kernel and two input gradients
    assert set(orders) == {"b01f_01io->b01f"}
    assert "rhs_reversal" not in text


@pytest.mark.parametrize("chunk", [conv_gradients.CHUNK, 500])
@pytest.mark.parametrize("kind", conv_gradients.MASKS)
def test_masked_conv_masks_the_value_but_not_the_kernels_gradient(monkeypatch, kind, chunk):
    monkeypatch.setattr(conv_gradients, "CHUNK", chunk)
    x, kernel = random(3, 6, 5, 4), random(3, 3, 4, 8, seed=1)
    g = random(3, 6, 5, 8, seed=2)
    masked = conv_gradients.apply_mask(kernel, kind)
    value, dx, _ = value_and_gradients(lambda x, k: plain(x, k, 1), x, masked, g=g)
    _, _, dkernel = value_and_gradients(lambda x, k: plain(x, k, 1), x, kernel, g=g)
    ours = jax.jit(
        lambda x, k, g: value_and_gradients(
            lambda x, k: conv_gradients.masked_conv(x, k, kind), x, k, g=g
        )
    )(x, kernel, g)
    for actual, expected in zip(ours, (value, dx, dkernel), strict=True):
        assert_close(actual, expected)


# All images in one chunk; two, the last with an image of zeros; one image a chunk.
@pytest.mark.parametrize("chunk, chunks", [(conv_gradients.CHUNK, 1), (900, 2), (360, 5)])
def test_masked_conv_of_relu_has_the_gradients_of_its_parts(monkeypatch, chunk, chunks):
    monkeypatch.setattr(conv_gradients, "CHUNK", chunk)
    x, kernel, g = random(5, 6, 5, 4), random(3, 3, 4, 8, seed=1), random(5, 6, 5, 8, seed=2)
    norm = batch_norm.Affine(*(random(4, seed=seed) for seed in (3, 4, 5)))
    assert len(conv_gradients._in_chunks(x, g)[0]) == chunks

    def ours(x, norm, kernel):
        return conv_gradients.masked_conv_of_relu(x, norm, kernel, "B")

    def parts(x, norm, kernel):
        h = jnp.maximum(0.0, (x - norm.mean) * norm.factor + norm.bias)
        return conv_gradients.masked_conv(h, kernel, "B")

    actual, expected = (
        jax.jit(functools.partial(value_and_gradients, function))(x, norm, kernel, g=g)
        for function in (ours, parts)
    )
    for one, wanted in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(one, wanted)


@pytest.mark.parametrize(("kind", "size"), [("A", 7), ("above_and_row", 5), ("B", 1)])
def test_masks_of_other_sizes(kind, size):
    """Larger than the image, and of the pixel alone; the kernel's gradient is without the mask."""
    x, kernel = random(3, 6, 3, 4), random(size, size, 4, 8, seed=1)
    g = random(3, 6, 3, 8, seed=2)
    row, column = np.mgrid[:size, :size] - size // 2
    seen = {
        "A": (row < 0) | ((row == 0) & (column < 0)),
        "above_and_row": row <= 0,
        "B": (row < 0) | ((row == 0) & (column <= 0)),
    }[kind]
    np.testing.assert_array_equal(conv_gradients.mask(kind, size), seen)
    masked = kernel * seen[:, :, None, None]
    value, dx, _ = value_and_gradients(lambda x, k: plain(x, k, 1), x, masked, g=g)
    _, _, dkernel = value_and_gradients(lambda x, k: plain(x, k, 1), x, kernel, g=g)
    ours = value_and_gradients(lambda x, k: conv_gradients.masked_conv(x, k, kind), x, kernel, g=g)
    for actual, expected in zip(ours, (value, dx, dkernel), strict=True):
        assert_close(actual, expected)


def test_masks_a_and_b_are_pixelcnns():
    np.testing.assert_array_equal(conv_gradients.MASKS["A"], [[1, 1, 1], [1, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(conv_gradients.MASKS["B"], [[1, 1, 1], [1, 1, 0], [0, 0, 0]])


@pytest.mark.parametrize(
    "case, of_one_channel",
    [((7, 1, 9, 8, 1, 3), True), ((3, 2, 6, 5, 1, 4), False)],
)
def test_a_tpus_gradients_of_a_gated_conv_are_the_same(monkeypatch, case, of_one_channel):
    """The branch that a TPU takes, taken here; the first layers have an input gradient of ours."""
    size, stride, height, width, channels, features = case
    x = random(3, height, width, channels)
    kernel, bias = random(size, size, channels, 2 * features, seed=1), random(2 * features, seed=2)
    value = plain_gated(x, kernel, bias, stride)
    g, ours = random(*value.shape, seed=3), []

    def tpu_branch(*arguments, cpu, tpu, default):
        ours.append(tpu is not default)
        return tpu(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", tpu_branch)
    function = lambda x, k, b: conv_gradients.gated_conv(x, k, b, stride)  # noqa: E731
    actual = value_and_gradients(function, x, kernel, bias, g=g)
    function = lambda x, k, b: plain_gated(x, k, b, stride)  # noqa: E731
    expected = value_and_gradients(function, x, kernel, bias, g=g)
    assert ours == [of_one_channel]
    for one, wanted in zip(actual, expected, strict=True):
        assert_close(one, wanted)


def test_other_platforms_compute_the_same(monkeypatch):
    """The branches that a CPU does not take, taken here."""
    x, g = random(3, 7, 5, 2), random(3, 4, 3, 4, seed=1)
    kernel, bias = random(3, 3, 2, 8, seed=2), random(8, seed=3)
    g_masked, weight = random(3, 7, 5, 8, seed=4), random(3, seed=5)
    norm = batch_norm.Affine(*(random(2, seed=seed) for seed in (6, 7, 8)))

    def results():
        return (
            value_and_gradients(
                lambda x, k, b: conv_gradients.gated_conv(x, k, b, 2), x, kernel, bias, g=g
            ),
            value_and_gradients(
                lambda x, k: conv_gradients.masked_conv(x, k, "B"), x, kernel, g=g_masked
            ),
            value_and_gradients(
                lambda x, n, k: conv_gradients.masked_conv_of_relu(x, n, k, "B"),
                x,
                norm,
                kernel,
                g=g_masked,
            ),
            batch_norm.sum_of_pixels(x, weight),
        )

    here = results()
    taken = []

    def default_branch(*arguments, cpu, default, tpu=None):
        taken.append(cpu)
        return default(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", default_branch)
    elsewhere = results()
    # gated: its gradient; masked: itself and its gradient; of a ReLU: itself and its gradient, with
    # the gradient of a masked one and two sums of pixels in it; a sum.
    assert len(taken) == 1 + 2 + 2 + 3 + 1
    for ours, theirs in zip(jax.tree.leaves(here), jax.tree.leaves(elsewhere), strict=True):
        assert_close(ours, theirs)
