"""The VampPrior in a VAE of plain JAX and optax, on counts: python examples/prior_in_jax.py

The package has to be installed: `pip install . optax` in the folder above.
"""

import jax
import jax.numpy as jnp
import optax

from vamp_jax import priors


def data(rng):
    """Counts [512, 20] of three kinds."""
    kind_rng, rate_rng, count_rng = jax.random.split(rng, 3)
    rates = jax.random.gamma(rate_rng, 1.0, (3, 20)) * 4.0
    kind = jax.random.randint(kind_rng, 512, 0, 3)
    return jax.random.poisson(count_rng, rates[kind]).astype(jnp.float32)


def dense(rng, fan_in, fan_out):
    return {"w": jax.random.normal(rng, (fan_in, fan_out)) / fan_in**0.5, "b": jnp.zeros(fan_out)}


def apply(layer, x):
    return x @ layer["w"] + layer["b"]


def encode(params, x):
    """q(z|x): mean and log-variance, [N, 2] each."""
    h = jnp.tanh(apply(params["encoder"], jnp.log1p(x)))
    return apply(params["mean"], h), apply(params["log_var"], h)


def build_prior(params):
    """The encoder's components at the pseudo-inputs, which are counts as well: at least 0."""
    return priors.vamp(params["prior"], lambda u: encode(params, u), bounds=(0.0, None))


def loss(params, x, rng):
    """The negative ELBO of a batch with one draw of z each."""
    mean, log_var = encode(params, x)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(rng, mean.shape)
    log_q = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(0.5 * log_var)).sum(-1)
    log_p = priors.log_prob(z, build_prior(params))
    rate = jax.nn.softplus(apply(params["decoder"], z))
    log_x = jax.scipy.stats.poisson.logpmf(x, rate).sum(-1)
    return -jnp.mean(log_x + log_p - log_q)


def main(num_steps=300):
    """Trains; returns the loss before and after, and counts drawn from the model."""
    x = data(jax.random.key(0))
    keys = jax.random.split(jax.random.key(1), 6)
    params = {
        "encoder": dense(keys[0], 20, 32),
        "mean": dense(keys[1], 32, 2),
        "log_var": dense(keys[2], 32, 2),
        "decoder": dense(keys[3], 2, 20),
        "prior": priors.init_vamp_from_data(keys[4], x[:10]),  # K = 10
    }
    optimizer = optax.adam(1e-2)
    opt_state, first = optimizer.init(params), loss(params, x, keys[5])

    @jax.jit
    def step(params, opt_state, rng):
        updates, opt_state = optimizer.update(jax.grad(loss)(params, x, rng), opt_state)
        return optax.apply_updates(params, updates), opt_state

    for rng in jax.random.split(jax.random.key(2), num_steps):
        params, opt_state = step(params, opt_state, rng)
    z = priors.sample(jax.random.key(3), build_prior(params), 5)
    drawn = jax.random.poisson(jax.random.key(4), jax.nn.softplus(apply(params["decoder"], z)))
    return float(first), float(loss(params, x, keys[5])), drawn


if __name__ == "__main__":
    before, after, drawn = main()
    print(f"negative ELBO: {before:.1f} nats before training, {after:.1f} after; draws:\n{drawn}")
