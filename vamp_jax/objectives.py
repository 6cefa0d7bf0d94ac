"""The loss: what is maximised for each example. An objective is a value that carries its numbers.

`Elbo(num_samples)` is the mean over M draws of the ELBO's terms (autoencoder.py). `Iwae` is the
importance-weighted bound (Burda et al. 2016, arXiv 1509.00519), with two gradients:

    L_M(x) = E[ ln 1/M sum_m w_m ],    ln w_m = ln p(x|z_m) + beta ( ln p(z_m) - ln q(z_m|x) )

with M independent draws z_m ~ q(z|x), a latent z being (z1, z2) where there are two layers. M = 1
is the ELBO, and L_M grows with M towards ln p(x). Burda et al. have no beta; here it makes the
weights those of a model whose prior is q^(1 - beta) p^beta, so warming up starts from a prior that
costs nothing, and at M = 1 it is the warm-up of the ELBO. Every value is per example and in nats.

The gradient. Write v_m = w_m / sum_j w_j, and z = g(noise, phi) for the draw. The encoder's
parameters phi stand in ln w three times: in the path through z, in the posterior's density at a
given z (its score), and, with a VampPrior, in the prior's components:

    grad_phi L_M = E[ sum_m v_m ( d ln w_m/dz dg/dphi - beta d ln q/dphi + beta d ln p/dphi ) ]

'standard' is just that. 'dreg' (doubly reparameterised: Tucker et al. 2018, arXiv 1810.04152)
exchanges the score for a path: E_q[ f(z) d ln q/dphi ] = E[ df/dz dg/dphi ] holds for f = v_m as a
function of z_m, whose derivative is (v_m - v_m^2) d ln w_m/dz. What remains is

    E[ sum_m v_m ( 1 - beta + beta v_m ) d ln w_m/dz dg/dphi + beta v_m d ln p/dphi ]

(beta = 1: v_m^2, their result): the same mean, and where q(z|x) is the true posterior the first
term is zero, draw by draw. The prior's term is not a score of the sampling distribution and keeps
the weight v_m, as have all parameters of the decoder and the prior. M = 1 is "sticking the
landing" (Roeder et al. 2017, arXiv 1703.09194). The variance is the lower one where q(z|x) is near
the true posterior, and can be the higher one far from it. With a VampPrior less is gained: the
scores of posterior and prior, which partly cancel in 'standard', no longer meet.

With two layers the identity is that of the joint q(z1, z2|x), so:
* phi is held in both densities, but z2 is not held in ln q(z1|x,z2): its mean and variance move
  with z2, which belongs to d ln w/dz. Holding them is right on average for M = 1 only.
* dg/dphi has three parts: z2, z1 at a given z2, and z1 by way of z2. Each is scaled once: latents
  are scaled where they leave for the densities, after z1 has been drawn from the z2 before.

The identity takes ln w_m as a function of z_m alone. Batch norm by the batch's statistics breaks
that (PixelHVAE's masked stack in training): 'dreg' has a bias there, 'standard' has not.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vamp_jax.autoencoder import Autoencoder, Encoded, Terms, Variables
from vamp_jax.network import Draw, Latents

Array = jax.Array

GRADIENTS = ("standard", "dreg")


Bound = tuple[Array, Terms, dict[str, Any]]  # see `Iwae.bound`


@dataclasses.dataclass(frozen=True)
class Elbo:
    """The ELBO, a mean over M draws of z."""

    num_samples: int = 1

    def bound(self, *args: Any, **kwargs: Any) -> Bound:
        """One draw of the bound for each example; see `Iwae.bound`."""
        return _of_log_weights(lambda log_weights: jnp.mean(log_weights, axis=0), *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class FreeBits:
    """The ELBO with free bits (Kingma et al. 2016, arXiv 1606.04934), a mean over M draws of z:

        ln p(x|z) - beta sum_l max( free_nats, ln q(z_l|.) - ln p(z_l|.) )

    where the maximum is over the mean of one example's M draws (theirs is over a batch's; so the
    loss of an example does not depend on the others). Below `free_nats` a KL has no gradient, and a
    smaller one earns nothing: against posterior collapse. The terms that are told are the ELBO's.
    """

    num_samples: int = 1
    free_nats: float = 0.0

    def __post_init__(self):
        if not 0 <= self.free_nats < math.inf:
            raise ValueError(f"FreeBits: free_nats is {self.free_nats}; it must not be negative.")

    def bound(self, *args: Any, **kwargs: Any) -> Bound:
        """One draw of the bound for each example; see `Iwae.bound`."""

        def combine(terms, beta):
            means = _means(terms)
            kl = {layer: jnp.maximum(self.free_nats, value) for layer, value in means.kl.items()}
            return means._replace(kl=kl).elbo(beta)

        return _of_terms(combine, *args, **kwargs)


@dataclasses.dataclass(frozen=True)
class Iwae:
    """The importance-weighted bound of M draws; with M = 1 its value is the ELBO's."""

    num_samples: int
    gradient: str = "standard"  # or 'dreg', see above

    def __post_init__(self):
        if self.gradient not in GRADIENTS:
            raise ValueError(f"Iwae: gradient is {self.gradient!r}; it must be one of {GRADIENTS}.")

    def bound(
        self,
        autoencoder: Autoencoder,
        variables: Variables,
        prior: Any,
        encoded: Encoded,
        noise: Latents,
        *,
        beta: float | Array = 1.0,
        **decode_kwargs,
    ) -> Bound:
        """One draw of ln 1/M sum_m w_m for each example; see above for the formulas.

        Args:
          autoencoder, variables: the network with its prior.
          prior: from `autoencoder.prior_density`, gradients not stopped.
          encoded: B examples, from `autoencoder.encode`.
          noise: standard normal, [M, B, *shape] for each layer.
          beta: weight of ln p(z) - ln q(z|x) in the log-weights, a constant.
          **decode_kwargs: for networks with batch norm: `train`, `row_weight`.
        Returns:
          The bound [B]; the ELBO's terms, means over the M samples, [B] each (values alone, their
          gradient is stopped); the new 'batch_stats' (empty without batch norm).
        Raises:
          ValueError: for noise of another shape, or 'dreg' with a posterior that has no density
            at a given point.
        """
        if self.gradient == "standard":
            args = autoencoder, variables, prior, encoded, noise
            return _of_log_weights(log_mean_exp, *args, beta=beta, **decode_kwargs)
        check_noise(autoencoder, encoded, noise)
        latents, _ = autoencoder.draw(variables, encoded, noise)
        latents, wire = _scale_gradient(latents)
        # ln q constant in phi, and yet a function of the latents.
        held = jax.lax.stop_gradient((variables, encoded))
        drawn = Draw(latents, autoencoder.log_q(*held, latents))
        terms, stats = autoencoder.terms_at(variables, prior, encoded.x, drawn, **decode_kwargs)
        log_weights = terms.elbo(beta)
        beta = jnp.asarray(beta, log_weights.dtype)
        return (
            _log_mean_exp_into_wire(log_weights, beta, wire),
            jax.lax.stop_gradient(_means(terms)),
            stats,
        )


@dataclasses.dataclass(frozen=True)
class Renyi:
    """The variational Renyi bound (Li & Turner 2016, arXiv 1602.02311), of M draws:

        L_alpha(x) = E[ 1/(1 - alpha) ln 1/M sum_m w_m^(1 - alpha) ]

    alpha = 1 is the ELBO, 0 the importance-weighted bound, and -inf VR-max, the largest weight
    alone. Below alpha = 0 it is no lower bound on ln p(x) and is not to be reported as one. The
    gradient weighs each draw by w_m^(1 - alpha), normalised.
    """

    num_samples: int
    alpha: float

    def __post_init__(self):
        if math.isnan(self.alpha) or self.alpha == math.inf:
            raise ValueError(f"Renyi: alpha is {self.alpha}; it must be a number, or -inf.")

    def bound(self, *args: Any, **kwargs: Any) -> Bound:
        """One draw of the bound for each example; see `Iwae.bound`."""
        combine = functools.partial(renyi_mean, alpha=self.alpha)
        return _of_log_weights(combine, *args, **kwargs)


def renyi_mean(log_weights: Array, alpha: float) -> Array:
    """1/(1 - alpha) ln 1/M sum_m w_m^(1 - alpha) over the first axis: [M, ...] -> [...], nats."""
    if alpha == 1.0:
        return jnp.mean(log_weights, axis=0)
    if alpha == -math.inf:
        return jnp.max(log_weights, axis=0)
    return log_mean_exp((1.0 - alpha) * log_weights) / (1.0 - alpha)


Objective = Elbo | FreeBits | Iwae | Renyi  # or anything else with `num_samples` and `bound`


def _of_log_weights(combine: Callable[[Array], Array], *args: Any, **kwargs: Any) -> Bound:
    """A bound that is a function [M, B] -> [B] of the log-weights, its gradient autodiff's."""
    return _of_terms(lambda terms, beta: combine(terms.elbo(beta)), *args, **kwargs)


def _of_terms(
    combine: Callable[[Terms, float | Array], Array],
    autoencoder: Autoencoder,
    variables: Variables,
    prior: Any,
    encoded: Encoded,
    noise: Latents,
    *,
    beta: float | Array = 1.0,
    **decode_kwargs,
) -> Bound:
    """A bound that is a function of the terms [M, B] and beta, its gradient autodiff's."""
    check_noise(autoencoder, encoded, noise)
    terms, batch_stats = autoencoder.terms(variables, prior, encoded, noise, **decode_kwargs)
    return combine(terms, beta), jax.lax.stop_gradient(_means(terms)), batch_stats


def check_noise(autoencoder: Autoencoder, encoded: Encoded, noise: Latents) -> None:
    """Raises a ValueError unless noise is [M, B, *shape] for each layer, M >= 1."""
    (count,) = {len(leaf) for leaf in jax.tree.leaves(encoded.x)}
    shapes = autoencoder.network.latent_shapes
    found = {layer: jnp.shape(part) for layer, part in noise.items()}
    numbers = {shape[0] for shape in found.values() if shape}
    wanted = {layer: (*numbers, count, *shape) for layer, shape in shapes.items()}
    if len(numbers) != 1 or 0 in numbers or found != wanted:
        shown = {layer: ("M", count, *shape) for layer, shape in shapes.items()}
        raise ValueError(f"bound: noise must be {shown} with one M >= 1, not {found}.")


def _means(terms: Terms) -> Terms:
    """Means over the samples: [M, B] -> [B]."""
    return jax.tree.map(lambda term: jnp.mean(term, axis=0), terms)


def log_mean_exp(log_weights: Array) -> Array:
    """ln 1/M sum_m w_m over the first axis: [M, ...] -> [...], in nats."""
    if not jnp.shape(log_weights)[:1] or not len(log_weights):
        raise ValueError(
            f"log_mean_exp: log_weights must be [M, ...] with M >= 1, not {jnp.shape(log_weights)}."
        )
    return jax.nn.logsumexp(log_weights, axis=0) - math.log(len(log_weights))


# The scale 1 - beta + beta v_m of the path through z is known only once z has been used. Going
# backward the order is the right one, so the scale travels as the cotangent of a second output of
# `_scale_gradient`, the wire, which `_log_mean_exp_into_wire` takes in: one pass forward, one back.


@jax.custom_vjp
def _scale_gradient(latents: Latents) -> tuple[Latents, Array]:
    """Latents [M, B, ...] as they are, whose cotangents are multiplied by the wire's [M, B]."""
    first = next(iter(latents.values()))
    return latents, jnp.zeros(first.shape[:2], first.dtype)


def _scale_gradient_forward(latents):
    return _scale_gradient(latents), None


def _scale_gradient_backward(_, cotangents):
    latents, scale = cotangents
    return (jax.tree.map(lambda z: z * jnp.expand_dims(scale, range(2, z.ndim)), latents),)


_scale_gradient.defvjp(_scale_gradient_forward, _scale_gradient_backward)


@jax.custom_vjp
def _log_mean_exp_into_wire(log_weights: Array, beta: Array, wire: Array) -> Array:
    """`log_mean_exp`, whose wire gets the cotangent 1 - beta + beta v_m, not a derivative."""
    del beta, wire
    return log_mean_exp(log_weights)


def _log_mean_exp_forward(log_weights, beta, wire):
    return _log_mean_exp_into_wire(log_weights, beta, wire), (log_weights, beta)


def _log_mean_exp_backward(saved, cotangent):
    log_weights, beta = saved
    share = jax.nn.softmax(log_weights, axis=0)
    return cotangent * share, jnp.zeros_like(beta), 1.0 - beta + beta * share


_log_mean_exp_into_wire.defvjp(_log_mean_exp_forward, _log_mean_exp_backward)
