"""Burda et al.'s network against NumPy in float64."""

import chex
import jax
import numpy as np
import scipy.stats

from tests.cases import draw_noise, random_params
from tests.reference import SHAPE, dense, gaussian
from vamp_jax import likelihoods, priors, trainable_priors
from vamp_jax.autoencoder import Autoencoder
from vamp_jax.evaluation import diagnose
from vamp_jax.layers.flow_heads import HouseholderHead
from vamp_jax.models import IWAENet


def case():
    network = IWAENet(SHAPE, likelihoods.BERNOULLI, latent_dim=2, hidden_dim=7)
    params = {"model": random_params(network), "prior": {}}
    rng = np.random.RandomState(0)
    params["prior"]["pseudo_inputs"] = rng.uniform(size=(4, *SHAPE)).astype("f")
    autoencoder = Autoencoder(network, trainable_priors.vamp(4), likelihoods.BERNOULLI)
    x = rng.randint(0, 2, (5, *SHAPE)).astype("f")
    return autoencoder, {"params": params, "batch_stats": {}, "constants": {}}, x


def tanh(p, h):
    return np.tanh(dense(p["second"], np.tanh(dense(p["first"], h))))


def log_normal(z, mean, log_var):
    return scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(-1)


def test_it_agrees_with_float64():
    autoencoder, variables, x = case()
    noise = draw_noise(autoencoder.network, 3, 5)

    @jax.jit
    def run(variables):
        encoded = autoencoder.encode(variables, x)
        drawn = autoencoder.draw(variables, encoded, noise)
        prior = autoencoder.prior_density(variables)
        terms, _ = autoencoder.terms_at(variables, prior, x, drawn)
        return drawn, terms, autoencoder.decode(variables, drawn.latents, x)[0][0], prior

    drawn, terms, logits, prior = run(variables)
    p = variables["params"]["model"]

    def q_z2(z1):
        return gaussian(p["q_z2"], tanh(p["q_z2_layers"], z1))

    q1 = gaussian(p["q_z1"], tanh(p["q_z1_layers"], np.float64(x).reshape(5, -1)))
    z1 = q1[0] + np.exp(q1[1] / 2) * noise["z1"]
    q2 = q_z2(z1)
    z2 = q2[0] + np.exp(q2[1] / 2) * noise["z2"]
    np.testing.assert_allclose(drawn.latents["z1"], z1, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(drawn.latents["z2"], z2, rtol=1e-3, atol=1e-3)
    p1 = gaussian(p["p_z1"], tanh(p["p_z1_layers"], z2))
    kl = log_normal(z1, *q1) - log_normal(z1, *p1)
    np.testing.assert_allclose(terms.kl["z1"], kl, rtol=1e-3, atol=2e-2)
    expected = dense(p["p_x"]["logits"], tanh(p["p_x_layers"], z1))
    np.testing.assert_allclose(logits.reshape(3, 5, -1), expected, rtol=1e-3, atol=1e-3)
    # A component is q(z2|z1) at the mean of q(z1|u).
    u = np.float64(variables["params"]["prior"]["pseudo_inputs"]).reshape(4, -1)
    mean, log_var = q_z2(gaussian(p["q_z1"], tanh(p["q_z1_layers"], u))[0])
    np.testing.assert_allclose(prior.mean, mean, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(prior.log_var, log_var, rtol=1e-4, atol=1e-4)
    log_p = np.float64(priors.log_prob(drawn.latents["z2"], prior))
    kl = log_normal(z2, *q2) - log_p
    np.testing.assert_allclose(terms.kl["z2"], kl, rtol=1e-3, atol=2e-2)


def test_diagnostics_leave_out_what_needs_q_of_the_top_given_x():
    autoencoder, variables, x = case()
    found = diagnose.inspect(autoencoder, variables, x, jax.random.key(0))
    assert set(found["active_units"]) == {"z1", "z2"}
    assert set(found["unit_kl"]) == {"z1"} and "cross_entropy" not in found
    assert found["prior_use"]["components"] == 4


def test_components_are_at_the_mean_of_a_flow_s_posterior():
    """Of Householder flows, where the mean goes through the reflections, too."""
    network = IWAENet(SHAPE, likelihoods.BERNOULLI, 2, 7, posterior=HouseholderHead)
    variables = {"params": random_params(network)}
    x = np.random.RandomState(0).randint(0, 2, (5, *SHAPE)).astype("f")
    q_z1 = network.apply(variables, x, method="features")
    mean, _, rotation = q_z1.component
    z1 = np.einsum("bij,bj->bi", rotation, mean)
    expected = network.apply(variables, z1, method="_above").component
    found = network.apply(variables, x, method="encode").component
    chex.assert_trees_all_close(found, expected, rtol=1e-4, atol=1e-5)
    assert np.abs(z1 - mean).max() > 0.1
