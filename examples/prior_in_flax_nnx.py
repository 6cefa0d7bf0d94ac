"""The VampPrior in a VAE of flax.nnx, on counts: python examples/prior_in_flax_nnx.py

The package has to be installed: `pip install ".[train]"` in the folder above.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from vamp_jax import priors


def data(rng):
    """Counts [512, 20] of three kinds."""
    kind_rng, rate_rng, count_rng = jax.random.split(rng, 3)
    rates = jax.random.gamma(rate_rng, 1.0, (3, 20)) * 4.0
    kind = jax.random.randint(kind_rng, 512, 0, 3)
    return jax.random.poisson(count_rng, rates[kind]).astype(jnp.float32)


class VAE(nnx.Module):
    """Encoder, decoder and, beside them, the pseudo-inputs."""

    def __init__(self, pseudo_inputs, rngs):
        self.hidden = nnx.Linear(20, 32, rngs=rngs)
        self.mean = nnx.Linear(32, 2, rngs=rngs)
        self.log_var = nnx.Linear(32, 2, rngs=rngs)
        self.decoder = nnx.Linear(2, 20, rngs=rngs)
        self.pseudo_inputs = nnx.Param(pseudo_inputs)

    def encode(self, x):
        """q(z|x): mean and log-variance, [N, 2] each."""
        h = jnp.tanh(self.hidden(jnp.log1p(x)))
        return self.mean(h), self.log_var(h)

    def rate(self, z):
        return jax.nn.softplus(self.decoder(z))

    def prior(self):
        """The encoder's components at the pseudo-inputs, counts as well: at least 0."""
        params = {"pseudo_inputs": self.pseudo_inputs[...]}
        return priors.vamp(params, self.encode, bounds=(0.0, None))


def loss(model, x, rng):
    """The negative ELBO of a batch with one draw of z each."""
    mean, log_var = model.encode(x)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(rng, mean.shape)
    log_q = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(0.5 * log_var)).sum(-1)
    log_p = priors.log_prob(z, model.prior())
    log_x = jax.scipy.stats.poisson.logpmf(x, model.rate(z)).sum(-1)
    return -jnp.mean(log_x + log_p - log_q)


@nnx.jit
def step(model, optimizer, x, rng):
    optimizer.update(model, nnx.grad(loss)(model, x, rng))


def main(num_steps=300):
    """Trains; returns the loss before and after, and counts drawn from the model."""
    x = data(jax.random.key(0))
    start = priors.init_vamp_from_data(jax.random.key(1), x[:10])  # K = 10
    model = VAE(start["pseudo_inputs"], nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)
    first = loss(model, x, jax.random.key(5))
    for rng in jax.random.split(jax.random.key(2), num_steps):
        step(model, optimizer, x, rng)
    z = priors.sample(jax.random.key(3), model.prior(), 5)
    drawn = jax.random.poisson(jax.random.key(4), model.rate(z))
    return float(first), float(loss(model, x, jax.random.key(5))), drawn


if __name__ == "__main__":
    before, after, drawn = main()
    print(f"negative ELBO: {before:.1f} nats before training, {after:.1f} after; draws:\n{drawn}")
