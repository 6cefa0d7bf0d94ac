"""HVAE with two stochastic layers (section 4 and 5): x <- z1, z2 and z1 <- z2."""

from collections.abc import Callable

import flax.linen as nn
import jax

from vamp_jax.layers import dense
from vamp_jax.likelihoods import Likelihood

Array = jax.Array


class HVAE(nn.Module):
    """q(z2|x) q(z1|x,z2) and p(x|z1,z2) p(z1|z2). A `Network` (network.py).

    What depends on x alone comes from `encode` and `features`, so that thousands of samples of one
    example need both only once.
    """

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
        """Both layers, z2 at the top."""
        return {"z1": (self.latent_dim,), "z2": (self.latent_dim,)}

    def gated(self, features: int) -> dense.GatedDense:
        """A gated dense layer that starts as this network's do."""
        return dense.GatedDense(features, self.kernel_init)

    def setup(self):
        self.q_z2_layers = [self.gated(self.hidden_dim) for _ in range(2)]
        self.q_z1_from_x = self.gated(self.hidden_dim)
        self.q_z1_from_z2 = self.gated(self.hidden_dim)
        self.setup_between()
        self.p_x_from_z1 = self.gated(self.hidden_dim)
        self.p_x_from_z2 = self.gated(self.hidden_dim)
        self.p_x_joint = self.gated(self.hidden_dim)
        self.p_x = dense.Head(self.likelihood, self.x_shape, self.kernel_init)

    def setup_between(self):
        """The layers between z1 and z2, and the ends of the encoders."""
        self.q_z2 = self.posterior(self.latent_dim, self.kernel_init)
        self.q_z1_joint = self.gated(self.hidden_dim)
        self.q_z1 = self.posterior(self.latent_dim, self.kernel_init)
        self.p_z1_layers = [self.gated(self.hidden_dim) for _ in range(2)]
        self.p_z1 = dense.NormalHead(self.latent_dim, self.kernel_init)

    def encode(self, x: Array):
        """q(z2|x): [..., *x_shape] -> a posterior over [..., D]."""
        h = dense.flatten(x, self.x_shape)
        for layer in self.q_z2_layers:
            h = layer(h)
        return self.q_z2(h)

    def features(self, x: Array) -> Array:
        """What q(z1|x,z2) needs of x: [..., *x_shape] -> [..., F]."""
        return self.q_z1_from_x(dense.flatten(x, self.x_shape))

    def encode_z1(self, features: Array, z2: Array):
        """q(z1|x,z2): features of x [..., F] and z2 [..., D] -> a posterior over [..., D]."""
        return self.q_z1(self.q_z1_joint(features, self.q_z1_from_z2(z2)))

    def prior_z1(self, z2: Array):
        """p(z1|z2): [..., D] -> a Normal over [..., D]."""
        h = z2
        for layer in self.p_z1_layers:
            h = layer(h)
        return self.p_z1(h)

    def infer(self, top, features: Array, noise: dict[str, Array]):
        """Draws z2 ~ q(z2|x), then z1 ~ q(z1|x,z2)."""
        z2, log_q_z2 = top.sample_and_log_prob(noise["z2"])
        z1, log_q_z1 = self.encode_z1(features, z2).sample_and_log_prob(noise["z1"])
        return {"z1": z1, "z2": z2}, {"z1": log_q_z1, "z2": log_q_z2}

    def posteriors(self, top, features: Array, latents: dict[str, Array]):
        """q(z1|x,z2) and q(z2|x)."""
        return {"z1": self.encode_z1(features, latents["z2"]), "z2": top}

    def conditional_priors(self, latents: dict[str, Array]):
        """p(z1|z2)."""
        return {"z1": self.prior_z1(latents["z2"])}

    def descend(self, z_top: Array, noise: dict[str, Array]) -> dict[str, Array]:
        """Draws z1 ~ p(z1|z2)."""
        return {"z1": self.prior_z1(z_top).sample(noise["z1"]), "z2": z_top}

    def decode(self, latents: dict[str, Array], x: Array | None = None) -> tuple[Array, ...]:
        """p(x|z1,z2): the likelihood's heads."""
        z1, z2 = latents["z1"], latents["z2"]
        return self.p_x(self.p_x_joint(self.p_x_from_z1(z1), self.p_x_from_z2(z2)))

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        z2 = self.encode(x).base.mean
        z1 = self.encode_z1(self.features(x), z2).base.mean
        self.prior_z1(z2)
        return self.decode({"z1": z1, "z2": z2}, x)
