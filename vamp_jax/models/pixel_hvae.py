"""PixelHVAE: ConvHVAE's encoder and a PixelCNN as p(x|z1,z2) (section 5 and appendix)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers import pixel_stacks
from vamp_jax.models import conv_hvae, pixel_decoder

Array = jax.Array


class PixelHVAE(pixel_decoder.PixelDecoder, conv_hvae.ConvHVAE):
    """q(z2|x) q(z1|x,z2) and p(z1|z2) as ConvHVAE; p(x|z1,z2) = prod_i p(x_i|x_<i,z1,z2)."""

    mask_z: bool = True  # as the authors do: z's maps, too, are seen at earlier pixels only
    gated_stacks: bool = False  # GatedStacks in place of MaskedStack
    axis_name: str | None = None  # of the mapped axis that batch norm sums over

    def __post_init__(self):
        super().__post_init__()
        self.check_likelihood()

    def setup_decoder(self):
        """The layers of p(x|z1,z2)."""
        self.p_x_from_z1 = self.gated(math.prod(self.x_shape))
        self.p_x_from_z2 = self.gated(math.prod(self.x_shape))
        self.setup_pixels()

    @nn.nowrap
    def pixel_stack(self) -> pixel_decoder.Stack:
        """Makes the layers that look at pixels."""
        shared = self.x_shape[-1], self.colours, self.mask_z
        if self.gated_stacks:
            return pixel_stacks.GatedStacks(*shared)
        return pixel_stacks.MaskedStack(*shared, self.axis_name)

    def z_of(self, latents: dict[str, Array]) -> Array:
        """z1 and z2 as channels beside the image: [..., D] each -> [..., H, W, 2 C]."""
        z1, z2 = latents["z1"], latents["z2"]
        shape = (*z1.shape[:-1], *self.x_shape)
        maps = [self.p_x_from_z1(z1).reshape(shape), self.p_x_from_z2(z2).reshape(shape)]
        return jnp.concatenate(maps, axis=-1)
