"""VAE with one stochastic layer (section 5): x <- z."""

import flax.linen as nn
import jax

from vamp_jax import layers

Array = jax.Array


class VAE(nn.Module):
    """q(z|x) and p(x|z): two gated layers each.

    A module says what the model is; it knows nothing of priors, losses or devices. Images are
    [..., H, W, C] in [0, 1].
    """

    image_shape: tuple[int, int, int]
    likelihood: str
    latent_dim: int
    hidden_dim: int

    num_layers = 1
    autoregressive = False
    convolutional = False

    def setup(self):
        self.q_z_layers = [layers.GatedDense(self.hidden_dim) for _ in range(2)]
        self.q_z = layers.GaussianHead(self.latent_dim)
        self.p_x_layers = [layers.GatedDense(self.hidden_dim) for _ in range(2)]
        self.p_x = layers.PixelHead(self.image_shape, self.likelihood)

    def encode(self, x: Array) -> tuple[Array, Array]:
        """q(z|x): images [..., H, W, C] -> mean and log-variance, [..., D] each."""
        h = x.reshape(*x.shape[:-3], -1)
        for layer in self.q_z_layers:
            h = layer(h)
        return self.q_z(h)

    def decode(self, z: Array) -> tuple[Array, ...]:
        """p(x|z): [..., D] -> the likelihood's parameters, [..., H, W, C] each."""
        h = z
        for layer in self.p_x_layers:
            h = layer(h)
        return self.p_x(h)

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        mean, _ = self.encode(x)
        return self.decode(mean)
