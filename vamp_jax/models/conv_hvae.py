"""ConvHVAE: the HVAE with gated convolutions (section 5 and appendix)."""

import math

import jax

from vamp_jax import conv_layers, errors, layers
from vamp_jax.models import hvae

Array = jax.Array


class ConvHVAE(hvae.HVAE):
    """q(z2|x) q(z1|x,z2) and p(x|z1,z2) p(z1|z2) as the HVAE, whose methods it has.

    What is between z1 and z2 alone (`prior_z1`, the end of `encode_z1`) is the HVAE's; images go
    through convolutions. Height and width are divisible by 4.
    """

    convolutional = True

    def __post_init__(self):
        super().__post_init__()
        height, width, _ = self.image_shape
        if height % 4 or width % 4:
            raise errors.UsageError(
                f"{type(self).__name__} needs images whose height and width are divisible by 4, "
                f"not {height}x{width}."
            )

    def setup(self):
        height, width, _ = self.image_shape
        gated, gated_conv = layers.GatedDense, conv_layers.GatedConv
        self.q_z2_layers = [
            gated_conv(32, 7),
            gated_conv(32, 3, 2),
            gated_conv(64, 5),
            gated_conv(64, 3, 2),
            gated_conv(6, 3),
        ]
        self.q_z2 = layers.GaussianHead(self.latent_dim)
        self.q_z1_x_layers = [
            gated_conv(32, 3),
            gated_conv(32, 3, 2),
            gated_conv(64, 3),
            gated_conv(64, 3, 2),
            gated_conv(6, 3),
        ]
        self.q_z1_from_z2 = gated((height // 4) * (width // 4) * 6)
        self.q_z1_joint = gated(self.hidden_dim)
        self.q_z1 = layers.GaussianHead(self.latent_dim)
        self.p_z1_layers = [gated(self.hidden_dim) for _ in range(2)]
        self.p_z1 = layers.GaussianHead(self.latent_dim)
        self.setup_decoder()

    def setup_decoder(self):
        """The layers of p(x|z1,z2)."""
        self.p_x_from_z1 = layers.GatedDense(self.hidden_dim)
        self.p_x_from_z2 = layers.GatedDense(self.hidden_dim)
        self.p_x_joint = layers.GatedDense(math.prod(self.image_shape))
        self.p_x_layers = [conv_layers.GatedConv(64, 3) for _ in range(4)]
        self.p_x = conv_layers.ConvHead(self.image_shape[-1], self.likelihood)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """q(z2|x): images [..., H, W, C] -> mean and log-variance, [..., D] each."""
        return self.q_z2(_flat_features(x, self.q_z2_layers))

    def features(self, x: Array) -> Array:
        """What q(z1|x,z2) needs of the image: [..., H, W, C] -> [..., (H/4) (W/4) 6]."""
        return _flat_features(x, self.q_z1_x_layers)

    def decode(self, z1: Array, z2: Array) -> tuple[Array, ...]:
        """p(x|z1,z2): [..., D] each -> the likelihood's parameters, [..., H, W, C] each."""
        h = self.p_x_joint(self.p_x_from_z1(z1), self.p_x_from_z2(z2))
        h = h.reshape(*h.shape[:-1], *self.image_shape)
        for layer in self.p_x_layers:
            h = layer(h)
        return self.p_x(h)


def _flat_features(x, conv_stack):
    for layer in conv_stack:
        x = layer(x)
    return x.reshape(*x.shape[:-3], -1)
