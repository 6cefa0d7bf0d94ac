"""A prior warped by a normalising flow: p(z) = base(f(z)) |det df/dz|.

f is one flow for all components, on the prior's side alone: the posterior stays as it is, and its
encoder, which gives a VampPrior's components, works in the space of f(z). (A flow that posterior
and prior shared would cancel out of the KL.) f starts as the identity, so that training begins at
the base exactly. One pass of f evaluates the density. f is a stack of affine couplings, whose
inverse draws in one pass too, or autoregressive, which takes D passes for that.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from vamp_jax import flows
from vamp_jax.flows.affine import coupling_dim
from vamp_jax.flows.autoregressive import made_dim
from vamp_jax.priors.arrays import widened
from vamp_jax.priors.builders import Encode, Params, entry, standard_normal, vamp
from vamp_jax.priors.checks import check_counts
from vamp_jax.priors.mixture import GaussianMixture, check_mixture, check_points
from vamp_jax.priors.pseudo_inputs import Bounds, Squash, clip
from vamp_jax.priors.rotated import RotatedMixture
from vamp_jax.typed_jit import jitted

Array = jax.Array


class _Flow(NamedTuple):
    """A kind of flow: the map with its ln|det|, its inverse, and D of the first step's params."""

    forward: Callable[..., tuple[Array, Array]]
    inverse: Callable[..., tuple[Array, Array]]
    dim: Callable[[Params], int]


# By the name of the first of the steps that the parameters are a dict of.
_FLOWS = {
    "coupling_0": _Flow(flows.couplings, flows.couplings_inverse, coupling_dim),
    "step_0": _Flow(flows.autoregressive, flows.autoregressive_inverse, made_dim),
}


def _first_step(flow: Params) -> str:
    return next(name for name in _FLOWS if name in flow)


class Warped(NamedTuple):
    """p(z) = base(f(z)) |det df/dz|, f `flows.couplings` or `flows.autoregressive`."""

    base: GaussianMixture | RotatedMixture
    flow: Params

    def log_prob(self, z: Array, *, block_size: int | None = None) -> Array:
        """ln p(z), [..., D] -> [...]; see `priors.log_prob`."""
        check_points("log_prob", z, _diagonal(self.base))
        warped, log_det = _forward(z, self.flow)
        return self.base.log_prob(warped, block_size=block_size) + log_det

    def responsibilities(self, z: Array, *, block_size: int | None = None) -> Array:
        """p(k | z), those of the base at f(z): [..., D] -> [..., K]."""
        check_points("responsibilities", z, _diagonal(self.base))
        warped, _ = _forward(z, self.flow)
        return self.base.responsibilities(warped, block_size=block_size)

    def sample(self, rng: Array, num_samples: int, *, component: int | None = None) -> Array:
        """Draws f^-1(e) of N draws e of the base: [N, D]."""
        drawn = self.base.sample(rng, num_samples, component=component)
        return _backward(drawn, self.flow)[0]

    def component_means(self) -> Array:
        """f^-1 of the components' means: [K, D]."""
        return _backward(self.base.component_means(), self.flow)[0]


def _diagonal(base: GaussianMixture | RotatedMixture) -> GaussianMixture:
    """The mixture before any rotation, which has the same sizes."""
    return base.base if isinstance(base, RotatedMixture) else base


@jitted()
def _forward(z: Array, flow: Params) -> tuple[Array, Array]:
    return _FLOWS[_first_step(flow)].forward(*widened((z, flow)))


@jitted()
def _backward(z: Array, flow: Params) -> tuple[Array, Array]:
    return _FLOWS[_first_step(flow)].inverse(*widened((z, flow)))


def warp(base: GaussianMixture | RotatedMixture, flow: Params) -> Warped:
    """Warps any mixture by a flow: `warp(mixture_of_gaussians(params), params["flow"])`.

    Args:
      base: of a builder, in D dimensions; or one of full covariances (rotated.py).
      flow: the `flow` of `init_flow` or `init_autoregressive_flow` for the same D.
    Raises:
      ValueError: when base is no mixture, flow none of these, or one of another D.
    """
    diagonal = _diagonal(base)
    check_mixture("warp", diagonal)
    if not isinstance(flow, Mapping) or not _FLOWS.keys() & flow.keys():
        raise ValueError(
            "warp: flow must be the 'flow' of init_flow, a dict of couplings, or of "
            "init_autoregressive_flow, one of steps."
        )
    first = _first_step(flow)
    dim = _FLOWS[first].dim(flow[first])
    if dim != diagonal.mean.shape[1]:
        raise ValueError(
            f"warp: the flow was made for D = {dim}, but the components have D = "
            f"{diagonal.mean.shape[1]}."
        )
    return Warped(base, flow)


def flow(params: Params, encode: Encode | None = None, *, latent_dim: int) -> Warped:
    """A flow over N(0, I): the prior of a RealNVP, or an autoregressive one (as VLAE's).

    Args:
      params: `flow`, of `init_flow` or `init_autoregressive_flow`.
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
      params: `pseudo_inputs` (and `weight_logits`) as for `vamp`, and `flow` of `init_flow` or
        `init_autoregressive_flow`: `init_vamp(...) | init_flow(...)` has all.
      encode, bounds, fixed, squash: as for `vamp`.
      stop_components: lets no gradient through the components, so that neither the pseudo-inputs
        nor the encoder learn from the prior: for ablations.
    Raises:
      ValueError: as `vamp`, and when the flow is missing or of another D.
    """
    base = vamp(params, encode, bounds=bounds, fixed=fixed, squash=squash)
    base = without_gradients_of_components(base) if stop_components else base
    return warp(base, entry("vamp_flow", params, "flow"))


def without_gradients_of_components(base: Any) -> Any:
    """The same mixture, with no gradient through its components; its weights still learn."""
    if isinstance(base, RotatedMixture):
        stopped = without_gradients_of_components(base.base)
        return RotatedMixture(stopped, jax.lax.stop_gradient(base.rotation))
    mean, log_var = jax.lax.stop_gradient((base.mean, base.log_var))
    return base._replace(mean=mean, log_var=log_var)


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
    return {"flow": flows.init_couplings(rng, latent_dim, num_layers=num_layers, hidden=hidden)}


def init_autoregressive_flow(
    rng: Array, latent_dim: int, *, num_steps: int = 4, hidden: tuple[int, ...] = (320,)
) -> Params:
    """Returns {"flow": autoregressive steps} at the identity; join it to a base's own.

    Args:
      latent_dim: D. A draw takes D passes of each step, one after the other.
      num_steps: in each a unit depends on those before it, in one order and the other by turns.
      hidden: units of the hidden layers of each step's network.
    """
    name = "init_autoregressive_flow"
    check_counts(name, latent_dim=latent_dim, num_steps=num_steps)
    check_counts(name, **{f"hidden[{i}]": size for i, size in enumerate(hidden)})
    steps = flows.init_autoregressive(rng, latent_dim, num_steps=num_steps, hidden=hidden)
    return {"flow": steps}
