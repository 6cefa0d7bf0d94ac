"""Layers of the convolutional networks (section 5 and appendix), images in NHWC.

Weights and biases start as PyTorch's do by default, U(+-1/sqrt(fan_in)), as in the authors' code.
"""

import math
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.layers import batch_norm
from vamp_jax.layers.conv_gradients import (
    apply_mask,
    gated_conv,
    mask,
    masked_conv,
    masked_conv_of_relu,
)
from vamp_jax.layers.dense import uniform_fan_in
from vamp_jax.likelihoods import Likelihood

Array = jax.Array


def _over_leading_axes(function, x: Array) -> Array:
    """Applies a function of real numbers [N, H, W, C] to [..., H, W, C]."""
    result = function(jnp.asarray(x, jnp.float32).reshape(-1, *x.shape[-3:]))
    return result.reshape(*x.shape[:-3], *result.shape[1:])


class ConvParameters(nn.Module):
    """Kernel [k, k, C, features] and bias [features] of a convolution of C channels."""

    features: int
    kernel_size: int

    @nn.compact
    def __call__(self, channels: int) -> tuple[Array, Array]:
        shape = (self.kernel_size, self.kernel_size, channels, self.features)
        init = uniform_fan_in(math.prod(shape[:3]))
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
        parameters = self.linear(x.shape[-1]), self.gate(x.shape[-1])
        kernel, bias = (jnp.concatenate(pair, axis=-1) for pair in zip(*parameters, strict=True))
        return _over_leading_axes(lambda x: gated_conv(x, kernel, bias, self.stride), x)


class ColourOrder(NamedTuple):
    """Which features of a pixel are of which of its colours: an output sees earlier ones alone.

    van den Oord et al. 2016 (arXiv 1601.06759), section 3.4: red, then green, then blue.
    """

    inputs: tuple[int, ...]  # the colour's number of each input
    outputs: tuple[int, ...]  # of each output
    own: bool  # whether an output also sees inputs of its own colour

    def mask(self) -> np.ndarray:
        """[inputs, outputs] of zeros and ones."""
        seen = np.array(self.inputs)[:, None] < np.array(self.outputs) + self.own
        return seen.astype(np.float32)


def colours_of(num_features: int, num_colours: int) -> tuple[int, ...]:
    """The colour's number of each of so many features: equal shares, side by side."""
    return tuple(i * num_colours // num_features for i in range(num_features))


class MaskedConv(nn.Module):
    """Convolution without bias of the concatenation of the inputs, each with its own mask.

    [..., H, W, C_i] each -> [..., H, W, features]. It is a sum of one convolution an input, so an
    input with fewer leading axes (one image beside its many samples) is convolved once.
    """

    features: int
    kinds: tuple[str, ...]  # keys of MASKS, one an input
    channels: tuple[int, ...]  # of the inputs
    order: ColourOrder | None = None  # at the centre, of the first input
    reach: int = 1  # rows and columns at each side of the centre
    # Kernels start at N(0, gain^2 / number of inputs that are seen); None: as PyTorch's.
    gain: float | None = None

    def setup(self):
        size = 2 * self.reach + 1
        shape = (size, size, sum(self.channels), self.features)
        init = uniform_fan_in(math.prod(shape[:3]))
        if self.gain is not None:
            seen = zip(self.kinds, self.channels, strict=True)
            count = sum(mask(kind, size).sum() * channels for kind, channels in seen)
            init = nn.initializers.normal(self.gain * count**-0.5)
        self.kernel = self.param("kernel", init, shape)

    def parts(self) -> list[Array]:
        """The kernel's part for each input, masked by colours alone: [k, k, C_i, features]."""
        first, *rest = jnp.split(self.kernel, np.cumsum(self.channels)[:-1], axis=2)
        if self.order is not None:
            first = first.at[self.reach, self.reach].multiply(self.order.mask())
        return [first, *rest]

    def of_input(self, index: int, x: Array) -> Array:
        """One input's share of the sum: [..., H, W, C_i] -> [..., H, W, features]."""
        kernel, kind = self.parts()[index], self.kinds[index]
        return _over_leading_axes(lambda x: masked_conv(x, kernel, kind), x)

    def __call__(self, *inputs: Array) -> Array:
        return sum(self.of_input(index, x) for index, x in enumerate(inputs))

    def after_relu(self, x: Array, norm: batch_norm.Affine) -> Array:
        """The same of the only input max(0, norm(x)): [..., H, W, C] -> [..., H, W, features]."""
        (kind,), (kernel,) = self.kinds, self.parts()
        return _over_leading_axes(lambda x: masked_conv_of_relu(x, norm, kernel, kind), x)

    # The first input's share again, tap by tap, for those who go through an image in raster order.

    def from_above(self, rows: Array) -> Array:
        """What the last rows above [>= reach, N, W, C] add to a row of the output [N, W, features].

        The nearest row, or pixel, is the last.
        """
        kernel, first = self._masked_rows(), len(rows) - self.reach
        return sum(_row_conv(rows[first + i], kernel[i]) for i in range(self.reach))

    def from_own_row(self, row: Array) -> Array:
        """What a row [N, W, C] adds to the same row of the output [N, W, features]."""
        return _row_conv(row, self._masked_rows()[self.reach])

    def from_left(self, pixels: Array) -> Array:
        """What the last pixels to the left [>= reach, N, C] add to one of the output."""
        kernel, first = self._masked_rows()[self.reach], len(pixels) - self.reach
        return sum(pixels[first + i] @ kernel[i] for i in range(self.reach))

    def from_same(self, pixel: Array) -> Array:
        """What a pixel [N, C] adds to the same pixel of the output [N, features]."""
        return pixel @ self._masked_rows()[self.reach, self.reach]

    def _masked_rows(self):
        return apply_mask(self.parts()[0], self.kinds[0])


def _row_conv(row: Array, kernel: Array) -> Array:
    """Convolution of rows [N, W, C] with k taps [k, C, F], padded by k // 2 -> [N, W, F]."""
    width = len(kernel) // 2
    padded = jnp.pad(row, ((0, 0), (width, width), (0, 0)))
    return sum(padded[:, i : i + row.shape[1]] @ kernel[i] for i in range(len(kernel)))


class PointwiseConv(nn.Module):
    """1x1 convolution with bias: a matrix product, for any leading axes [..., C]."""

    features: int
    order: ColourOrder | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        init = uniform_fan_in(x.shape[-1])
        kernel = self.param("kernel", init, (1, 1, x.shape[-1], self.features))[0, 0]
        if self.order is not None:
            kernel = kernel * self.order.mask()
        return x @ kernel + self.param("bias", init, (self.features,))


class Head(nn.Module):
    """The likelihood's heads by 1x1 convolutions: [..., H, W, F] -> [..., H, W, C] each.

    Or of a single pixel: [..., F] -> [..., C]. With `colours` a colour's heads see the features of
    this colour and earlier ones alone.
    """

    likelihood: Likelihood
    x_shape: tuple[int, ...]
    colours: int = 1

    @nn.compact
    def __call__(self, h: Array) -> tuple[Array, ...]:
        return tuple(
            self.param(name, nn.initializers.zeros_init(), shape)
            if name in self.likelihood.free
            else self._of_a_pixel(name, shape[2:], h)
            for name, shape in self.likelihood.heads(self.x_shape).items()
        )

    def _of_a_pixel(self, name: str, shape: tuple[int, ...], h: Array) -> Array:
        features, order = math.prod(shape), None
        if self.colours > 1:
            order = ColourOrder(
                colours_of(h.shape[-1], self.colours), colours_of(features, self.colours), own=True
            )
        out = PointwiseConv(features, order, name=name)(h)
        return out.reshape(*h.shape[:-1], *shape)
