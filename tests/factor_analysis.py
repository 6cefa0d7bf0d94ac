"""Factor analysis as a model: its evidence is known in closed form, whatever its posterior is."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import scipy.special
import scipy.stats

from tests.reference import SHAPE
from vamp_jax import likelihoods, trainable_priors
from vamp_jax.autoencoder import Autoencoder
from vamp_jax.posteriors import Normal, normal_log_density

F32 = np.float32
NOISE_LOG_VAR = -1.0
# x = mean + e with e ~ N(0, s^2): what factor analysis has for a likelihood.
GAUSSIAN = likelihoods.Likelihood(
    name="gaussian with a fixed variance",
    heads=lambda shape: {"mean": shape},
    log_prob=lambda x, mean: normal_log_density(x, mean, NOISE_LOG_VAR),
    mean=lambda mean: mean,
    sample=lambda rng, mean: (
        mean + np.exp(0.5 * NOISE_LOG_VAR) * jax.random.normal(rng, mean.shape)
    ),
    from_stored=None,
    support=(-np.inf, np.inf),
)


class LinearGaussian(nn.Module):
    """x = W z + b + e, and the posterior N(A (x - b) + o, diag(v))."""

    latent_dim: int
    x_shape: tuple[int, ...] = SHAPE
    sample_x = None
    convolutional = False

    @property
    def latent_shapes(self):
        return {"z": (self.latent_dim,)}

    def setup(self):
        zeros = nn.initializers.zeros
        self.W = self.param("W", zeros, (6, self.latent_dim))
        self.b = self.param("b", zeros, (6,))
        self.A = self.param("A", zeros, (self.latent_dim, 6))
        self.o = self.param("o", zeros, (self.latent_dim,))
        self.log_v = self.param("log_v", zeros, (self.latent_dim,))

    def encode(self, x):
        mean = (x.reshape(*x.shape[:-3], 6) - self.b) @ self.A.T + self.o
        return Normal(mean, jnp.broadcast_to(self.log_v, mean.shape))

    def features(self, x):
        return None

    def infer(self, top, features, noise):
        z, log_q = top.sample_and_log_prob(noise["z"])
        return {"z": z}, {"z": log_q}

    def posteriors(self, top, features, latents):
        return {"z": top}

    def conditional_priors(self, latents):
        return {}

    def descend(self, z_top, noise):
        return {"z": z_top}

    def decode(self, latents, x=None):
        z = latents["z"]
        return ((z @ self.W.T + self.b).reshape(*z.shape[:-1], *SHAPE),)


def factor_analysis(prior="standard", *, exact=False, count=13):
    """(autoencoder, variables, x, ln p(x) [N]) of a random model.

    With `exact` W has orthogonal columns and q(z|x) is the posterior; else q is too wide and off.
    """
    rng = np.random.RandomState(0)
    W, b = rng.standard_normal((6, 3)), rng.standard_normal(6)
    if exact:
        W = np.linalg.qr(W)[0] * [0.7, 1.0, 1.5]
    noise_var = np.exp(NOISE_LOG_VAR)
    covariance = np.linalg.inv(np.eye(3) + W.T @ W / noise_var)
    A = covariance @ W.T / noise_var
    variance = np.diag(covariance) * (1.0 if exact else 1.4)
    offset = np.zeros(3) if exact else 0.1 * np.ones(3)
    model = {"W": W, "b": b, "A": A, "o": offset, "log_v": np.log(variance)}
    params = {"model": jax.tree.map(F32, model), "prior": {}}

    # The evidence: each Gaussian of the prior pushed through the linear model.
    mean, log_var = np.zeros((1, 3)), np.zeros((1, 3))
    chosen = trainable_priors.standard(3)
    if prior == "vamp":
        chosen = trainable_priors.vamp(4)
        u = rng.uniform(size=(4, *SHAPE))
        params["prior"] = {"pseudo_inputs": u.astype(F32)}
        mean = (u.reshape(4, 6) - b) @ A.T + offset
        log_var = np.broadcast_to(np.log(variance), (4, 3))
    k = rng.randint(len(mean), size=count)
    z = mean[k] + np.exp(0.5 * log_var[k]) * rng.standard_normal((count, 3))
    x = z @ W.T + b + noise_var**0.5 * rng.standard_normal((count, 6))
    x = x.astype(F32)
    parts = [
        scipy.stats.multivariate_normal(
            W @ m + b, W @ np.diag(np.exp(v)) @ W.T + noise_var * np.eye(6)
        ).logpdf(x)
        for m, v in zip(mean, log_var, strict=True)
    ]
    evidence = scipy.special.logsumexp(np.stack(parts), axis=0) - np.log(len(parts))
    autoencoder = Autoencoder(LinearGaussian(3), chosen, GAUSSIAN)
    variables = {"params": params, "batch_stats": {}, "constants": {}}
    return autoencoder, variables, x.reshape(count, *SHAPE), evidence
