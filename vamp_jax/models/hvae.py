"""HVAE with two stochastic layers (section 4 and 5): x <- z1, z2 and z1 <- z2."""

import flax.linen as nn
import jax

from vamp_jax import layers

Array = jax.Array


class HVAE(nn.Module):
    """q(z2|x) q(z1|x,z2) and p(x|z1,z2) p(z1|z2); the prior p(z2) is not part of the module.

    Two-level models share these five methods. What depends on x alone comes from `encode` and
    `features`, so that thousands of samples for one image need both only once.
    """

    image_shape: tuple[int, int, int]
    likelihood: str
    latent_dim: int
    hidden_dim: int

    num_layers = 2
    autoregressive = False
    convolutional = False

    def setup(self):
        gated = layers.GatedDense
        self.q_z2_layers = [gated(self.hidden_dim) for _ in range(2)]
        self.q_z2 = layers.GaussianHead(self.latent_dim)
        self.q_z1_from_x = gated(self.hidden_dim)
        self.q_z1_from_z2 = gated(self.hidden_dim)
        self.q_z1_joint = gated(self.hidden_dim)
        self.q_z1 = layers.GaussianHead(self.latent_dim)
        self.p_z1_layers = [gated(self.hidden_dim) for _ in range(2)]
        self.p_z1 = layers.GaussianHead(self.latent_dim)
        self.p_x_from_z1 = gated(self.hidden_dim)
        self.p_x_from_z2 = gated(self.hidden_dim)
        self.p_x_joint = gated(self.hidden_dim)
        self.p_x = layers.PixelHead(self.image_shape, self.likelihood)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """q(z2|x): images [..., H, W, C] -> mean and log-variance, [..., D] each."""
        h = x.reshape(*x.shape[:-3], -1)
        for layer in self.q_z2_layers:
            h = layer(h)
        return self.q_z2(h)

    def features(self, x: Array) -> Array:
        """What q(z1|x,z2) needs of the image: [..., H, W, C] -> [..., F]."""
        return self.q_z1_from_x(x.reshape(*x.shape[:-3], -1))

    def encode_z1(self, features: Array, z2: Array) -> tuple[Array, Array]:
        """q(z1|x,z2): features of x [..., F] and z2 [..., D] -> mean, log-variance [..., D]."""
        return self.q_z1(self.q_z1_joint(features, self.q_z1_from_z2(z2)))

    def prior_z1(self, z2: Array) -> tuple[Array, Array]:
        """p(z1|z2): [..., D] -> mean and log-variance, [..., D] each."""
        h = z2
        for layer in self.p_z1_layers:
            h = layer(h)
        return self.p_z1(h)

    def decode(self, z1: Array, z2: Array) -> tuple[Array, ...]:
        """p(x|z1,z2): [..., D] each -> the likelihood's parameters, [..., H, W, C] each."""
        return self.p_x(self.p_x_joint(self.p_x_from_z1(z1), self.p_x_from_z2(z2)))

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        z2, _ = self.encode(x)
        z1, _ = self.encode_z1(self.features(x), z2)
        self.prior_z1(z2)
        return self.decode(z1, z2)
