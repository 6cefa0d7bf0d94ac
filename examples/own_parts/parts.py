"""A part of each kind, outside the package: config.py beside this file names them.

Each function or class stands for one name of a config, `parts:NAME`, and takes what an entry of the
tables in vamp_jax/choices.py takes. docs/extending.md goes through them.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax.layers.dense import Dense, Head, flatten
from vamp_jax.likelihoods import Likelihood
from vamp_jax.trainable_priors import Prior


def rings(config, data_dir):
    """Data: points on two rings, with outliers. Arrays are named as in a .npz."""
    rng = np.random.RandomState(0)
    radius, angle = rng.choice([1.0, 2.0], 600), rng.uniform(0, 2 * np.pi, 600)
    points = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return {"x": points + 0.05 * rng.standard_t(3, points.shape)}


LAPLACE = Likelihood(
    name="laplace",
    heads=lambda shape: {"median": shape, "log_scale": ()},
    log_prob=lambda x, median, log_scale: jax.scipy.stats.laplace.logpdf(
        x, median, jnp.exp(log_scale)
    ),
    mean=lambda median, log_scale: median,
    sample=lambda rng, median, log_scale: (
        median + jnp.exp(log_scale) * jax.random.laplace(rng, median.shape)
    ),
    from_stored=lambda stored, scale: jnp.asarray(stored, jnp.float32),
    support=(-np.inf, np.inf),
    free=("log_scale",),
)


def laplace(config, dataset):
    """Likelihood: a Laplace density, for outliers; always the same value, or JAX compiles again."""
    return LAPLACE


class StudentT(NamedTuple):
    """The density of the prior below: independent Student's t with 5 degrees of freedom."""

    log_scale: jax.Array  # [D]

    def log_prob(self, z, *, block_size=None):
        return jax.scipy.stats.t.logpdf(z, 5.0, scale=jnp.exp(self.log_scale)).sum(-1)

    def sample(self, rng, num_samples):
        drawn = jax.random.t(rng, 5.0, (num_samples, len(self.log_scale)))
        return jnp.exp(self.log_scale) * drawn

    def responsibilities(self, z):
        return jnp.ones((*z.shape[:-1], 1))


STUDENT_T = Prior(
    init=lambda rng, start: ({"log_scale": jnp.zeros(start.latent_dim)}, {}),
    build=lambda params, constants, components: StudentT(params["log_scale"]),
)


def student_t(config, support):
    """Prior: Student's t with learned scales."""
    return STUDENT_T


class OneLayer(nn.Module):
    """Network: one hidden layer each way. It is made with these six fields."""

    x_shape: tuple[int, ...]
    likelihood: Likelihood
    latent_dim: int
    hidden_dim: int
    kernel_init: Callable
    posterior: Callable[..., nn.Module]
    sample_x = None  # x is not drawn value by value
    convolutional = False

    @property
    def latent_shapes(self):
        return {"z": (self.latent_dim,)}

    def setup(self):
        self.up = Dense(self.hidden_dim, self.kernel_init)
        self.q_z = self.posterior(self.latent_dim, self.kernel_init)
        self.down = Dense(self.hidden_dim, self.kernel_init)
        self.p_x = Head(self.likelihood, self.x_shape, self.kernel_init)

    def encode(self, x):
        return self.q_z(nn.silu(self.up(flatten(x, self.x_shape))))

    def features(self, x):
        return None  # posteriors of lower layers would need it

    def infer(self, top, features, noise):
        z, log_q = top.sample_and_log_prob(noise["z"])
        return {"z": z}, {"z": log_q}

    def posteriors(self, top, features, latents):
        return {"z": top}

    def conditional_priors(self, latents):
        return {}  # of layers below the top: none

    def descend(self, z_top, noise):
        return {"z": z_top}

    def decode(self, latents, x=None):
        return self.p_x(nn.silu(self.down(latents["z"])))

    def __call__(self, x):
        return self.decode({"z": self.encode(x).base.mean})


@dataclasses.dataclass(frozen=True)
class WeightedElbo:
    """The ELBO with another weight of its KL."""

    weight: float
    num_samples: int = 1

    def bound(
        self, autoencoder, variables, prior, encoded, noise, *, beta=1.0, **decode_kwargs: Any
    ):
        terms, stats = autoencoder.terms(variables, prior, encoded, noise, **decode_kwargs)
        means = jax.tree.map(lambda term: jax.lax.stop_gradient(term.mean(0)), terms)
        return terms.elbo(self.weight * beta).mean(0), means, stats


def weighted_elbo(config):
    """Objective: the ELBO with half the weight on its KL."""
    return WeightedElbo(0.5, config.num_importance_samples)
