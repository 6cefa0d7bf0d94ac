"""The layers of a PixelCNN: each pixel's features from z and the pixels before it in raster order.

Two forms, each with a second way through it, a row and then a pixel at a time, that keeps what
earlier pixels have already cost (models/pixel_decoder.py draws images that way).
"""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers import batch_norm, conv

Array = jax.Array


def _order(
    inputs: int, features: int, colours: int, *, own: bool, gates: int = 1
) -> conv.ColourOrder | None:
    """Of a layer from so many inputs to features, of which each has so many gates."""
    if colours == 1:
        return None
    outputs = conv.colours_of(features, colours) * gates
    return conv.ColourOrder(conv.colours_of(inputs, colours), outputs, own)


class MaskedStack(nn.Module):
    """The paper's: eight masked convolutions, each with batch norm and ReLU.

    A 3x3 mask of the pixels before misses, layer over layer, a wedge of them to the upper right:
    its blind spot.
    """

    channels: int
    colours: int  # that are predicted one after the other
    mask_z: bool
    axis_name: str | None

    num_layers = 8
    features = 64
    reach = 1  # of the layer that looks furthest
    num_kept = 0  # maps of each row that are kept beside the layers' outputs

    def setup(self):
        kinds = ("A" if self.colours == 1 else "B", "A" if self.mask_z else "all")
        order = _order(self.channels, self.features, self.colours, own=False)
        first = conv.MaskedConv(self.features, kinds, (self.channels, 2 * self.channels), order)
        order = _order(self.features, self.features, self.colours, own=True)
        later = (self.features, ("B",), (self.features,), order)
        self.convs = [first, *(conv.MaskedConv(*later) for _ in range(self.num_layers - 1))]
        self.norms = [batch_norm.BatchNorm(self.axis_name) for _ in range(self.num_layers)]

    def __call__(self, x: Array, z: Array, **norm_kwargs) -> Array:
        """Images and maps of z [..., H, W, C], whose leading axes broadcast -> [..., H, W, F]."""
        h = self.convs[0](x, z)
        for norm, layer in zip(self.norms, self.convs[1:], strict=False):
            h = layer.after_relu(h, norm(h, **norm_kwargs))
        return batch_norm.relu(h, self.norms[-1](h, **norm_kwargs))

    def z_contribution(self, z: Array):
        """What z adds to the layers' sums: row by row [N, H, W, F], and everywhere (nothing)."""
        return (self.convs[0].of_input(1, z),), ()

    def start_row(self, x_above, above, stack_above, z_contribution):
        """What the rows above give to a row: see `sample_pixels`."""
        del stack_above
        (of_row,), _ = z_contribution
        result = [self.convs[0].from_above(x_above) + of_row]
        result += [c.from_above(h) for c, h in zip(self.convs[1:], above, strict=False)]
        return jnp.stack(result), ()

    def next_pixel(self, from_above, x_left, left, x):
        """The layers' outputs at one pixel: see `sample_pixels`."""
        total = from_above[0] + self.convs[0].from_left(x_left)
        if self.colours > 1:
            total = total + self.convs[0].from_same(x)
        h = batch_norm.relu(total, self.norms[0](total))
        result = [h]
        for i in range(1, self.num_layers):
            layer = self.convs[i]
            total = from_above[i] + layer.from_left(left[i - 1]) + layer.from_same(h)
            h = batch_norm.relu(total, self.norms[i](total))
            result.append(h)
        return jnp.stack(result)


class GatedStacks(nn.Module):
    """Two stacks without a blind spot, after van den Oord et al. 2016 (arXiv 1606.05328).

    The vertical stack knows all rows above, the horizontal one the left of the own row and the
    vertical stack. Gates are tanh(a) sigmoid(b); there is no batch norm. A pixel sees the sum of
    `reaches` rows above it, and as many columns at each side, no pixel of which it misses. z comes
    as maps that the first layer sees beside the image, or as a bias of every layer's gates.
    """

    channels: int
    colours: int  # that are predicted one after the other
    mask_z: bool = False  # z's maps, too, are seen at earlier pixels only
    z_as_bias: bool = False  # z is [..., D], not [..., H, W, 2 C]
    features: int = 64
    reaches: tuple[int, ...] = (1,) * 8  # of each layer; of the first at least 1
    # Of the kernels, see MaskedConv. A gate near zero halves what comes in: at 2 a small signal
    # goes through many layers neither fading nor growing.
    gain: float | None = None

    @property
    def num_layers(self) -> int:
        """How many layers each stack has."""
        return len(self.reaches)

    @property
    def reach(self) -> int:
        """That of the layer that looks furthest."""
        return max(self.reaches)

    @property
    def num_kept(self) -> int:
        """Maps of each row that are kept beside the layers' outputs: of the vertical stack."""
        return self.num_layers - 1

    def setup(self):
        def convs(of_x, of_z, later, orders=(None, None)):
            of_z = of_z if self.mask_z else "all"
            maps = () if self.z_as_bias else ((of_z, 2 * self.channels),)
            kinds, inputs = zip((of_x, self.channels), *maps, strict=True)
            first = conv.MaskedConv(
                2 * self.features, kinds, inputs, orders[0], self.reaches[0], self.gain
            )
            return [first] + [
                conv.MaskedConv(
                    2 * self.features, (later,), (self.features,), orders[1], reach, self.gain
                )
                for reach in self.reaches[1:]
            ]

        order = functools.partial(_order, features=self.features, colours=self.colours)
        of_rows = order(self.channels, own=False, gates=2), order(self.features, own=True, gates=2)
        of_x = "left" if self.colours == 1 else "left_and_self"
        self.vertical = convs("above", "above", "above_and_row")
        self.horizontal = convs(of_x, "left", "left_and_self", of_rows)
        pointwise, count = conv.PointwiseConv, self.num_layers
        self.across = [pointwise(2 * self.features) for _ in range(count)]
        own = order(self.features, own=True)
        self.out = [pointwise(self.features, own) for _ in range(count)]
        if self.z_as_bias:
            self.of_z = pointwise(4 * self.features * count)

    def __call__(self, x: Array, z: Array, **norm_kwargs) -> Array:
        """Images [..., H, W, C], and z whose leading axes broadcast -> features [..., H, W, F]."""
        del norm_kwargs
        of_z = self._of_z(z)
        vertical = self.vertical[0].of_input(0, x) + of_z[0][0]
        total = self.across[0](vertical) + (self.horizontal[0].of_input(0, x) + of_z[0][1])
        h = self._horizontal_output(0, total, 0.0)
        for i in range(1, self.num_layers):
            vertical = self.vertical[i](_gate(vertical)) + of_z[i][0]
            total = self.across[i](vertical) + (self.horizontal[i](h) + of_z[i][1])
            h = self._horizontal_output(i, total, h)
        return nn.relu(h)

    def _of_z(self, z):
        """What z adds to the vertical and the horizontal sums of each layer."""
        of_rows, everywhere = self.z_contribution(z)
        if not self.z_as_bias:
            return self._of_layers(of_rows, everywhere)
        return jax.tree.map(lambda part: part[..., None, :], everywhere)

    def _of_layers(self, of_rows, everywhere):
        return everywhere or (of_rows, *[(0.0, 0.0)] * (self.num_layers - 1))

    def _horizontal_output(self, i, total, h):
        return h + self.out[i](_gate(total))

    def z_contribution(self, z: Array):
        """What z adds to the layers' sums, of the vertical and of the horizontal stack.

        Returns:
          of the first layer, row by row: [..., H, W, 2 F] each, or ()
          of each layer, everywhere: [..., 1, 2 F] each, or ()
        """
        if not self.z_as_bias:
            return (self.vertical[0].of_input(1, z), self.horizontal[0].of_input(1, z)), ()
        parts = jnp.split(self.of_z(z)[..., None, :], 2 * self.num_layers, axis=-1)
        return (), tuple(zip(parts[::2], parts[1::2], strict=True))

    def start_row(self, x_above, above, stack_above, z_contribution):
        """What the rows above give to a row: see `sample_pixels`."""
        del above
        of_z = self._of_layers(*z_contribution)
        total = self.vertical[0].from_above(x_above) + of_z[0][0]
        result, stack = [self.across[0](total) + of_z[0][1]], []
        for i in range(1, self.num_layers):
            stack.append(_gate(total))
            total = self.vertical[i].from_own_row(stack[-1])
            total = total + self.vertical[i].from_above(stack_above[i - 1]) + of_z[i][0]
            result.append(self.across[i](total) + of_z[i][1])
        return jnp.stack(result), tuple(stack)

    def next_pixel(self, from_above, x_left, left, x):
        """The layers' outputs at one pixel: see `sample_pixels`."""
        total = from_above[0] + self.horizontal[0].from_left(x_left)
        if self.colours > 1:
            total = total + self.horizontal[0].from_same(x)
        h = self._horizontal_output(0, total, 0.0)
        result = [h]
        for i in range(1, self.num_layers):
            layer = self.horizontal[i]
            total = from_above[i] + layer.from_left(left[i - 1]) + layer.from_same(h)
            h = self._horizontal_output(i, total, h)
            result.append(h)
        return jnp.stack([*result[:-1], nn.relu(h)])


def _gate(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)
