"""Convolutional layers of ConvHVAE and PixelHVAE (section 5 and appendix), images in NHWC.

All convolutions go through `conv` and `masked_conv`, which alone know how to be fast on a CPU.
Weights and biases start as PyTorch's do by default, U(+-1/sqrt(fan_in)), as in the authors' code.
"""

import functools
import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import layers

Array = jax.Array

# ---------------------------------------------------------------------------------------------
# Convolutions. On a CPU, XLA brings convolutions into the one order of axes for which it has a
# fast kernel, but only those of a program's outermost computation: inside `lax.scan` the
# gradients that it derives itself, with their swapped axes, fall through to a naive loop up to
# 190 times slower. So on a CPU the gradients are written as convolutions in that order, which is
# as fast inside the loop as outside. Other platforms keep XLA's own.


def _convolve(x, kernel, padding, stride=1, input_dilation=1, kernel_dilation=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
        lhs_dilation=(input_dilation, input_dilation),
        rhs_dilation=(kernel_dilation, kernel_dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _forward(x, kernel, stride):
    # Explicit and symmetric as PyTorch's; XLA's "SAME" pads one side only at stride 2.
    padding = [(size // 2, size // 2) for size in kernel.shape[:2]]
    return _convolve(x, kernel, padding, stride)


# The gradients take the images in chunks of so many numbers, so that the copies that they make on
# their way (transposed, padded, of all taps) stay in a cache.
CHUNK = 1 << 20


def _in_chunks(*arrays):
    """[N, ...] each -> [M, N / M, ...], CHUNK numbers a chunk; if need be with rows of zeros."""
    n = len(arrays[0])
    count = min(n, -(-sum(a.size for a in arrays) // CHUNK))
    count = next((m for m in range(count, 2 * count) if n % m == 0), count)
    size = -(-n // count)
    count = -(-n // size)
    return [
        jnp.pad(a, [(0, count * size - n)] + [(0, 0)] * (a.ndim - 1)).reshape(
            count, size, *a.shape[1:]
        )
        for a in arrays
    ]


def _input_gradient(g, kernel, low, input_shape, stride=1):
    """d/dx of a convolution padded by `low` at the top and left: [N, OH, OW, F] -> [N, H, W, C]."""
    (chunks,) = _in_chunks(g)
    result = jax.lax.map(
        lambda g: _input_gradient_of_chunk(g, kernel, low, input_shape, stride), chunks
    )
    return result.reshape(-1, *input_shape[1:])[: input_shape[0]]


def _input_gradient_of_chunk(g, kernel, low, input_shape, stride):
    """The same, without chunks.

    Row s p + a of the input was seen by row o of the output through tap a + low - s (o - p): every
    phase a is a convolution of g with taps of its own, and all s^2 of them are one convolution with
    s^2 C channels. (XLA's own fills g up with s - 1 rows of zeros: s^2 times the work.)
    """
    if kernel.shape[2] == 1 and stride == 1:
        return _one_channel_input_gradient(g, kernel, low, input_shape)
    rows, row_padding = _phases(kernel.shape[0], low[0], stride)
    columns, column_padding = _phases(kernel.shape[1], low[1], stride)
    # A tap outside of the kernel is zero: -1 is the row or column of zeros at its end.
    taps = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))
    taps = taps[rows[:, None, :, None], columns[None, :, None, :]]  # [T, U, s, s, C, F]
    taps = jnp.moveaxis(taps, -1, 2).reshape(len(rows), len(columns), kernel.shape[3], -1)
    result = _convolve(g, taps, (row_padding, column_padding))
    n, p, q = result.shape[:3]
    result = result.reshape(n, p, q, stride, stride, -1)
    result = jnp.swapaxes(result, 2, 3).reshape(n, p * stride, q * stride, -1)
    return result[:, : input_shape[1], : input_shape[2]]


def _phases(size, low, stride):
    """Along one axis: the tap [T, s] of each offset o - p and phase a, and the padding of g."""
    before = (size - 1 - low) // stride  # o - p goes from -before...
    after = (low + stride - 1) // stride  # ...to after
    offset = np.arange(-before, after + 1)[:, None]
    tap = np.arange(stride) + low - stride * offset
    return np.where((tap >= 0) & (tap < size), tap, -1), (before, after)


def _one_channel_input_gradient(g, kernel, low, input_shape):
    """`_input_gradient` for images of one channel, stride 1.

    A convolution would multiply k^2 F wide patches by a single column. Instead one product gives
    what each output pixel hands to each of its k^2 taps, and shifted sums bring that together.
    """
    height, width, _, features = kernel.shape
    shares = g @ kernel.reshape(height * width, features).T  # [N, OH, OW, k^2]
    padding = [
        (k - 1 - before, n - o + before)
        for k, before, n, o in zip(kernel.shape, low, input_shape[1:3], g.shape[1:3], strict=False)
    ]
    shares = jnp.pad(shares, ((0, 0), *padding, (0, 0)))
    (top, left), (rows, columns) = (height - 1, width - 1), input_shape[1:3]
    return sum(
        shares[:, top - i : top - i + rows, left - j : left - j + columns, i * width + j, None]
        for i, j in np.ndindex(height, width)
    )


def _kernel_gradient(x, g, low, kernel_shape, stride=1):
    """d/dkernel likewise, the sum over chunks of the images."""

    def add(total, chunk):
        return total + _kernel_gradient_of_chunk(*chunk, low, kernel_shape, stride), None

    return jax.lax.scan(add, jnp.zeros(kernel_shape, x.dtype), _in_chunks(x, g))[0]


def _kernel_gradient_of_chunk(x, g, low, kernel_shape, stride):
    """d/dkernel of a chunk: the input's channels play the batch, the batch plays the channels.

    Tap s m + a has seen the rows s (o + m) + a of the padded input: for every phase a of the
    input a convolution without gaps.
    """
    # Else the padding below could be negative, for which see `_crop`.
    assert all(stride <= size // 2 + 1 for size in kernel_shape[:2])
    as_kernel = jnp.transpose(g, (1, 2, 0, 3))
    padding = [
        (before, k + (o - 1) * stride - n - before)
        for k, before, n, o in zip(kernel_shape, low, x.shape[1:3], g.shape[1:3], strict=False)
    ]
    if stride > 1:
        x, padding = jnp.pad(x, ((0, 0), *padding, (0, 0))), [(0, 0), (0, 0)]
    zero = result = jnp.zeros([], x.dtype)
    for a, c in itertools.product(range(stride), repeat=2):
        phase = jnp.transpose(x[:, a::stride, c::stride], (3, 1, 2, 0))
        part = _convolve(phase, as_kernel, padding)
        rows, columns = (  # part's taps among all of them
            (first, size - first - (count - 1) * stride - 1, stride - 1)
            for first, size, count in zip((a, c), kernel_shape, part.shape[1:3], strict=False)
        )
        result += jax.lax.pad(part, zero, ((0, 0, 0), rows, columns, (0, 0, 0)))
    return jnp.transpose(result, (1, 2, 0, 3))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def conv(x: Array, kernel: Array, stride: int = 1) -> Array:
    """Convolution padded by k // 2 on every side, as PyTorch's.

    Args:
      x: [N, H, W, C]
      kernel: [k, k, C, F], k odd.
      stride: of both axes, at most k // 2 + 1.
    Returns:
      [N, ceil(H / stride), ceil(W / stride), F]
    """
    return _forward(x, kernel, stride)


def _conv_fwd(x, kernel, stride):
    return _forward(x, kernel, stride), (x, kernel)


def _conv_bwd(stride, saved, g):
    x, kernel = saved
    low = [size // 2 for size in kernel.shape[:2]]
    return (
        jax.lax.platform_dependent(
            g,
            kernel,
            cpu=lambda g, k: _input_gradient(g, k, low, x.shape, stride),
            default=lambda g, k: jax.linear_transpose(lambda x: _forward(x, k, stride), x)(g)[0],
        ),
        jax.lax.platform_dependent(
            x,
            g,
            cpu=lambda x, g: _kernel_gradient(x, g, low, kernel.shape, stride),
            default=lambda x, g: jax.linear_transpose(lambda k: _forward(x, k, stride), kernel)(g)[
                0
            ],
        ),
    )


conv.defvjp(_conv_fwd, _conv_bwd)


def sum_of_pixels(x: Array, weight: Array) -> Array:
    """Sum of x [..., H, W, C] over all axes but the last, times the rows' weights [...] -> [C]."""

    def product(x, weight):  # on a CPU a third of the time that XLA's sum takes
        weight = jnp.broadcast_to(weight[..., None, None], x.shape[:-1]).reshape(1, -1)
        return jnp.matmul(weight, x.reshape(-1, x.shape[-1]), precision="highest")[0]

    def plain(x, weight):
        return jnp.sum(x * weight[..., None, None, None], axis=tuple(range(x.ndim - 1)))

    return jax.lax.platform_dependent(x, weight, cpu=product, default=plain)


@jax.custom_vjp
def add_bias(x: Array, bias: Array) -> Array:
    """x [N, H, W, C] + bias [C]."""
    return x + bias


def _add_bias_bwd(_, g):
    return g, sum_of_pixels(g, jnp.ones(len(g), g.dtype))


add_bias.defvjp(lambda x, bias: (x + bias, None), _add_bias_bwd)

# Which taps of a 3x3 kernel see what, with the pixels in raster order. A and B are PixelCNN's:
# the earlier ones, without and with the pixel itself. The others make up the gated form of two
# stacks: rows above (then with the own row, of features that know the rows above only), and the
# left of the own row.
MASKS = {
    "A": np.array([[1, 1, 1], [1, 0, 0], [0, 0, 0]], np.float32),
    "B": np.array([[1, 1, 1], [1, 1, 0], [0, 0, 0]], np.float32),
    "all": np.ones((3, 3), np.float32),
    "above": np.array([[1, 1, 1], [0, 0, 0], [0, 0, 0]], np.float32),
    "above_and_row": np.array([[1, 1, 1], [1, 1, 1], [0, 0, 0]], np.float32),
    "left": np.array([[0, 0, 0], [1, 0, 0], [0, 0, 0]], np.float32),
    "left_and_self": np.array([[0, 0, 0], [1, 1, 0], [0, 0, 0]], np.float32),
}


def apply_mask(kernel: Array, kind: str) -> Array:
    """The kernel [3, 3, C, F] with zeros where the mask of this kind has them."""
    return kernel * MASKS[kind][:, :, None, None]


def _masked_forward(x, kernel, kind):
    return _forward(x, apply_mask(kernel, kind), 1)


def _crop(kind):
    """The smallest block of the kernel that holds the centre and all taps, and its padding."""
    rows, columns = (np.flatnonzero(MASKS[kind].any(axis)) for axis in (1, 0))
    # With the centre, since XLA's CPU kernel reads outside of its memory at negative padding.
    block = [slice(min(taps[0], 1), max(taps[-1], 1) + 1) for taps in (rows, columns)]
    return tuple(block), [(1 - s.start, s.stop - 2) for s in block]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def masked_conv(x: Array, kernel: Array, kind: str) -> Array:
    """`conv` with a masked kernel, and the gradient of the kernel without its mask.

    So do the authors: they set the masked weights to zero before every pass, and what the
    gradient has there counts in its norm, by which the optimiser divides. The masked weights may
    drift: nothing reads them.

    Args:
      x: [N, H, W, C]
      kernel: [3, 3, C, F]
      kind: a key of MASKS.
    Returns:
      [N, H, W, F]
    """

    def cropped(x, kernel):  # a third of the work less; other platforms' kernels want squares
        block, padding = _crop(kind)
        return _convolve(x, apply_mask(kernel, kind)[block], padding)

    return jax.lax.platform_dependent(
        x, kernel, cpu=cropped, default=lambda x, k: _masked_forward(x, k, kind)
    )


def _masked_conv_fwd(x, kernel, kind):
    return masked_conv(x, kernel, kind), (x, kernel)


def _masked_conv_bwd(kind, saved, g):
    x, kernel = saved

    def cropped(g, kernel):
        block, padding = _crop(kind)
        low = [before for before, _ in padding]
        return _input_gradient(g, apply_mask(kernel, kind)[block], low, x.shape)

    return (
        jax.lax.platform_dependent(
            g,
            kernel,
            cpu=cropped,
            default=lambda g, k: jax.linear_transpose(lambda x: _masked_forward(x, k, kind), x)(g)[
                0
            ],
        ),
        jax.lax.platform_dependent(
            x,
            g,
            cpu=lambda x, g: _kernel_gradient(x, g, [1, 1], kernel.shape),
            default=lambda x, g: jax.linear_transpose(lambda k: _forward(x, k, 1), kernel)(g)[0],
        ),
    )


masked_conv.defvjp(_masked_conv_fwd, _masked_conv_bwd)


def _over_leading_axes(function, x: Array) -> Array:
    """Applies a function of [N, H, W, C] to [..., H, W, C]."""
    result = function(x.reshape(-1, *x.shape[-3:]))
    return result.reshape(*x.shape[:-3], *result.shape[1:])


# ---------------------------------------------------------------------------------------------
# Layers.


class ConvParameters(nn.Module):
    """Kernel [k, k, C, features] and bias [features] of a convolution of C channels."""

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[Array, Array]:
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        init = layers.uniform_fan_in(math.prod(shape[:3]))
        return self.param("kernel", init, shape), self.param("bias", init, (self.features,))


class GatedConv(nn.Module):
    """(W * x + b) sigmoid(V * x + c): [..., H, W, C] -> [..., H', W', features]."""

    features: int
    kernel_size: int
    stride: int = 1

    def setup(self):
        self.linear = ConvParameters(self.features, self.kernel_size)
        self.gate = ConvParameters(self.features, self.kernel_size)

    def __call__(self, x: Array) -> Array:
        # One convolution of twice the features is faster than two that read the same input.
        parameters = self.linear(x.shape[-1]), self.gate(x.shape[-1])
        kernel, bias = (jnp.concatenate(pair, axis=-1) for pair in zip(*parameters, strict=True))
        both = _over_leading_axes(lambda x: add_bias(conv(x, kernel, self.stride), bias), x)
        linear, gate = jnp.split(both, 2, axis=-1)
        return linear * jax.nn.sigmoid(gate)


class MaskedConv(nn.Module):
    """3x3 convolution without bias of the concatenation of the inputs, each with its own mask.

    [..., H, W, C_i] each -> [..., H, W, features]. It is a sum of one convolution an input, so an
    input with fewer leading axes (one image beside its many samples) is convolved once.
    """

    features: int
    kinds: tuple[str, ...]  # keys of MASKS, one an input
    channels: tuple[int, ...]  # of the inputs

    def setup(self):
        shape = (3, 3, sum(self.channels), self.features)
        init = layers.uniform_fan_in(math.prod(shape[:3]))
        self.kernel = self.param("kernel", init, shape)

    def parts(self) -> list[Array]:
        """The kernel's part for each input, not masked yet: [3, 3, C_i, features]."""
        return jnp.split(self.kernel, np.cumsum(self.channels)[:-1], axis=2)

    def of_input(self, index: int, x: Array) -> Array:
        """One input's share of the sum: [..., H, W, C_i] -> [..., H, W, features]."""
        kernel, kind = self.parts()[index], self.kinds[index]
        return _over_leading_axes(lambda x: masked_conv(x, kernel, kind), x)

    def __call__(self, *inputs: Array) -> Array:
        return sum(self.of_input(index, x) for index, x in enumerate(inputs))

    # The first input's share again, tap by tap, for those who go through an image in raster order.

    def from_above(self, row: Array) -> Array:
        """What the row above [N, W, C] adds to a row of the output [N, W, features]."""
        return _row_conv(row, self._masked_rows()[0])

    def from_own_row(self, row: Array) -> Array:
        """What a row [N, W, C] adds to the same row of the output [N, W, features]."""
        return _row_conv(row, self._masked_rows()[1])

    def from_left(self, pixel: Array) -> Array:
        """What a pixel [N, C] adds to its right neighbour in the output [N, features]."""
        return pixel @ self._masked_rows()[1, 0]

    def from_same(self, pixel: Array) -> Array:
        """What a pixel [N, C] adds to the same pixel of the output [N, features]."""
        return pixel @ self._masked_rows()[1, 1]

    def _masked_rows(self):
        return apply_mask(self.parts()[0], self.kinds[0])


def _row_conv(row: Array, kernel: Array) -> Array:
    """Convolution of rows [N, W, C] with three taps [3, C, F], padded by one -> [N, W, F]."""
    padded = jnp.pad(row, ((0, 0), (1, 1), (0, 0)))
    return sum(padded[:, i : i + row.shape[1]] @ kernel[i] for i in range(3))


class BatchNorm(nn.Module):
    """Batch normalisation by PyTorch's conventions, over all axes but the last.

    The running variance is the unbiased one, and moves by a tenth each time (Flax would call that
    momentum 0.9). The scale starts at 1, as in PyTorch since 1.2; the authors' version drew it
    from U(0, 1).
    """

    axis_name: str | None = None  # of the mapped axis over whose devices the batch is spread
    momentum: float = 0.1
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: Array, *, train: bool = False, row_weight: Array | None = None) -> Array:
        """Normalises by the batch's statistics if `train`, else by the running ones.

        Args:
          x: [..., H, W, C]; without `train` any [..., C].
          train: also updates the collection 'batch_stats', which must then be mutable.
          row_weight: 1 for real rows and 0 for padding, of x's leading axes [...].
        Returns:
          Of x's shape.
        """
        features = x.shape[-1]
        scale = self.param("scale", nn.initializers.ones, (features,))
        bias = self.param("bias", nn.initializers.zeros, (features,))
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (features,))
        running_var = self.variable("batch_stats", "var", jnp.ones, (features,))
        if not train:
            factor = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            return x * factor + (bias - running_mean.value * factor)

        weight = jnp.ones(x.shape[:-3]) if row_weight is None else row_weight
        weight = jnp.broadcast_to(weight, x.shape[:-3])
        result, mean, var, count = _normalise(x, weight, scale, bias, self.axis_name, self.epsilon)
        if not self.is_initializing():
            unbiased = var * count / jnp.maximum(count - 1.0, 1.0)
            for running, new in ((running_mean, mean), (running_var, unbiased)):
                new = jax.lax.stop_gradient(new)
                running.value = (1.0 - self.momentum) * running.value + self.momentum * new
        return result


@functools.partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _normalise(x, weight, scale, bias, axis_name, epsilon):
    """(x - mean) scale / sqrt(var + epsilon) + bias, mean and var (no gradients), their count.

    The gradient is written out, since its sums are as slow as XLA's others on a CPU.
    """
    return _normalise_fwd(x, weight, scale, bias, axis_name, epsilon)[0]


def _normalise_fwd(x, weight, scale, bias, axis_name, epsilon):
    count = _over_devices(jnp.sum(weight), axis_name) * math.prod(x.shape[-3:-1])
    # In two passes: E[x^2] - E[x]^2 would cancel where the mean is large.
    mean = _over_devices(sum_of_pixels(x, weight), axis_name) / count
    centred = x - mean
    var = _over_devices(sum_of_pixels(centred**2, weight), axis_name) / count
    factor = jax.lax.rsqrt(var + epsilon)
    result = centred * (scale * factor) + bias
    return (result, mean, var, count), (x, weight, scale, mean, factor, count)


def _normalise_bwd(axis_name, epsilon, saved, gradients):
    x, weight, scale, mean, factor, count = saved
    g = gradients[0]
    normed = (x - mean) * factor
    every = jnp.ones_like(weight)
    of_bias, of_scale = sum_of_pixels(g, every), sum_of_pixels(g * normed, every)
    # Through mean and var, which every real row has a part in, on every device.
    through_mean, through_var = (
        _over_devices(total, axis_name) / count for total in (of_bias, of_scale)
    )
    share = weight[..., None, None, None] * (through_mean + normed * through_var)
    return scale * factor * (g - share), None, of_scale, of_bias


_normalise.defvjp(_normalise_fwd, _normalise_bwd)


def _over_devices(total, axis_name):
    return total if axis_name is None else jax.lax.psum(total, axis_name)


class PointwiseConv(nn.Module):
    """1x1 convolution with bias: a matrix product, for any leading axes [..., C]."""

    features: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = layers.uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", init, (1, 1, x.shape[-1], self.features))
        return x @ kernel[0, 0] + self.param("bias", init, (self.features,))


class ConvHead(nn.Module):
    """The parameters of p(x|.) by 1x1 convolutions: [..., F] -> [..., channels] each.

    (logits,) for 'bernoulli'; (mean logits, log-scales) for 'discretised_logistic'.
    """

    channels: int
    likelihood: str

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, ...]:
        names = ("logits",) if self.likelihood == "bernoulli" else ("mean", "log_scale")
        return tuple(PointwiseConv(self.channels, name=name)(h) for name in names)
