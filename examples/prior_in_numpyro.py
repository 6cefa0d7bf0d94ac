"""The VampPrior as a numpyro distribution in SVI: python examples/prior_in_numpyro.py

The package has to be installed: `pip install . optax numpyro` in the folder above.
"""

import math

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO

from vamp_jax import priors


class PriorDistribution(dist.Distribution):
    """Any density of `vamp_jax.priors` as a numpyro distribution of vectors [D]."""

    support = dist.constraints.real_vector
    pytree_data_fields = ("density",)

    def __init__(self, density, latent_dim, *, validate_args=None):
        self.density = density
        super().__init__(event_shape=(latent_dim,), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        z = priors.sample(key, self.density, max(1, math.prod(sample_shape)))
        return jnp.reshape(z, (*sample_shape, *self.event_shape))

    def log_prob(self, value):
        return priors.log_prob(value, self.density)


def data(rng):
    """Counts [512, 20] of three kinds."""
    kind_rng, rate_rng, count_rng = jax.random.split(rng, 3)
    rates = jax.random.gamma(rate_rng, 1.0, (3, 20)) * 4.0
    kind = jax.random.randint(kind_rng, 512, 0, 3)
    return jax.random.poisson(count_rng, rates[kind]).astype(jnp.float32)


def dense(name, fan_in, fan_out):
    """A layer whose parameters numpyro holds."""
    w = numpyro.param(
        f"{name}.w", lambda rng: jax.random.normal(rng, (fan_in, fan_out)) / fan_in**0.5
    )
    b = numpyro.param(f"{name}.b", jnp.zeros(fan_out))
    return lambda x: x @ w + b


def encoder():
    """q(z|x): a function to mean and log-variance, [N, 2] each."""
    hidden, mean, log_var = dense("hidden", 20, 32), dense("mean", 32, 2), dense("log_var", 32, 2)

    def encode(x):
        h = jnp.tanh(hidden(jnp.log1p(x)))
        return mean(h), log_var(h)

    return encode


def model(x):
    pseudo_inputs = numpyro.param(
        "pseudo_inputs", lambda rng: priors.init_vamp_from_data(rng, x[:10])["pseudo_inputs"]
    )  # K = 10
    prior = priors.vamp({"pseudo_inputs": pseudo_inputs}, encoder(), bounds=(0.0, None))
    decode = dense("decoder", 2, 20)
    with numpyro.plate("examples", len(x)):
        z = numpyro.sample("z", PriorDistribution(prior, 2))
        rate = jax.nn.softplus(decode(z))
        numpyro.sample("x", dist.Poisson(rate).to_event(1), obs=x)


def guide(x):
    mean, log_var = encoder()(x)
    with numpyro.plate("examples", len(x)):
        numpyro.sample("z", dist.Normal(mean, jnp.exp(0.5 * log_var)).to_event(1))


def main(num_steps=300):
    """Trains; returns the loss before and after, and draws of the prior."""
    x = data(jax.random.key(0))
    svi = SVI(model, guide, optax.adam(1e-2), Trace_ELBO())
    state = svi.init(jax.random.key(1), x)
    first = svi.evaluate(state, x) / len(x)
    step = jax.jit(svi.update)
    for _ in range(num_steps):
        state, _ = step(state, x)
    params = svi.get_params(state)
    with numpyro.handlers.substitute(data=params):
        prior = priors.vamp(params, encoder(), bounds=(0.0, None))
    z = PriorDistribution(prior, 2).sample(jax.random.key(3), (5,))
    return float(first), float(svi.evaluate(state, x) / len(x)), z


if __name__ == "__main__":
    before, after, drawn = main()
    print(f"negative ELBO: {before:.1f} nats before training, {after:.1f} after; draws:\n{drawn}")
