"""The loss: the ELBO's terms of single examples, as pure functions (eq. 1, 2 and section 4).

    L(x) = E_{z ~ q(z|x)} [ ln p(x|z) - beta sum_l ( ln q(z_l|.) - ln p(z_l|.) ) ]

with one draw of z for an example, for every prior. Everything is per example and in nats, a sum
over pixels and latent units; means over examples are taken by those who call.
"""

import dataclasses
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from vamp_jax import distributions, priors

Array = jax.Array

PRIORS = ("standard", "mog", "vamp_data", "vamp")


class Encoded(NamedTuple):
    """All that depends on the images alone: computed once, however many samples follow."""

    x: Array  # [B, H, W, C]
    mean: Array  # of q(z|x) or q(z2|x), [B, D]
    log_var: Array  # [B, D]
    features: Array | None  # what q(z1|x,z2) needs of x, [B, F]; None with one stochastic layer


class Terms(NamedTuple):
    """The terms of single examples, [...] each; ELBO = reconstruction - sum(kl)."""

    reconstruction: Array  # ln p(x|z)
    kl: dict[str, Array]  # ln q(z_l|.) - ln p(z_l|.), one draw, for each stochastic layer

    def elbo(self, beta: float | Array = 1.0) -> Array:
        """ln p(x|z) - beta sum_l KL_l."""
        return self.reconstruction - beta * sum(self.kl.values())


@dataclasses.dataclass(frozen=True)
class Objective:
    """A model with its prior: pure functions of (variables, images, noise).

    `variables` is {'params': {'model': ..., 'prior': ...}, 'batch_stats': ...}.
    """

    model: nn.Module
    prior: str  # one of PRIORS
    proper_logistic: bool = False

    def apply(self, variables: dict[str, Any], *args, method: str, **kwargs):
        """One method of the model."""
        return self.model.apply(self.model_variables(variables), *args, method=method, **kwargs)

    def model_variables(self, variables: dict[str, Any]) -> dict[str, Any]:
        """The variables of the linen module alone."""
        return {"params": variables["params"]["model"], "batch_stats": variables["batch_stats"]}

    def components(self, variables: dict[str, Any], encode=None) -> priors.GaussianMixture:
        """p(z) of the top layer: runs the encoder on the K pseudo-inputs, so call it once.

        Args:
          variables: the model's and the prior's.
          encode: takes the place of the model's own encoder (to share it out over devices).
        """
        params = variables["params"]["prior"]
        encode = encode or (lambda u: self.apply(variables, u, method="encode"))
        if self.prior == "standard":
            return priors.standard_normal(latent_dim=self.model.latent_dim)
        if self.prior == "mog":
            return priors.mixture_of_gaussians(params)
        if self.prior == "vamp_data":
            return priors.vamp_data(params, encode)
        # The paper's hard tanh: outside [0, 1] a pseudo-input has no gradient.
        return priors.vamp(params, encode, bounds=(0.0, 1.0))

    def encode(self, variables: dict[str, Any], x: Array) -> Encoded:
        """Images [B, H, W, C] in [0, 1] -> what depends on them alone."""
        mean, log_var = self.apply(variables, x, method="encode")
        features = None
        if self.model.num_layers == 2:
            features = self.apply(variables, x, method="features")
        return Encoded(x, mean, log_var, features)

    def draw(
        self, variables: dict[str, Any], encoded: Encoded, noise: Array
    ) -> tuple[tuple[Array, ...], tuple[tuple[Array, Array], ...]]:
        """Latents (z,) or (z1, z2) drawn from the posterior, and its (mean, log_var) for each."""
        top = (encoded.mean, encoded.log_var)
        z = distributions.normal_sample(noise[..., -1, :], *top)
        if self.model.num_layers == 1:
            return (z,), (top,)
        lower = self.apply(variables, encoded.features, z, method="encode_z1")
        return (distributions.normal_sample(noise[..., 0, :], *lower), z), (lower, top)

    def terms(
        self,
        variables: dict[str, Any],
        prior: priors.GaussianMixture,
        encoded: Encoded,
        noise: Array,
        **decode_kwargs,
    ) -> tuple[Terms, dict[str, Any]]:
        """One draw of the ELBO's terms for each example and sample.

        Args:
          variables: the model's and the prior's.
          prior: from `components`.
          encoded: B images.
          noise: standard normal, [..., B, L, D]: L stochastic layers, z1 first.
          **decode_kwargs: for models with batch norm: `train`, `row_weight`.
        Returns:
          Terms with leaves [..., B], and the new 'batch_stats' (empty without batch norm).
        """
        latents, posteriors = self.draw(variables, encoded, noise)
        return self.terms_at(variables, prior, encoded.x, latents, posteriors, **decode_kwargs)

    def terms_at(
        self,
        variables: dict[str, Any],
        prior: priors.GaussianMixture,
        x: Array,
        latents: tuple[Array, ...],
        posteriors: tuple[tuple[Array, Array], ...],
        **decode_kwargs,
    ) -> tuple[Terms, dict[str, Any]]:
        """`terms` at latents and their posteriors' parameters as `draw` returns them."""
        z_top = latents[-1]
        kl = {
            "z": distributions.normal_log_prob(z_top, *posteriors[-1])
            - priors.log_prob(z_top, prior)
        }
        if self.model.num_layers == 2:
            p_z1 = self.apply(variables, z_top, method="prior_z1")
            kl = {
                "z1": distributions.normal_log_prob(latents[0], *posteriors[0])
                - distributions.normal_log_prob(latents[0], *p_z1),
                "z2": kl["z"],
            }
        decoded, batch_stats = self.decode(variables, latents, x, **decode_kwargs)
        reconstruction = distributions.pixel_log_prob(
            x, decoded, self.model.likelihood, proper=self.proper_logistic
        )
        return Terms(reconstruction, kl), batch_stats

    def decode(
        self, variables: dict[str, Any], latents: tuple[Array, ...], x: Array, **decode_kwargs
    ) -> tuple[tuple[Array, ...], dict[str, Any]]:
        """p(x|latents)'s parameters [..., H, W, C] and the new 'batch_stats'."""
        if not self.model.autoregressive:
            return self.apply(variables, *latents, method="decode"), variables["batch_stats"]
        if not decode_kwargs.get("train", False):
            decoded = self.apply(variables, *latents, x, method="decode")
            return decoded, variables["batch_stats"]
        decoded, updated = self.apply(
            variables, *latents, x, method="decode", mutable=["batch_stats"], **decode_kwargs
        )
        return decoded, updated["batch_stats"]


def example_noise(rng: Array, index: Array, num_layers: int, latent_dim: int) -> Array:
    """Standard normal noise [N, L, D] for the examples `index` [N], a function of each alone."""

    def one(i):
        return jax.random.normal(jax.random.fold_in(rng, i), (num_layers, latent_dim))

    return jax.vmap(one)(index)
