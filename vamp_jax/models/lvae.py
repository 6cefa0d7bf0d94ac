"""Ladder VAE (Soenderby et al. 2016, arXiv 1602.02282): L layers, x <- z1 <- z2 <- ... <- zL.

    p(x, z) = p(x|z1) p(z1|z2) ... p(z_{L-1}|zL) p(zL)
    q(z|x)  = q(zL|x) q(z_{L-1}|x, zL) ... q(z1|x, z2)

A deterministic pass upward gives a normal N(m_l, s_l) of each layer from x alone. Going down, q of
a layer is the product of that normal with p(z_l|z_{l+1}), which has the precisions' sum:

    1/var = 1/s_l + 1/p_l,    mean = var ( m_l / s_l + mu_l / p_l )

At the top q is the upward pass alone, so a VampPrior's components need no sampling. Each layer has
half the units of the one below, as published (64-32-16-8-4 latents, 512-256-128-64-32 hidden).

Here q shares p(z_l|z_{l+1}) itself. All dense layers have batch norm but the output and the top's
own head (a flow's has none either).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vamp_jax.layers import dense
from vamp_jax.layers.collected_norm import NormedMLP, NormedNormalHead
from vamp_jax.likelihoods import Likelihood
from vamp_jax.network import Draw, Latents, Pass
from vamp_jax.posteriors import Normal

Array = jax.Array


def halved(lowest: int, num_layers: int) -> tuple[int, ...]:
    """Widths of hidden layers, the lowest first, each half of the one before, at least 1."""
    return tuple(max(1, lowest // 2**layer) for layer in range(num_layers))


def doubled(top: int, num_layers: int) -> tuple[int, ...]:
    """Widths of stochastic layers, the lowest first, each twice the one above."""
    return tuple(top * 2**layer for layer in reversed(range(num_layers)))


def product(a: Normal, b: Normal) -> Normal:
    """The normal that is proportional to the product of two normals, [..., D]."""
    share = jax.nn.sigmoid(b.log_var - a.log_var)  # of a's precision in the sum
    mean = share * a.mean + (1.0 - share) * b.mean
    return Normal(mean, -jnp.logaddexp(-a.log_var, -b.log_var))


class LVAE(nn.Module):
    """A ladder of L layers. A `Network` (network.py), whose batch norm is `statistics`.

    `row_weight` [B], 1 for real rows and 0 for padding, is for collecting the statistics.
    """

    x_shape: tuple[int, ...]
    likelihood: Likelihood
    latent_dim: int  # of the top layer
    hidden_dim: int  # of the lowest
    kernel_init: Callable = dense.he_kernel
    posterior: Callable[..., nn.Module] = dense.NormalHead  # of the top layer
    num_layers: int = 5
    axis_name: str | None = None  # of the mapped axis that batch norm sums over

    sample_x = None
    convolutional = False

    @property
    def latent_shapes(self) -> dict[str, tuple[int, ...]]:
        """z1 to zL, zL at the top."""
        widths = doubled(self.latent_dim, self.num_layers)
        return {f"z{n}": (width,) for n, width in enumerate(widths, 1)}

    def setup(self):
        latent = doubled(self.latent_dim, self.num_layers)
        hidden = halved(self.hidden_dim, self.num_layers)
        shared = self.kernel_init, self.axis_name
        self.up = [NormedMLP(width, *shared) for width in hidden]
        self.q_heads = [NormedNormalHead(width, *shared) for width in latent[:-1]]
        self.q_top = self.posterior(latent[-1], self.kernel_init)
        self.down = [NormedMLP(width, *shared) for width in hidden[1:]]
        self.p_heads = [NormedNormalHead(width, *shared) for width in latent[:-1]]
        self.p_x_layers = NormedMLP(hidden[0], *shared)
        self.p_x = dense.Head(self.likelihood, self.x_shape, self.kernel_init)

    def _upward(self, x: Array, row_weight: Array | None = None) -> list[Array]:
        """The hidden layers from the lowest to the top, [..., F_l] each."""
        h, found = dense.flatten(x, self.x_shape), []
        for layer in self.up:
            h = layer(h, row_weight)
            found.append(h)
        return found

    def _normals(self, hidden: list[Array], row_weight: Array | None = None) -> dict[str, Normal]:
        """What x says of each layer but the top."""
        heads = zip(self.q_heads, hidden, strict=False)
        return {f"z{n}": head(h, row_weight) for n, (head, h) in enumerate(heads, 1)}

    def _prior(self, layer: int, above: Array, row_weight: Array | None = None) -> Normal:
        """p(z_l|z_{l+1}): [..., D_{l+1}] -> a Normal over [..., D_l]; layers from 1."""
        return self.p_heads[layer - 1](self.down[layer - 1](above, row_weight), row_weight)

    def encode(self, x: Array):
        """q(zL|x): [..., *x_shape] -> a posterior over [..., D_L]."""
        return self.q_top(self._upward(x)[-1])

    def features(self, x: Array) -> dict[str, Normal]:
        """What x says of the layers below the top, a Normal each."""
        return self._normals(self._upward(x))

    def infer(self, top, features: dict[str, Normal], noise: Latents) -> Draw:
        """Draws zL ~ q(zL|x), then each layer from q(z_l|x, z_{l+1})."""
        return self._downward(top, features, noise)[0]

    def _downward(self, top, features, noise: Latents, row_weight: Array | None = None):
        """The draw, and p(z_l|z_{l+1}) of the layers below the top."""
        name = f"z{self.num_layers}"
        z, log_q = top.sample_and_log_prob(noise[name])
        latents, log_qs, priors = {name: z}, {name: log_q}, {}
        for layer in reversed(range(1, self.num_layers)):
            name = f"z{layer}"
            priors[name] = self._prior(layer, z, row_weight)
            posterior = product(features[name], priors[name])
            z, log_qs[name] = posterior.sample_and_log_prob(noise[name])
            latents[name] = z
        return Draw(_upwards(latents), _upwards(log_qs)), _upwards(priors)

    def posteriors(self, top, features: dict[str, Normal], latents: Latents):
        """q(z_l|x, z_{l+1}) of every layer."""
        below = {
            name: product(features[name], prior)
            for name, prior in self.conditional_priors(latents).items()
        }
        return below | {f"z{self.num_layers}": top}

    def conditional_priors(self, latents: Latents) -> dict[str, Normal]:
        """p(z_l|z_{l+1}) of every layer but the top."""
        layers = range(1, self.num_layers)
        return {f"z{layer}": self._prior(layer, latents[f"z{layer + 1}"]) for layer in layers}

    def descend(self, z_top: Array, noise: Latents) -> Latents:
        """Draws each layer from p(z_l|z_{l+1})."""
        z, latents = z_top, {f"z{self.num_layers}": z_top}
        for layer in reversed(range(1, self.num_layers)):
            z = latents[f"z{layer}"] = self._prior(layer, z).sample(noise[f"z{layer}"])
        return _upwards(latents)

    def decode(self, latents: Latents, x: Array | None = None) -> tuple[Array, ...]:
        """p(x|z1): the likelihood's heads."""
        return self.p_x(self.p_x_layers(latents["z1"]))

    def statistics(self, x: Array, noise: Latents, row_weight: Array | None = None) -> Pass:
        """Passes a batch [B, ...] with noise [M, B, ...] through every layer, to collect by."""
        hidden = self._upward(x, row_weight)
        top, features = self.q_top(hidden[-1]), self._normals(hidden, row_weight)
        draw, below = self._downward(top, features, noise, row_weight)
        heads = self.p_x(self.p_x_layers(draw.latents["z1"], row_weight))
        return Pass(top, features, draw, below, heads)

    def __call__(self, x: Array) -> None:
        """Passes through every layer once; for `init` only."""
        shapes = self.latent_shapes
        self.statistics(x, {name: jnp.zeros((1, len(x), *shape)) for name, shape in shapes.items()})


def _upwards(by_layer: dict) -> dict:
    """In the order of the layers, the top last."""
    return dict(reversed(by_layer.items()))
