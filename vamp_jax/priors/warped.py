"""A prior warped by a normalising flow: p(z) = base(f(z)) |det df/dz|.

f is one stack of affine couplings for all components, on the prior's side alone: the posterior
stays as it is, and its encoder, which gives a VampPrior's components, works in the space of f(z).
(A flow that posterior and prior shared would cancel out of the KL.) f starts as the identity, so
that training begins at the base exactly. One pass of f evaluates the density, one of its inverse
draws from it.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from vamp_jax.flows import couplings, couplings_inverse, init_couplings
from vamp_jax.flows.affine import coupling_dim
from vamp_jax.priors.arrays import widened
from vamp_jax.priors.builders import Encode, Params, entry, standard_normal, vamp
from vamp_jax.priors.checks import check_counts
from vamp_jax.priors.mixture import GaussianMixture, check_mixture, check_points
from vamp_jax.priors.pseudo_inputs import Bounds, Squash, clip
from vamp_jax.priors.rotated import RotatedMixture
from vamp_jax.typed_jit import jitted

Array = jax.Array


class Warped(NamedTuple):
    """p(z) = base(f(z)) |det df/dz|, f the couplings of `flows.couplings`."""

    base: GaussianMixture | RotatedMixture
    flow: Params

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z), [..., D] -> [...]; see `priors.log_prob`."""
        check_points("log_prob", z, _diagonal(self.base))
        warped, log_det = _couplings(z, self.flow)
        return self.base.log_prob(warped, block_size=block_size) + log_det

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(k | z), those of the base at f(z): [..., D] -> [..., K]."""
        check_points("responsibilities", z, _diagonal(self.base))
        warped, _ = _couplings(z, self.flow)
        return self.base.responsibilities(warped, block_size=block_size)

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Draws f^-1(e) of N draws e of the base: [N, D]."""
        drawn = self.base.sample(rng, num_samples, component=component)
        return _couplings_inverse(drawn, self.flow)[0]

    def component_means(self) -> Array:
        """f^-1 of the components' means: [K, D]."""
        return _couplings_inverse(self.base.component_means(), self.flow)[0]


def _diagonal(base: GaussianMixture | RotatedMixture) -> GaussianMixture:
    """The mixture before any rotation, which has the same sizes."""
    return base.base if isinstance(base, RotatedMixture) else base


@jitted()
def _couplings(z: Array, flow: Params) -> tuple[Array, Array]:
    return couplings(*widened((z, flow)))


@jitted()
def _couplings_inverse(z: Array, flow: Params) -> tuple[Array, Array]:
    return couplings_inverse(*widened((z, flow)))


def warp(base: GaussianMixture | RotatedMixture, flow: Params) -> Warped:
    """Warps any mixture by a flow: `warp(mixture_of_gaussians(params), params["flow"])`.

    Args:
      base: of a builder, in D dimensions; or one of full covariances (rotated.py).
      flow: the `flow` of `init_flow` for the same D.
    Raises:
      ValueError: when base is no mixture, flow no stack of couplings, or one of another D.
    """
    diagonal = _diagonal(base)
    check_mixture("warp", diagonal)
    if not isinstance(flow, Mapping) or "coupling_0" not in flow:
        raise ValueError("warp: flow must be the 'flow' of init_flow, a dict of couplings.")
    dim = coupling_dim(flow["coupling_0"])
    if dim != diagonal.mean.shape[1]:
        raise ValueError(
            f"warp: the flow was made for D = {dim}, but the components have D = "
            f"{diagonal.mean.shape[1]}."
        )
    return Warped(base, flow)


def flow(params: Params, encode: Encode | None = None, *, latent_dim: int) -> Warped:
    """A flow over N(0, I): the prior of a RealNVP.

    Args:
      params: `flow`, of `init_flow`.
      encode: unused.
    Raises:
      ValueError: when the flow is missing or of another D.
    """
    base = standard_normal(params, encode, latent_dim=latent_dim)
    return warp(base, entry("flow", params, "flow"))


def vamp_flow(
    params: Params,
    encode: Encode,
    *,
    bounds: Bounds | Mapping[str, Bounds] | None = None,
    fixed: Any = None,
    squash: Squash = clip,
    stop_components: bool = False,
) -> Warped:
    """The warped VampPrior 1/K sum_k N(f(z); mean(u_k), var(u_k)) |det df/dz|.

    Args:
      params: `pseudo_inputs` (and `weight_logits`) as for `vamp`, and `flow` of `init_flow`:
        `init_vamp(...) | init_flow(...)` has all.
      encode, bounds, fixed, squash: as for `vamp`.
      stop_components: lets no gradient through the components, so that neither the pseudo-inputs
        nor the encoder learn from the prior: for ablations.
    Raises:
      ValueError: as `vamp`, and when the flow is missing or of another D.
    """
    base = vamp(params, encode, bounds=bounds, fixed=fixed, squash=squash)
    if stop_components:
        mean, log_var = jax.lax.stop_gradient((base.mean, base.log_var))
        base = base._replace(mean=mean, log_var=log_var)
    return warp(base, entry("vamp_flow", params, "flow"))


def init_flow(
    rng: Array, latent_dim: int, *, num_layers: int = 8, hidden: tuple[int, ...] = (128, 128)
) -> Params:
    """Returns {"flow": couplings} at the identity; join it to a base's own: `init_vamp(...) | ...`.

    Args:
      latent_dim: D.
      num_layers: couplings; each changes one half of z, by turns.
      hidden: units of the hidden layers of each coupling's network.
    """
    check_counts("init_flow", latent_dim=latent_dim, num_layers=num_layers)
    check_counts("init_flow", **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
    return {"flow": init_couplings(rng, latent_dim, num_layers=num_layers, hidden=hidden)}
