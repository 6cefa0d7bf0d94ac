"""PixelVAE: one stochastic layer, and a gated PixelCNN as p(x|z), with z a bias of every layer.

Gulrajani et al. 2017 (arXiv 1611.05013); the layers' number and sizes are those of the authors'
code for MNIST. Their encoder has plain convolutions and weight norm; here it is ConvHVAE's. With a
small window the decoder is as VLAE's (Chen et al. 2017, arXiv 1611.02731): it predicts a pixel from
z and its close neighbours alone, so that all else of an image has to go through z. A bias, the same
for all pixels, could not say where in the image one is: there z comes as maps beside the image, as
in PixelHVAE.
"""

import math

import flax.linen as nn
import jax

from vamp_jax.layers import dense, pixel_stacks
from vamp_jax.models import conv_hvae, pixel_decoder, vae

Array = jax.Array

FEATURES = 16
MOST_REACH = (3, *[2] * 12, 0, 0)  # of each layer: 7x7, twelve of 5x5, two of 1x1
WHOLE = sum(MOST_REACH)


def reaches(window: int) -> tuple[int, ...]:
    """How far each layer looks, so that all of them together look exactly as far as the window."""
    found, left = [], window or WHOLE
    for most in MOST_REACH:
        found.append(min(most, left))
        left -= found[-1]
    return tuple(found)


class PixelVAE(pixel_decoder.PixelDecoder, vae.VAE):
    """q(z|x) by gated convolutions; p(x|z) = prod_i p(x_i|x_<i,z). Nothing has `hidden_dim`."""

    window: int = 0  # rows above, and columns at each side, that a pixel sees; 0: WHOLE

    convolutional = True

    def __post_init__(self):
        super().__post_init__()
        conv_hvae.check_images(self)
        self.check_likelihood()

    def setup(self):
        self.q_z_layers = conv_hvae.tower(first=7, middle=5)
        self.q_z = self.posterior(self.latent_dim, self.kernel_init)
        if self.window:
            self.p_x_from_z = dense.GatedDense(2 * math.prod(self.x_shape), self.kernel_init)
        self.setup_pixels()

    @nn.nowrap
    def pixel_stack(self) -> pixel_stacks.GatedStacks:
        """Makes the layers that look at pixels."""
        return pixel_stacks.GatedStacks(
            self.x_shape[-1],
            self.colours,
            z_as_bias=not self.window,
            features=FEATURES,
            reaches=reaches(self.window),
            gain=2.0,
        )

    def encode(self, x: Array):
        """q(z|x): images [..., H, W, C] -> a posterior over [..., D]."""
        return self.q_z(conv_hvae.flat_features(x, self.q_z_layers))

    def z_of(self, latents: dict[str, Array]) -> Array:
        """z as it is, [..., D]; with a window as channels beside the image, [..., H, W, 2 C]."""
        z = latents["z"]
        if not self.window:
            return z
        height, width, channels = self.x_shape
        return self.p_x_from_z(z).reshape(*z.shape[:-1], height, width, 2 * channels)
