"""Convolutions of images in NHWC, with gradients that are fast on a CPU too.

XLA's CPU compiler brings convolutions into the one order of axes for which it has a fast kernel,
but only those of a program's outermost computation: inside `lax.scan` the gradients that it derives
itself, with their swapped axes, fall through to a naive loop up to 190 times slower. So on a CPU
the gradients are written as convolutions in that order, which is as fast inside the loop as
outside. Other platforms keep XLA's own.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.layers import batch_norm

Array = jax.Array


def _convolve(x, kernel, padding, stride=1):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding=padding,
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


def _over_chunks(of_chunk, parameters, x, *more):
    """The gradients of x and of parameters, whose parts `of_chunk(x, *more)` gives for a chunk."""

    def add(sums, chunk):
        of_x, *parts = of_chunk(*chunk)
        return [total + part for total, part in zip(sums, parts, strict=True)], of_x

    zeros = [jnp.zeros_like(parameter) for parameter in parameters]
    sums, of_x = jax.lax.scan(add, zeros, _in_chunks(x, *more))
    return of_x.reshape(-1, *x.shape[1:])[: len(x)], *sums


def _computed_once(function, *arrays):
    """function(*arrays), kept as an array.

    XLA would compute it again within every transposition that reads it, one number at a time. It
    does not reach into a branch, and which of these two is taken does not matter.
    """
    return jax.lax.cond(arrays[0][(0,) * arrays[0].ndim] > 0, function, function, *arrays)


def _input_gradient(g, kernel, low, input_shape, stride=1):
    """d/dx of a convolution padded by `low` at the top and left: [N, OH, OW, F] -> [N, H, W, C].

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
    """d/dkernel likewise: the input's channels play the batch, the batch plays the channels.

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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def gated_conv(x: Array, kernel: Array, bias: Array, stride: int = 1) -> Array:
    """(W * x + b) sigmoid(V * x + c), padded by k // 2 on every side, as PyTorch's.

    W and V are one convolution of twice the features, faster than two that read the same input.

    Args:
      x: [N, H, W, C]
      kernel: [k, k, C, 2 F], k odd: W, then V.
      bias: [2 F]: b, then c.
      stride: of both axes, at most k // 2 + 1.
    Returns:
      [N, ceil(H / stride), ceil(W / stride), F]
    """
    return _gated_conv_fwd(x, kernel, bias, stride)[0]


def _gate(both):
    linear, gate = jnp.split(both, 2, axis=-1)
    return linear * jax.nn.sigmoid(gate)


def _gated_conv_fwd(x, kernel, bias, stride):
    # Kept without the bias, which would be another array to write.
    both = _forward(x, kernel, stride)
    return _gate(both + bias), (x, kernel, bias, both)


def _through_gate(both, bias, g):
    return jax.vjp(_gate, both + bias)[1](g)[0]


def _gated_conv_bwd(stride, saved, g):
    def in_chunks(x, kernel, bias, both, g):
        low = [size // 2 for size in kernel.shape[:2]]

        def of_chunk(x, both, g):
            through = _computed_once(_through_gate, both, bias, g)
            return (
                _input_gradient(through, kernel, low, x.shape, stride),
                _kernel_gradient(x, through, low, kernel.shape, stride),
                batch_norm.sum_of_pixels(through),
            )

        return _over_chunks(of_chunk, (kernel, bias), x, both, g)

    def plain(x, kernel, bias, both, g):
        through = _through_gate(both, bias, g)
        pull_back = jax.vjp(lambda x, kernel: _forward(x, kernel, stride), x, kernel)[1]
        return *pull_back(through), jnp.sum(through, (0, 1, 2))

    def by_shares(x, kernel, bias, both, g):
        through = _through_gate(both, bias, g)
        low = [size // 2 for size in kernel.shape[:2]]
        of_x = _one_channel_input_gradient(through, kernel, low, x.shape)
        pull_back = jax.linear_transpose(lambda kernel: _forward(x, kernel, stride), kernel)
        return of_x, *pull_back(through), jnp.sum(through, (0, 1, 2))

    # XLA's own input gradient of one channel leaves all but one of a TPU's 128 columns idle.
    tpu = by_shares if saved[0].shape[-1] == 1 and stride == 1 else plain
    return jax.lax.platform_dependent(*saved, g, cpu=in_chunks, tpu=tpu, default=plain)


gated_conv.defvjp(_gated_conv_fwd, _gated_conv_bwd)


# Which taps of a 3x3 kernel see what, with the pixels in raster order; of larger kernels `mask`. A
# and B are PixelCNN's:
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


def mask(kind: str, size: int) -> np.ndarray:
    """The mask of a kernel of any odd size: [size, size] of zeros and ones."""
    place = np.sign(np.arange(size) - size // 2) + 1  # before the centre, there, after it
    return MASKS[kind][np.ix_(place, place)]


def apply_mask(kernel: Array, kind: str) -> Array:
    """The kernel [k, k, C, F] with zeros where the mask of this kind has them."""
    return kernel * mask(kind, kernel.shape[0])[:, :, None, None]


def _masked_forward(x, kernel, kind):
    return _forward(x, apply_mask(kernel, kind), 1)


def _crop(kind, size):
    """The smallest block of the kernel that holds the centre and all taps, and its padding."""
    rows, columns = (np.flatnonzero(mask(kind, size).any(axis)) for axis in (1, 0))
    # With the centre, since XLA's CPU kernel reads outside of its memory at negative padding.
    at = size // 2
    block = [slice(min(taps[0], at), max(taps[-1], at) + 1) for taps in (rows, columns)]
    return tuple(block), [(at - s.start, s.stop - at - 1) for s in block]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def masked_conv(x: Array, kernel: Array, kind: str) -> Array:
    """Convolution with a masked kernel, and the gradient of the kernel without its mask.

    So do the authors: they set the masked weights to zero before every pass, and what the
    gradient has there counts in its norm, by which the optimiser divides. The masked weights may
    drift: nothing reads them.

    Args:
      x: [N, H, W, C]
      kernel: [k, k, C, F], k odd
      kind: a key of MASKS; with taps in a kernel of this size.
    Returns:
      [N, H, W, F]
    """

    def cropped(x, kernel):  # a third of the work less; other platforms' kernels want squares
        block, padding = _crop(kind, kernel.shape[0])
        return _convolve(x, apply_mask(kernel, kind)[block], padding)

    return jax.lax.platform_dependent(
        x, kernel, cpu=cropped, default=lambda x, k: _masked_forward(x, k, kind)
    )


def _masked_conv_fwd(x, kernel, kind):
    return masked_conv(x, kernel, kind), (x, kernel)


def _masked_conv_bwd(kind, saved, g):
    def in_chunks(x, kernel, g):
        def of_chunk(x, g):
            return _masked_gradients(x, kernel, g, kind)

        return _over_chunks(of_chunk, (kernel,), x, g)

    def plain(x, kernel, g):
        (of_x,) = jax.linear_transpose(lambda x: _masked_forward(x, kernel, kind), x)(g)
        (of_kernel,) = jax.linear_transpose(lambda kernel: _forward(x, kernel, 1), kernel)(g)
        return of_x, of_kernel

    return jax.lax.platform_dependent(*saved, g, cpu=in_chunks, default=plain)


def _masked_gradients(x, kernel, g, kind):
    block, padding = _crop(kind, kernel.shape[0])
    low = [before for before, _ in padding]
    of_x = _input_gradient(g, apply_mask(kernel, kind)[block], low, x.shape)
    return of_x, _kernel_gradient(x, g, [kernel.shape[0] // 2] * 2, kernel.shape)


masked_conv.defvjp(_masked_conv_fwd, _masked_conv_bwd)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def masked_conv_of_relu(x: Array, norm: batch_norm.Affine, kernel: Array, kind: str) -> Array:
    """`masked_conv` of max(0, norm(x)), whose gradients a CPU computes in one go over x."""
    return masked_conv(batch_norm.relu(x, norm), kernel, kind)


def _masked_conv_of_relu_fwd(x, norm, kernel, kind):
    return masked_conv_of_relu(x, norm, kernel, kind), (x, norm, kernel)


def _masked_conv_of_relu_bwd(kind, saved, g):
    def in_chunks(x, norm, kernel, g):
        def of_chunk(x, g):
            h = batch_norm.relu(x, norm)
            of_h, of_kernel = _masked_gradients(h, kernel, g, kind)
            of_x, of_norm = batch_norm.relu_gradient(x, norm, of_h)
            return of_x, *of_norm, of_kernel

        of_x, *of_norm, of_kernel = _over_chunks(of_chunk, (*norm, kernel), x, g)
        return of_x, batch_norm.Affine(*of_norm), of_kernel

    def plain(x, norm, kernel, g):
        h = batch_norm.relu(x, norm)
        of_h, of_kernel = _masked_conv_bwd(kind, (h, kernel), g)
        return *batch_norm.relu_gradient(x, norm, of_h), of_kernel

    return jax.lax.platform_dependent(*saved, g, cpu=in_chunks, default=plain)


masked_conv_of_relu.defvjp(_masked_conv_of_relu_fwd, _masked_conv_of_relu_bwd)
