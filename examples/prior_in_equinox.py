"""The VampPrior, warped by a flow, in a VAE of equinox: python examples/prior_in_equinox.py

The package has to be installed: `pip install . optax equinox` in the folder above.
"""

import equinox as eqx
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


class VAE(eqx.Module):
    """Encoder, decoder and, beside them, the prior's parameters."""

    encoder: eqx.nn.MLP
    decoder: eqx.nn.Linear
    prior_params: dict

    def __init__(self, prior_params, key):
        encoder_key, decoder_key = jax.random.split(key)
        self.encoder = eqx.nn.MLP(20, 4, 32, 1, activation=jnp.tanh, key=encoder_key)
        self.decoder = eqx.nn.Linear(2, 20, key=decoder_key)
        self.prior_params = prior_params

    def encode(self, x):
        """q(z|x): mean and log-variance, [N, 2] each."""
        mean, log_var = jnp.split(jax.vmap(self.encoder)(jnp.log1p(x)), 2, axis=-1)
        return mean, log_var

    def rate(self, z):
        return jax.nn.softplus(jax.vmap(self.decoder)(z))

    def prior(self):
        """The encoder's components at the pseudo-inputs, counts as well, under a flow."""
        return priors.vamp_flow(self.prior_params, self.encode, bounds=(0.0, None))


def loss(model, x, rng):
    """The negative ELBO of a batch with one draw of z each."""
    mean, log_var = model.encode(x)
    z = mean + jnp.exp(0.5 * log_var) * jax.random.normal(rng, mean.shape)
    log_q = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(0.5 * log_var)).sum(-1)
    log_p = priors.log_prob(z, model.prior())
    log_x = jax.scipy.stats.poisson.logpmf(x, model.rate(z)).sum(-1)
    return -jnp.mean(log_x + log_p - log_q)


def main(num_steps=300):
    """Trains; returns the loss before and after, and counts drawn from the model."""
    x = data(jax.random.key(0))
    vamp_key, flow_key, key = jax.random.split(jax.random.key(1), 3)
    start = priors.init_vamp_from_data(vamp_key, x[:10])  # K = 10
    flow = priors.init_flow(flow_key, 2, num_layers=4, hidden=(16,))
    model = VAE(start | flow, key)
    optimizer = optax.adam(1e-2)
    opt_state = optimizer.init(eqx.filter(model, eqx.is_array))
    first = loss(model, x, jax.random.key(5))

    @eqx.filter_jit
    def step(model, opt_state, rng):
        gradient = eqx.filter_grad(loss)(model, x, rng)
        updates, opt_state = optimizer.update(gradient, opt_state)
        return eqx.apply_updates(model, updates), opt_state

    for rng in jax.random.split(jax.random.key(2), num_steps):
        model, opt_state = step(model, opt_state, rng)
    z = priors.sample(jax.random.key(3), model.prior(), 5)
    drawn = jax.random.poisson(jax.random.key(4), model.rate(z))
    return float(first), float(loss(model, x, jax.random.key(5))), drawn


if __name__ == "__main__":
    before, after, drawn = main()
    print(f"negative ELBO: {before:.1f} nats before training, {after:.1f} after; draws:\n{drawn}")
