"""PixelHVAE: ConvHVAE's encoder and a PixelCNN as p(x|z1,z2) (section 5 and appendix).

The PixelCNN predicts each pixel from z1, z2 and the pixels before it in raster order. It comes in
two forms, each with a second way through it, a row and then a pixel at a time, that keeps what
earlier pixels have already cost; `sample_pixels` draws images that way. Where a likelihood takes
the colours of a pixel one by one, a colour is also predicted from those before it.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax import errors
from vamp_jax.layers import batch_norm, conv
from vamp_jax.models import conv_hvae

Array = jax.Array

NUM_LAYERS = 8
FEATURES = 64


def _order(inputs: int, colours: int, *, own: bool, gates: int = 1) -> conv.ColourOrder | None:
    """Of a layer from so many inputs to FEATURES, of which each has so many gates."""
    if colours == 1:
        return None
    outputs = conv.colours_of(FEATURES, colours) * gates
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

    def setup(self):
        kinds = ("A" if self.colours == 1 else "B", "A" if self.mask_z else "all")
        order = _order(self.channels, self.colours, own=False)
        first = conv.MaskedConv(FEATURES, kinds, (self.channels, 2 * self.channels), order)
        order = _order(FEATURES, self.colours, own=True)
        later = (FEATURES, ("B",), (FEATURES,), order)
        self.convs = [first, *(conv.MaskedConv(*later) for _ in range(NUM_LAYERS - 1))]
        self.norms = [batch_norm.BatchNorm(self.axis_name) for _ in range(NUM_LAYERS)]

    def __call__(self, x: Array, z: Array, **norm_kwargs) -> Array:
        """Images and maps of z [..., H, W, C], whose leading axes broadcast -> [..., H, W, F]."""
        h = self.convs[0](x, z)
        for norm, layer in zip(self.norms, self.convs[1:], strict=False):
            h = layer.after_relu(h, norm(h, **norm_kwargs))
        return batch_norm.relu(h, self.norms[-1](h, **norm_kwargs))

    def z_contribution(self, z: Array) -> tuple[Array, ...]:
        """Computes what z adds to the first layer's sums, [N, H, W, F] each."""
        return (self.convs[0].of_input(1, z),)

    def start_row(self, x_above, above, stack_above, z_contribution):
        """What the rows above give to a row: see `sample_pixels`."""
        del stack_above
        result = [self.convs[0].from_above(x_above) + z_contribution[0]]
        result += [c.from_above(h) for c, h in zip(self.convs[1:], above, strict=False)]
        return jnp.stack(result), ()

    def next_pixel(self, from_above, x_left, left, x):
        """The layers' outputs at one pixel: see `sample_pixels`."""
        total = from_above[0] + self.convs[0].from_left(x_left)
        if self.colours > 1:
            total = total + self.convs[0].from_same(x)
        h = batch_norm.relu(total, self.norms[0](total))
        result = [h]
        for i in range(1, NUM_LAYERS):
            layer = self.convs[i]
            total = from_above[i] + layer.from_left(left[i - 1]) + layer.from_same(h)
            h = batch_norm.relu(total, self.norms[i](total))
            result.append(h)
        return jnp.stack(result)


class GatedStacks(nn.Module):
    """Two stacks without a blind spot, after van den Oord et al. 2016 (arXiv 1606.05328).

    The vertical stack knows all rows above, the horizontal one the left of the own row and the
    vertical stack. Gates are tanh(a) sigmoid(b); there is no batch norm.
    """

    channels: int
    colours: int  # that are predicted one after the other
    mask_z: bool

    def setup(self):
        def convs(of_x, of_z, later, order=(None, None)):
            inputs = (self.channels, 2 * self.channels)
            kinds = (of_x, of_z if self.mask_z else "all")
            return [conv.MaskedConv(2 * FEATURES, kinds, inputs, order[0])] + [
                conv.MaskedConv(2 * FEATURES, (later,), (FEATURES,), order[1])
                for _ in range(NUM_LAYERS - 1)
            ]

        order = functools.partial(_order, colours=self.colours)
        of_rows = order(self.channels, own=False, gates=2), order(FEATURES, own=True, gates=2)
        of_x = "left" if self.colours == 1 else "left_and_self"
        self.vertical = convs("above", "above", "above_and_row")
        self.horizontal = convs(of_x, "left", "left_and_self", of_rows)
        pointwise = conv.PointwiseConv
        self.across = [pointwise(2 * FEATURES) for _ in range(NUM_LAYERS)]
        self.out = [pointwise(FEATURES, order(FEATURES, own=True)) for _ in range(NUM_LAYERS)]

    def __call__(self, x: Array, z: Array, **norm_kwargs) -> Array:
        """Images and maps of z [..., H, W, C], whose leading axes broadcast -> [..., H, W, F]."""
        del norm_kwargs
        vertical = self.vertical[0](x, z)
        h = self._horizontal_output(0, self.across[0](vertical) + self.horizontal[0](x, z), 0.0)
        for i in range(1, NUM_LAYERS):
            vertical = self.vertical[i](_gate(vertical))
            total = self.across[i](vertical) + self.horizontal[i](h)
            h = self._horizontal_output(i, total, h)
        return nn.relu(h)

    def _horizontal_output(self, i, total, h):
        return h + self.out[i](_gate(total))

    def z_contribution(self, z: Array) -> tuple[Array, ...]:
        """Computes what z adds to the first layer's sums, [N, H, W, F] each."""
        return self.vertical[0].of_input(1, z), self.horizontal[0].of_input(1, z)

    def start_row(self, x_above, above, stack_above, z_contribution):
        """What the rows above give to a row: see `sample_pixels`."""
        del above
        total = self.vertical[0].from_above(x_above) + z_contribution[0]
        result, stack = [self.across[0](total) + z_contribution[1]], []
        for i in range(1, NUM_LAYERS):
            stack.append(_gate(total))
            total = self.vertical[i].from_own_row(stack[-1])
            total = total + self.vertical[i].from_above(stack_above[i - 1])
            result.append(self.across[i](total))
        return jnp.stack(result), tuple(stack)

    def next_pixel(self, from_above, x_left, left, x):
        """The layers' outputs at one pixel: see `sample_pixels`."""
        total = from_above[0] + self.horizontal[0].from_left(x_left)
        if self.colours > 1:
            total = total + self.horizontal[0].from_same(x)
        h = self._horizontal_output(0, total, 0.0)
        result = [h]
        for i in range(1, NUM_LAYERS):
            layer = self.horizontal[i]
            total = from_above[i] + layer.from_left(left[i - 1]) + layer.from_same(h)
            h = self._horizontal_output(i, total, h)
            result.append(h)
        return jnp.stack([*result[:-1], nn.relu(h)])


def _gate(x):
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.tanh(a) * jax.nn.sigmoid(b)


class PixelHVAE(conv_hvae.ConvHVAE):
    """q(z2|x) q(z1|x,z2) and p(z1|z2) as ConvHVAE; p(x|z1,z2) = prod_i p(x_i|x_<i,z1,z2).

    A pixel's colours are one x_i where the likelihood takes them together (a mixture of logistics
    for RGB). Where it takes each by itself they are three, red before green before blue.
    """

    mask_z: bool = True  # as the authors do: z's maps, too, are seen at earlier pixels only
    gated_stacks: bool = False  # GatedStacks in place of MaskedStack
    axis_name: str | None = None  # of the mapped axis that batch norm sums over

    def __post_init__(self):
        super().__post_init__()
        shapes = self.likelihood.heads(self.x_shape)
        if any(shapes[name] for name in self.likelihood.free):
            raise errors.UsageError(
                "PixelHVAE draws pixel by pixel and takes no likelihood with a parameter a pixel: "
                "take another variance, or another model."
            )

    @property
    def colours(self) -> int:
        """How many numbers of a pixel are predicted one after the other."""
        return 1 if self.likelihood.event_axes else self.x_shape[-1]

    def setup_decoder(self):
        """The layers of p(x|z1,z2)."""
        shared = self.x_shape[-1], self.colours, self.mask_z
        self.p_x_from_z1 = self.gated(math.prod(self.x_shape))
        self.p_x_from_z2 = self.gated(math.prod(self.x_shape))
        if self.gated_stacks:
            self.p_x_stack = GatedStacks(*shared)
        else:
            self.p_x_stack = MaskedStack(*shared, self.axis_name)
        self.p_x = conv.Head(self.likelihood, self.x_shape, self.colours)

    def decode(
        self,
        latents: dict[str, Array],
        x: Array | None = None,
        *,
        train: bool = False,
        row_weight: Array | None = None,
    ) -> tuple[Array, ...]:
        """p(x_i|x_<i,z1,z2) for every pixel i: the likelihood's heads.

        Args:
          latents: z1 and z2, [..., D]
          x: [..., H, W, C], with as many leading axes as z or fewer (one image, many samples).
          train: batch norm by the batch's statistics; 'batch_stats' must be mutable.
          row_weight: 1 for real rows and 0 for padding, of z's leading axes.
        Returns:
          [..., H, W, C] each.
        """
        z = self.latent_maps(latents)
        return self.p_x(self.p_x_stack(x, z, train=train, row_weight=row_weight))

    def latent_maps(self, latents: dict[str, Array]) -> Array:
        """z1 and z2 as channels beside the image: [..., D] each -> [..., H, W, 2 C]."""
        z1, z2 = latents["z1"], latents["z2"]
        shape = (*z1.shape[:-1], *self.x_shape)
        maps = [self.p_x_from_z1(z1).reshape(shape), self.p_x_from_z2(z2).reshape(shape)]
        return jnp.concatenate(maps, axis=-1)

    def z_contribution(self, latents: dict[str, Array]) -> tuple[Array, ...]:
        """See the stack's method; from z1 and z2 [N, D]."""
        return self.p_x_stack.z_contribution(self.latent_maps(latents))

    def start_row(self, *args):
        """See the stack's method."""
        return self.p_x_stack.start_row(*args)

    def next_pixel(self, *args) -> tuple[Array, tuple[Array, ...]]:
        """See the stack's method; and p(x_i|.)'s parameters, [N, C] each."""
        features = self.p_x_stack.next_pixel(*args)
        return features, self.p_x(features[-1])

    def sample_x(self, variables, rng: Array, latents: dict[str, Array]) -> Array:
        """Draws x ~ p(x|z1,z2) [N, H, W, C], see `sample_pixels`; called without `apply`."""
        return sample_pixels(self, variables, rng, latents)


def sample_pixels(model: PixelHVAE, variables, rng: Array, latents: dict[str, Array]) -> Array:
    """Draws x ~ p(x|z1,z2), pixel by pixel, in one loop that is compiled under `jax.jit`.

    All pixels together cost about one pass through the network, not one pass each: a pixel's
    layers are computed once, from what the row above and the pixel to the left have left behind.

    Args:
      model: in inference mode of its batch norm.
      variables: {'params': ..., 'batch_stats': ...} of the model.
      rng: pixel i = row * W + column of all images is drawn with `fold_in(rng, i)`.
      latents: z1 and z2, [N, D]
    Returns:
      Drawn pixels [N, H, W, C].
    """
    height, width, channels = model.x_shape
    num_images = latents["z1"].shape[0]

    def call(method, *args):
        return model.apply(variables, *args, method=method)

    def row_step(carry, inputs):
        x_above, above, stack_above = carry  # [N, W, C], [L, N, W, F], a tuple of [N, W, F]
        row, z_contribution = inputs
        from_above, stack = call(
            "start_row", x_above, above, stack_above, z_contribution
        )  # [L, N, W, F']

        def pixel_step(carry, inputs):
            x_left, left = carry  # [N, C], [L, N, F]
            column, from_above = inputs
            key = jax.random.fold_in(rng, row * width + column)
            x = jnp.zeros_like(x_left)
            for _ in range(model.colours):  # the same draws each time: one colour more is settled
                features, decoded = call("next_pixel", from_above, x_left, left, x)
                x = model.likelihood.sample(key, *decoded).astype(x.dtype)
            return (x, features), (x, features)

        start = (jnp.zeros_like(x_above[:, 0]), jnp.zeros_like(above[:, :, 0]))
        columns = (jnp.arange(width), jnp.moveaxis(from_above, 2, 0))
        _, (x_row, features) = jax.lax.scan(pixel_step, start, columns)
        x_row = jnp.moveaxis(x_row, 0, 1)
        return (x_row, jnp.moveaxis(features, 0, 2), stack), x_row

    zeros = jnp.zeros((NUM_LAYERS, num_images, width, FEATURES))
    stack = tuple(zeros[:-1]) if model.gated_stacks else ()
    start = (jnp.zeros((num_images, width, channels)), zeros, stack)
    z_contribution = tuple(jnp.moveaxis(part, 1, 0) for part in call("z_contribution", latents))
    _, rows = jax.lax.scan(row_step, start, (jnp.arange(height), z_contribution))
    return jnp.moveaxis(rows, 0, 1)
