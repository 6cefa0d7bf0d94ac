"""A PixelCNN as p(x|z) = prod_i p(x_i|x_<i,z): what networks with one share, and how they draw."""

import jax
import jax.numpy as jnp

from vamp_jax import errors
from vamp_jax.layers import conv, pixel_stacks

Array = jax.Array
Stack = pixel_stacks.MaskedStack | pixel_stacks.GatedStacks


class PixelDecoder:
    """The decoder's part of a network of images [H, W, C].

    A pixel's colours are one x_i where the likelihood takes them together (a mixture of logistics
    for RGB). Where it takes each by itself they are three, red before green before blue. A network
    has `pixel_stack()`, which makes the layers, `setup_pixels` in its `setup`, and `z_of(latents)`,
    what the layers take for z.
    """

    def check_likelihood(self):
        """Raises a UsageError for a likelihood that pixels cannot be drawn from one by one."""
        shapes = self.likelihood.heads(self.x_shape)
        if any(shapes[name] for name in self.likelihood.free):
            raise errors.UsageError(
                f"{type(self).__name__} draws pixel by pixel and takes no likelihood with a "
                "parameter a pixel: take another variance, or another model."
            )

    @property
    def colours(self) -> int:
        """How many numbers of a pixel are predicted one after the other."""
        return 1 if self.likelihood.event_axes else self.x_shape[-1]

    def setup_pixels(self):
        """The layers that look at pixels, and the heads."""
        self.p_x_stack = self.pixel_stack()
        self.p_x = conv.Head(self.likelihood, self.x_shape, self.colours)

    def decode(
        self,
        latents: dict[str, Array],
        x: Array | None = None,
        *,
        train: bool = False,
        row_weight: Array | None = None,
    ) -> tuple[Array, ...]:
        """p(x_i|x_<i,z) for every pixel i: the likelihood's heads.

        Args:
          latents: of every layer, [..., D]
          x: [..., H, W, C], with as many leading axes as z or fewer (one image, many samples).
          train: batch norm, if any, by the batch's statistics; 'batch_stats' must be mutable.
          row_weight: 1 for real rows and 0 for padding, of z's leading axes.
        Returns:
          [..., H, W, C] each.
        """
        z = self.z_of(latents)
        return self.p_x(self.p_x_stack(x, z, train=train, row_weight=row_weight))

    def z_contribution(self, latents: dict[str, Array]):
        """See the stack's method; from latents [N, D]."""
        return self.p_x_stack.z_contribution(self.z_of(latents))

    def start_row(self, *args):
        """See the stack's method."""
        return self.p_x_stack.start_row(*args)

    def next_pixel(self, *args) -> tuple[Array, tuple[Array, ...]]:
        """See the stack's method; and p(x_i|.)'s parameters, [N, C] each."""
        features = self.p_x_stack.next_pixel(*args)
        return features, self.p_x(features[-1])

    def sample_x(self, variables, rng: Array, latents: dict[str, Array]) -> Array:
        """Draws x ~ p(x|z) [N, H, W, C], see `sample_pixels`; called without `apply`."""
        return sample_pixels(self, variables, rng, latents)


def sample_pixels(model, variables, rng: Array, latents: dict[str, Array]) -> Array:
    """Draws x ~ p(x|z), pixel by pixel, in one loop that is compiled under `jax.jit`.

    All pixels together cost about one pass through the network, not one pass each: a pixel's
    layers are computed once, from what the rows above and the pixels to the left have left behind,
    of which R are kept, as many as the layer that looks furthest needs.

    Args:
      model: a network with a `PixelDecoder`, in inference mode of its batch norm.
      variables: {'params': ..., 'batch_stats': ...} of the model.
      rng: pixel i = row * W + column of all images is drawn with `fold_in(rng, i)`.
      latents: of every layer, [N, D]
    Returns:
      Drawn pixels [N, H, W, C].
    """
    height, width, channels = model.x_shape
    num_images = len(next(iter(latents.values())))

    def call(method, *args):
        return model.apply(variables, *args, method=method)

    of_rows, everywhere = call("z_contribution", latents)

    def row_step(carry, inputs):
        x_above, above, kept = carry  # [R, N, W, C], [L, R, N, W, F], a tuple of [R, N, W, F]
        row, of_row = inputs
        z_contribution = of_row, everywhere
        from_above, kept_of_row = call("start_row", x_above, above, kept, z_contribution)

        def pixel_step(carry, inputs):
            x_left, left = carry  # [R, N, C], [L, R, N, F]
            column, from_above = inputs
            key = jax.random.fold_in(rng, row * width + column)
            x = jnp.zeros_like(x_left[0])
            for _ in range(model.colours):  # the same draws each time: one colour more is settled
                features, decoded = call("next_pixel", from_above, x_left, left, x)
                x = model.likelihood.sample(key, *decoded).astype(x.dtype)
            return (_after(x_left, x), _after(left, features, axis=1)), (x, features)

        start = (jnp.zeros_like(x_above[:, :, 0]), jnp.zeros_like(above[:, :, :, 0]))
        columns = (jnp.arange(width), jnp.moveaxis(from_above, 2, 0))
        _, (x_row, features) = jax.lax.scan(pixel_step, start, columns)
        x_row, features = jnp.moveaxis(x_row, 0, 1), jnp.moveaxis(features, 0, 2)
        kept = tuple(_after(rows, row) for rows, row in zip(kept, kept_of_row, strict=True))
        return (_after(x_above, x_row), _after(above, features, axis=1), kept), x_row

    stack = model.pixel_stack()
    zeros = jnp.zeros((stack.num_layers, stack.reach, num_images, width, stack.features))
    x_above = jnp.zeros((stack.reach, num_images, width, channels))
    start = (x_above, zeros, tuple(zeros[: stack.num_kept]))
    by_row = (jnp.arange(height), tuple(jnp.moveaxis(part, 1, 0) for part in of_rows))
    _, rows = jax.lax.scan(row_step, start, by_row)
    return jnp.moveaxis(rows, 0, 1)


def _after(kept: Array, newest: Array, axis: int = 0) -> Array:
    """What is kept, with the newest at the end and the oldest dropped."""
    kept = jax.lax.slice_in_dim(kept, 1, None, axis=axis)
    return jnp.concatenate([kept, jnp.expand_dims(newest, axis)], axis=axis)
