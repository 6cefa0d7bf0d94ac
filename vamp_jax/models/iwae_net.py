"""The two-layer network of Burda et al. (2016, arXiv 1509.00519), whose q goes upward.

    p(x, z) = p(x|z1) p(z1|z2) p(z2),    q(z|x) = q(z1|x) q(z2|z1)

each conditional with two tanh layers. Upper layers have half the units of the lower ones: 200 and
100 hidden, 100 and 50 latent, as published. q(z2|x) itself is no known density; what stands for it,
as a component of a VampPrior, is q(z2|z1) at the mean of q(z1|x).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers import dense
from vamp_jax.likelihoods import Likelihood
from vamp_jax.network import Latents
from vamp_jax.posteriors import Normal

Array = jax.Array


class AtTheMean(NamedTuple):
    """q(z2|z1) at the mean of q(z1|x): what stands for q(z2|x), which is no normal."""

    given: Any  # a posterior

    @property
    def base(self) -> Normal:
        """Its normal before any flow."""
        return self.given.base

    @property
    def component(self) -> Any:
        """What a VampPrior takes."""
        return self.given.component


class Tanh(nn.Module):
    """Two tanh layers: [..., F] -> [..., features]."""

    features: int
    kernel_init: Callable

    @nn.compact
    def __call__(self, h: Array) -> Array:
        for name in ("first", "second"):
            h = nn.tanh(dense.Dense(self.features, self.kernel_init, name=name)(h))
        return h


class IWAENet(nn.Module):
    """q(z1|x) q(z2|z1) and p(x|z1) p(z1|z2). A `Network` (network.py)."""

    x_shape: tuple[int, ...]
    likelihood: Likelihood
    latent_dim: int  # of z2; z1 has twice as many
    hidden_dim: int  # between x and z1; half as many between z1 and z2
    kernel_init: Callable = dense.he_kernel
    posterior: Callable[..., nn.Module] = dense.NormalHead

    sample_x = None
    convolutional = False

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """Both layers, z2 at the top."""
        return {"z1": (2 * self.latent_dim,), "z2": (self.latent_dim,)}

    def setup(self):
        lower, upper = self.hidden_dim, max(1, self.hidden_dim // 2)
        self.q_z1_layers = Tanh(lower, self.kernel_init)
        self.q_z1 = self.posterior(2 * self.latent_dim, self.kernel_init)
        self.q_z2_layers = Tanh(upper, self.kernel_init)
        self.q_z2 = self.posterior(self.latent_dim, self.kernel_init)
        self.p_z1_layers = Tanh(upper, self.kernel_init)
        self.p_z1 = dense.NormalHead(2 * self.latent_dim, self.kernel_init)
        self.p_x_layers = Tanh(lower, self.kernel_init)
        self.p_x = dense.Head(self.likelihood, self.x_shape, self.kernel_init)

    def encode(self, x: Array) -> AtTheMean:
        """q(z2|z1) at the mean of q(z1|x): [..., *x_shape] -> over [..., D].

        With planar, Sylvester and autoregressive flows where they take their base's mean.
        """
        q_z1 = self.features(x)
        z1, _ = q_z1.sample_and_log_prob(jnp.zeros_like(q_z1.base.mean))
        return AtTheMean(self._above(z1))

    def features(self, x: Array):
        """q(z1|x): [..., *x_shape] -> a posterior over [..., 2 D]."""
        return self.q_z1(self.q_z1_layers(dense.flatten(x, self.x_shape)))

    def _above(self, z1: Array):
        """q(z2|z1): [..., 2 D] -> a posterior over [..., D]."""
        return self.q_z2(self.q_z2_layers(z1))

    def infer(self, top: AtTheMean, features, noise: Latents):
        """Draws z1 ~ q(z1|x), then z2 ~ q(z2|z1)."""
        z1, log_q_z1 = features.sample_and_log_prob(noise["z1"])
        z2, log_q_z2 = self._above(z1).sample_and_log_prob(noise["z2"])
        return {"z1": z1, "z2": z2}, {"z1": log_q_z1, "z2": log_q_z2}

    def posteriors(self, top: AtTheMean, features, latents: Latents):
        """q(z1|x) and q(z2|z1)."""
        return {"z1": features, "z2": self._above(latents["z1"])}

    def prior_z1(self, z2: Array) -> Normal:
        """p(z1|z2): [..., D] -> a Normal over [..., 2 D]."""
        return self.p_z1(self.p_z1_layers(z2))

    def conditional_priors(self, latents: Latents) -> dict[str, Normal]:
        """p(z1|z2)."""
        return {"z1": self.prior_z1(latents["z2"])}

    def descend(self, z_top: Array, noise: Latents) -> Latents:
        """Draws z1 ~ p(z1|z2)."""
        return {"z1": self.prior_z1(z_top).sample(noise["z1"]), "z2": z_top}

    def decode(self, latents: Latents, x: Array | None = None) -> tuple[Array, ...]:
        """p(x|z1): the likelihood's heads."""
        return self.p_x(self.p_x_layers(latents["z1"]))

    def __call__(self, x: Array) -> tuple[Array, ...]:
        """Passes through every layer once; for `init` only."""
        z1 = self.features(x).base.mean
        self.prior_z1(self._above(z1).base.mean)
        return self.decode({"z1": z1})
