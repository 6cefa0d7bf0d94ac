"""VAE with one stochastic layer (section 5): x <- z."""

from collections.abc import Callable

import flax.linen as nn
import jax

from vamp_jax.layers import dense
from vamp_jax.likelihoods import Likelihood

Array = jax.Array


class VAE(nn.Module):
    """q(z|x) and p(x|z): two gated layers each. A `Network` (network.py)."""

    x_shape: tuple[int, ...]
    likelihood: Likelihood
    latent_dim: int
    hidden_dim: int
    kernel_init: Callable = dense.he_kernel
    posterior: Callable[..., nn.Module] = dense.NormalHead

    sample_x = None
    convolutional = False

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """The only layer, z."""
        return {"z": (self.latent_dim,)}

    def setup(self):
        gated = [dense.GatedDense(self.hidden_dim, self.kernel_init) for _ in range(4)]
        self.q_z_layers, self.p_x_layers = gated[:2], gated[2:]
        self.q_z = self.posterior(self.latent_dim, self.kernel_init)
        self.p_x = dense.Head(self.likelihood, self.x_shape, self.kernel_init)

    def encode(self, x: Array):
        """q(z|x): [..., *x_shape] -> a posterior over [..., D]."""
        h = dense.flatten(x, self.x_shape)
        for layer in self.q_z_layers:
            h = layer(h)
        return self.q_z(h)

    def features(self, x: Array) -> None:
        """Nothing else of x is needed."""

    def infer(self, top, features: None, noise: dict[str, Array]):
        """Draws z ~ q(z|x)."""
        z, log_q = top.sample_and_log_prob(noise["z"])
        return {"z": z}, {"z": log_q}

    def posteriors(self, top, features: None, latents: dict[str, Array]):
        """q(z|x)."""
        return {"z": top}

    def conditional_priors(self, latents: dict[str, Array]):
        """None: the only layer is the top."""
        return {}

    def descend(self, z_top: Array, noise: dict[str, Array]) -> dict[str, Array]:
        """z alone."""
        return {"z": z_top}

    def decode(self, latents: dict[str, Array], x: Array | None = None) -> tuple[Array, ...]:
        """p(x|z): the likelihood's heads."""
        h = latents["z"]
        for layer in self.p_x_layers:
            h = layer(h)
        return self.p_x(h)

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        return self.decode({"z": self.encode(x).base.mean}, x)
