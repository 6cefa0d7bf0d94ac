"""A network with its prior and likelihood: the ELBO's terms of single examples (eq. 1 and 2).

    L(x) = E_{z ~ q(z|x)} [ ln p(x|z) - beta sum_l ( ln q(z_l|.) - ln p(z_l|.) ) ]

with one draw of z for an example, for every prior. Every value is of one example and in nats: a
sum over the values of x and the latent units. Callers take means over examples; what is maximised
is in objectives.py.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from vamp_jax import likelihoods, priors
from vamp_jax.likelihoods import Likelihood
from vamp_jax.network import Draw, Latents, Network
from vamp_jax.priors.arrays import in_blocks
from vamp_jax.sequences import num_examples
from vamp_jax.trainable_priors import Prior

Array = jax.Array
Variables = dict[str, Any]  # {'params': {'model', 'prior'}, 'batch_stats', 'constants'}
EXAMPLES = 1000  # training examples that are encoded at a time, where each is a component


class Encoded(NamedTuple):
    """All that depends on x alone: computed once, however many samples follow."""

    x: Any  # [B, ...]
    top: Any  # q of the top layer, a posterior
    features: Any  # what the lower layers need of x; None without
    passed: Any = None  # of `collected`: the Pass, and the noise and parameters that it is of


class Terms(NamedTuple):
    """The terms of single examples, [...] each; ELBO = reconstruction - sum(kl)."""

    reconstruction: Array  # ln p(x|z)
    kl: dict[str, Array]  # ln q(z_l|.) - ln p(z_l|.), one draw, for each stochastic layer

    def elbo(self, beta: float | Array = 1.0) -> Array:
        """ln p(x|z) - beta sum_l KL_l."""
        return self.reconstruction - beta * sum(self.kl.values())


@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """A network with a prior of its top layer and a likelihood, as functions of `Variables`."""

    network: Network
    prior: Prior
    likelihood: Likelihood
    fill: float | None = None  # what an encoder sees of a missing value, which is NaN in x
    encoder_input: Callable[[Any], Any] | None = None  # what it sees of all others; None: x

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the stochastic layers, the top last."""
        return tuple(self.network.latent_shapes)

    @property
    def top(self) -> str:
        """The name of the layer that has the prior."""
        return self.layers[-1]

    def apply(self, variables: Variables, *args, method: str, **kwargs):
        """Calls a method of the network."""
        return self.network.apply(network_variables(variables), *args, method=method, **kwargs)

    @property
    def collects_statistics(self) -> bool:
        """Whether batch norm's statistics are collected by a pass of their own (network.py)."""
        return getattr(self.network, "statistics", None) is not None

    def collected(
        self, variables: Variables, x: Any, noise: Latents, row_weight: Array | None = None
    ) -> tuple[Encoded, dict[str, Any]]:
        """Encodes a batch x [B, ...] and collects its 'batch_stats', which gradients go through.

        Args:
          variables: the network's.
          x: the batch.
          noise: standard normal, [M, B, *shape] for each layer; `terms` of this very noise and
            these very parameters computes nothing again.
          row_weight: 1, or 0 for rows that are not to be collected, [B].
        """
        args = self.seen(x), noise, row_weight
        inside = network_variables(variables)
        passed, found = self.network.apply(
            inside, *args, method="statistics", mutable=["batch_stats"]
        )
        known = passed, noise, inside["params"]
        return Encoded(x, passed.top, passed.features, known), found["batch_stats"]

    def prior_density(self, variables: Variables, encode=None) -> Any:
        """Builds p(z) of the top layer. It encodes the pseudo-inputs, so call it once.

        Args:
          variables: the network's and the prior's.
          encode: replaces the network's encoder, for instance to share its work among devices.
        """
        u = self.pseudo_inputs(variables)
        if encode is None:
            encode = functools.partial(self.encode_components, variables)
            encode = in_flat_memory(encode) if self.prior.of_all_examples else encode
        return self.density(variables, None if u is None else encode(u))

    def density(self, variables: Variables, components: Any) -> Any:
        """Builds p(z) of the top layer from encoded pseudo-inputs (None if it has none)."""
        return self.prior.build(variables["params"]["prior"], variables["constants"], components)

    def encode_components(self, variables: Variables, u: Any) -> Any:
        """Encodes pseudo-inputs [K, ...] as the components (mean, log_var, ...) [K, D]."""
        return self.apply(variables, u, method="encode").component

    def pseudo_inputs(self, variables: Variables) -> Any | None:
        """Returns the pseudo-inputs as the encoder sees them, [K, ...]; None if there are none."""
        if self.prior.pseudo_inputs is None:
            return None
        return self.prior.pseudo_inputs(variables["params"]["prior"], variables["constants"])

    def seen(self, x: Any) -> Any:
        """Returns x as the encoder sees it: `fill` in place of what is missing."""
        x = x if self.encoder_input is None else self.encoder_input(x)
        return x if self.fill is None else jnp.where(jnp.isnan(x), self.fill, x)

    def encode(self, variables: Variables, x: Any) -> Encoded:
        """Computes what depends on x [B, ...] alone."""
        seen = self.seen(x)
        top = self.apply(variables, seen, method="encode")
        return Encoded(x, top, self.apply(variables, seen, method="features"))

    def draw(self, variables: Variables, encoded: Encoded, noise: Latents) -> Draw:
        """Draws the latents of all layers from the posterior, and computes ln q of each layer.

        Args:
          variables: the network's.
          encoded: B examples.
          noise: standard normal, [..., B, *shape] for each layer.
        """
        return Draw(*self.apply(variables, encoded.top, encoded.features, noise, method="infer"))

    def top_centre(self, variables: Variables, x: Any) -> Array:
        """The top layer drawn without noise, [B, D]: the mean of q(z|x) where that is a normal.

        With planar, Sylvester and autoregressive flows it is where they take the base's mean.
        """
        shapes, count = self.network.latent_shapes, num_examples(x)
        noise = {layer: jnp.zeros((count, *shape)) for layer, shape in shapes.items()}
        return self.draw(variables, self.encode(variables, x), noise).latents[self.top]

    def log_q(self, variables: Variables, encoded: Encoded, latents: Latents) -> Latents:
        """Computes ln q(z_l|.) of each layer at given latents, [...] each.

        Raises:
          ValueError: where a layer's posterior has no density at a given point.
        """
        found = self.apply(variables, encoded.top, encoded.features, latents, method="posteriors")
        for layer, posterior in found.items():
            if not hasattr(posterior, "log_prob"):
                raise ValueError(
                    f"log_q: the posterior of {layer}, {type(posterior).__name__}, has no density "
                    "at a given point, since the inverse of its flow is not known."
                )
        return {layer: found[layer].log_prob(z) for layer, z in latents.items()}

    def terms(
        self, variables: Variables, prior: Any, encoded: Encoded, noise: Latents, **decode_kwargs
    ) -> tuple[Terms, dict[str, Any]]:
        """Computes one draw of the ELBO's terms for each example and sample.

        Args:
          variables: the network's and the prior's.
          prior: from `prior_density`.
          encoded: B examples.
          noise: standard normal, [..., B, *shape] for each layer.
          **decode_kwargs: for networks with batch norm: `train`, `row_weight`.
        Returns:
          Terms with leaves [..., B], and the new 'batch_stats' (empty without batch norm).
        """
        if encoded.passed is not None and not decode_kwargs:
            passed, its_noise, its_params = encoded.passed
            if its_noise is noise and its_params is variables["params"]["model"]:
                parts = passed.draw, passed.below, passed.heads
                return self._terms(prior, encoded.x, *parts), variables["batch_stats"]
        drawn = self.draw(variables, encoded, noise)
        return self.terms_at(variables, prior, encoded.x, drawn, **decode_kwargs)

    def terms_at(
        self, variables: Variables, prior: Any, x: Any, drawn: Draw, **decode_kwargs
    ) -> tuple[Terms, dict[str, Any]]:
        """Computes `terms` at given latents, whose ln q is given too."""
        below = self.apply(variables, drawn.latents, method="conditional_priors")
        heads, batch_stats = self.decode(variables, drawn.latents, x, **decode_kwargs)
        return self._terms(prior, x, drawn, below, heads), batch_stats

    def _terms(self, prior: Any, x: Any, drawn: Draw, below: dict[str, Any], heads: Any) -> Terms:
        """Puts together what the network says of a draw."""
        latents, log_q = drawn
        log_p = {layer: density.log_prob(latents[layer]) for layer, density in below.items()}
        log_p[self.top] = priors.log_prob(latents[self.top], prior)
        kl = {layer: log_q[layer] - log_p[layer] for layer in self.layers}
        num_leading = log_q[self.top].ndim
        return Terms(likelihoods.log_prob(self.likelihood, x, heads, num_leading), kl)

    def decode(
        self, variables: Variables, latents: Latents, x: Any, **decode_kwargs
    ) -> tuple[tuple[Array, ...], dict[str, Any]]:
        """The likelihood's heads at these latents, and the new 'batch_stats'."""
        x = None if x is None else self.seen(x)  # a decoder that sees x sees no NaN either
        if not decode_kwargs.get("train", False):
            heads = self.apply(variables, latents, x, method="decode")
            return heads, variables["batch_stats"]
        heads, updated = self.apply(
            variables, latents, x, method="decode", mutable=["batch_stats"], **decode_kwargs
        )
        return heads, updated["batch_stats"]


def in_flat_memory(encode: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """An encoder of many examples [N, ...] that takes `EXAMPLES` of them at a time."""

    def in_turn(x):
        count = num_examples(x)
        if count <= EXAMPLES:
            return encode(x)
        encoded = jax.lax.map(encode, jax.tree.map(lambda leaf: in_blocks(leaf, EXAMPLES), x))
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:])[:count], encoded)

    return in_turn


@functools.partial(jax.jit, static_argnums=0)
def compiled_prior(autoencoder: Autoencoder, variables: Variables) -> Any:
    """`prior_density`, compiled once for each model."""
    return autoencoder.prior_density(variables)


def network_variables(variables: Variables) -> dict[str, Any]:
    """The variables of the linen module alone."""
    return {"params": variables["params"]["model"], "batch_stats": variables["batch_stats"]}
