"""ConvHVAE: the HVAE with gated convolutions (section 5 and appendix)."""

import math

import jax

from vamp_jax import errors
from vamp_jax.layers import conv
from vamp_jax.models import hvae

Array = jax.Array


class ConvHVAE(hvae.HVAE):
    """q(z2|x) q(z1|x,z2) and p(x|z1,z2) p(z1|z2) as the HVAE, whose methods it has.

    What is between z1 and z2 alone (`prior_z1`, the end of `encode_z1`) is the HVAE's; images
    [..., H, W, C] go through convolutions. Height and width are divisible by 4.
    """

    convolutional = True

    def __post_init__(self):
        super().__post_init__()
        check_images(self)

    def setup(self):
        height, width, _ = self.x_shape
        self.q_z2_layers = tower(first=7, middle=5)
        self.q_z1_x_layers = tower(first=3, middle=3)
        self.q_z1_from_z2 = self.gated((height // 4) * (width // 4) * 6)
        self.setup_between()
        self.setup_decoder()

    def setup_decoder(self):
        """The layers of p(x|z1,z2)."""
        self.p_x_from_z1 = self.gated(self.hidden_dim)
        self.p_x_from_z2 = self.gated(self.hidden_dim)
        self.p_x_joint = self.gated(math.prod(self.x_shape))
        self.p_x_layers = [conv.GatedConv(64, 3) for _ in range(4)]
        self.p_x = conv.Head(self.likelihood, self.x_shape)

    def encode(self, x: Array):
        """q(z2|x): images [..., H, W, C] -> a posterior over [..., D]."""
        return self.q_z2(flat_features(x, self.q_z2_layers))

    def features(self, x: Array) -> Array:
        """What q(z1|x,z2) needs of the image: [..., H, W, C] -> [..., (H/4) (W/4) 6]."""
        return flat_features(x, self.q_z1_x_layers)

    def decode(self, latents: dict[str, Array], x: Array | None = None) -> tuple[Array, ...]:
        """p(x|z1,z2): the likelihood's heads."""
        z1, z2 = latents["z1"], latents["z2"]
        h = self.p_x_joint(self.p_x_from_z1(z1), self.p_x_from_z2(z2))
        h = h.reshape(*h.shape[:-1], *self.x_shape)
        for layer in self.p_x_layers:
            h = layer(h)
        return self.p_x(h)


def check_images(network) -> None:
    """Raises a UsageError unless a network's x_shape is [H, W, C], H and W divisible by 4."""
    if len(network.x_shape) != 3:
        raise errors.UsageError(
            f"{type(network).__name__} needs images [H, W, C], not data of shape "
            f"{network.x_shape}: take a dense model, as configs/hvae.py."
        )
    height, width, _ = network.x_shape
    if height % 4 or width % 4:
        side = 4 * math.ceil(max(height, width) / 4)
        raise errors.UsageError(
            f"{type(network).__name__} needs images whose height and width are divisible by 4, "
            f"not {height}x{width}: crop or pad them (a folder of pictures is scaled by "
            f"--config.image_size={side}), or take a dense model, as configs/hvae.py."
        )


def tower(first: int, middle: int) -> list[conv.GatedConv]:
    """Five gated convolutions, the second and fourth of stride 2; kernel sizes differ."""
    return [
        conv.GatedConv(32, first),
        conv.GatedConv(32, 3, 2),
        conv.GatedConv(64, middle),
        conv.GatedConv(64, 3, 2),
        conv.GatedConv(6, 3),
    ]


def flat_features(x: Array, conv_stack: list[conv.GatedConv]) -> Array:
    """What comes out of a tower: [..., H, W, C] -> [..., (H/4) (W/4) 6]."""
    for layer in conv_stack:
        x = layer(x)
    return x.reshape(*x.shape[:-3], -1)
