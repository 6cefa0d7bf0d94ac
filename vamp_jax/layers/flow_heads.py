"""The ends of encoders whose posterior has a flow: hidden layer [..., F] -> a posterior.

All start at or near the identity: the posterior is the diagonal normal of its base (a Householder
flow's is reflected, which changes nothing of what it can be).
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax

from vamp_jax import flow_posteriors, flows
from vamp_jax.layers.dense import Dense, NormalHead, he_kernel

Array = jax.Array

MADE_WIDTH = 320
SYLVESTER_RANK = 8
zeros = nn.initializers.zeros_init()


def _heads(h: Array, kernel_init: Callable, **shapes: tuple[int, ...]) -> dict[str, Array]:
    """A dense layer for each name; zeros make a flow start as the identity."""
    found = {}
    for name, shape in shapes.items():
        inits = (zeros, zeros) if name in ("u", "r1") else (kernel_init, None)
        flat = Dense(math.prod(shape), *inits, name=name)(h)
        found[name] = flat.reshape(*h.shape[:-1], *shape)
    return found


class PlanarHead(nn.Module):
    """q(z|x) with T planar flows."""

    features: int
    kernel_init: Callable = he_kernel
    num_flows: int = 4

    @nn.compact
    def __call__(self, h: Array) -> flow_posteriors.Planar:
        size = (self.num_flows, self.features)
        found = _heads(h, self.kernel_init, u=size, w=size, b=(self.num_flows,))
        base = NormalHead(self.features, self.kernel_init, name="base")(h)
        return flow_posteriors.Planar(base, **found)


class SylvesterHead(nn.Module):
    """q(z|x) with T Sylvester flows; `make_q` says where Q comes from."""

    features: int
    kernel_init: Callable = he_kernel
    num_flows: int = 4
    make_q: str = "orthogonal"  # or 'householder' or 'triangular': see Q_OF

    @nn.compact
    def __call__(self, h: Array) -> flow_posteriors.Sylvester:
        raw, make, rank = Q_OF[self.make_q](self.features)
        t, shapes = self.num_flows, {"q": (self.num_flows, *raw)} if raw else {}
        shapes |= {"r1": (t, rank, rank), "r2": (t, rank, rank), "b": (t, rank)}
        found = _heads(h, self.kernel_init, **shapes)
        found["q"] = make(found.get("q"), t)
        base = NormalHead(self.features, self.kernel_init, name="base")(h)
        return flow_posteriors.Sylvester(base, **found)


# (shape that the encoder gives, (that, T) -> Q [..., T, D, M], M) for D units.
Q_OF = {
    "orthogonal": lambda dim: (
        (dim, min(SYLVESTER_RANK, dim)),
        lambda q, t: flows.orthonormal(q),
        min(SYLVESTER_RANK, dim),
    ),
    "householder": lambda dim: (
        (min(SYLVESTER_RANK, dim), dim),
        lambda q, t: flows.householder_matrix(q),
        dim,
    ),
    "triangular": lambda dim: ((), lambda q, t: flow_posteriors.triangular_bases(t, dim), dim),
}


class HouseholderHead(nn.Module):
    """q(z|x) with T Householder reflections."""

    features: int
    kernel_init: Callable = he_kernel
    num_flows: int = 4

    @nn.compact
    def __call__(self, h: Array) -> flow_posteriors.Householder:
        found = _heads(h, self.kernel_init, v=(self.num_flows, self.features))
        base = NormalHead(self.features, self.kernel_init, name="base")(h)
        return flow_posteriors.Householder(base, **found)


class InverseAutoregressiveHead(nn.Module):
    """q(z|x) with T inverse autoregressive flows, conditioned on the hidden layer."""

    features: int
    kernel_init: Callable = he_kernel
    num_flows: int = 2

    @nn.compact
    def __call__(self, h: Array) -> flow_posteriors.InverseAutoregressive:
        def init(rng):
            return flows.init_inverse_autoregressive(
                rng,
                self.features,
                num_steps=self.num_flows,
                hidden=(MADE_WIDTH,),
                context_dim=h.shape[-1],
            )

        base = NormalHead(self.features, self.kernel_init, name="base")(h)
        steps = self.param("flow", init)
        return flow_posteriors.InverseAutoregressive(base, h, steps)
