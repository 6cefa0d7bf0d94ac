"""The ELBO's terms and their gradients against NumPy in float64 with the same weights."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import reference
from tests.cases import F32, PRIORS, draw_noise, make_case, terms_of
from vamp_jax import likelihoods, priors
from vamp_jax.autoencoder import Autoencoder
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE

BERNOULLI, GREY = likelihoods.BERNOULLI, likelihoods.DISCRETISED_LOGISTIC
BETA = 0.3
CASES = [
    (VAE, "vamp", BERNOULLI),
    (VAE, "mog", GREY),
    (VAE, "standard", BERNOULLI),
    (HVAE, "vamp", GREY),
    (HVAE, "vamp_data", BERNOULLI),
]


def loss_of(autoencoder, variables, x, noise):
    return -jnp.mean(terms_of(autoencoder, variables, x, noise).elbo(BETA))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def test_terms_and_gradients_are_those_of_float64(case):
    """Every tensor of the variables, along a random direction of its own."""
    autoencoder, variables, x, noise = make_case(*case)

    @jax.jit
    def terms_and_gradients(variables):
        gradients = jax.grad(loss_of, argnums=1)(autoencoder, variables, x, noise)
        return terms_of(autoencoder, variables, x, noise), gradients

    terms, gradients = terms_and_gradients(variables)
    reconstruction, kl = reference.terms(variables, case[1], x, noise)
    np.testing.assert_allclose(terms.reconstruction, reconstruction, rtol=1e-5, atol=1e-4)
    assert list(terms.kl) == list(kl) == list(autoencoder.layers)
    chex.assert_trees_all_close(terms.kl, kl, rtol=1e-5, atol=2e-4)
    for beta in (0.0, BETA, 1.0):
        expected = reconstruction - beta * sum(kl.values())
        np.testing.assert_allclose(terms.elbo(beta), expected, rtol=1e-5, atol=4e-4)

    variables = jax.tree.map(np.float64, variables)
    leaves, treedef = jax.tree.flatten(variables)
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(variables)]
    rng = np.random.RandomState(9)
    for place, gradient in enumerate(jax.tree.leaves(gradients)):
        direction = rng.standard_normal(leaves[place].shape)
        values = []
        for step in (1e-6, -1e-6):
            moved = [*leaves[:place], leaves[place] + step * direction, *leaves[place + 1 :]]
            moved = jax.tree.unflatten(treedef, moved)
            values.append(reference.loss(moved, case[1], x, noise, BETA))
        expected = (values[0] - values[1]) / 2e-6
        if paths[place][0].key == "constants":
            assert abs(expected) > 1e-2
            expected = 0.0  # training examples get no gradient
        along = np.float64(gradient) * direction
        assert abs(along.sum() - expected) <= 2e-5 + 1e-5 * np.abs(along).sum()


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_several_samples_are_separate_calls(kind):
    autoencoder, variables, x, _ = make_case(kind, "vamp")
    noise = draw_noise(autoencoder.network, 3, len(x))
    run = jax.jit(functools.partial(terms_of, autoencoder))
    together = run(variables, x, noise)
    chex.assert_shape(jax.tree.leaves(together), (3, len(x)))
    apart = [run(variables, x, jax.tree.map(lambda n: n[s], noise)) for s in range(3)]  # noqa: B023
    stacked = jax.tree.map(lambda *parts: np.stack(parts), *apart)
    chex.assert_trees_all_close(together, stacked, rtol=1e-5, atol=2e-5)


def test_each_example_depends_on_itself_alone():
    autoencoder, variables, x, noise = make_case(HVAE, "vamp")
    run = jax.jit(functools.partial(terms_of, autoencoder))
    whole = run(variables, x, noise).elbo()
    changed = run(variables, np.concatenate([1 - x[:3], x[3:]]), noise).elbo()
    np.testing.assert_allclose(changed[3:], whole[3:], rtol=1e-6)
    assert np.all(np.abs(changed[:3] - whole[:3]) > 1e-3)


def test_the_likelihood_is_a_choice():
    """The same network with the proper logistic has other reconstruction terms and no other KL."""
    autoencoder, variables, x, noise = make_case(VAE, "standard", GREY)
    authors = terms_of(autoencoder, variables, x, noise)
    proper = likelihoods.PROPER_DISCRETISED_LOGISTIC
    other = Autoencoder(autoencoder.network, autoencoder.prior, proper)
    found = terms_of(other, variables, x, noise)
    latents, _ = autoencoder.draw(variables, autoencoder.encode(variables, x), noise)
    heads, _ = autoencoder.decode(variables, latents, x)
    expected = proper.log_prob(x, *heads).reshape(len(x), -1).sum(axis=-1)
    np.testing.assert_allclose(found.reconstruction, expected, rtol=1e-6)
    assert np.all(found.reconstruction != authors.reconstruction)
    chex.assert_trees_all_equal(found.kl, authors.kl)


def test_monte_carlo_kl_is_the_closed_form_on_average():
    """KL(N(m, s^2) || N(0, I)) of the standard prior: the mean of one-sample terms."""
    autoencoder, variables, x, _ = make_case(VAE, "standard")
    mean, log_var = reference.encode(variables["params"]["model"], x)
    exact = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=-1)
    noise = draw_noise(autoencoder.network, 4000, len(x))
    run = jax.jit(functools.partial(terms_of, autoencoder))
    kl = np.float64(run(variables, x, noise).kl["z"])
    assert np.all(np.abs(kl.mean(axis=0) - exact) < 4 * kl.std(axis=0) / 4000**0.5)


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_log_q_at_other_latents_is_that_of_float64(kind):
    autoencoder, variables, x, noise = make_case(kind, "standard")
    encoded = autoencoder.encode(variables, x)
    latents = draw_noise(autoencoder.network, len(x))  # anywhere
    found = autoencoder.log_q(variables, encoded, latents)
    p, top = variables["params"]["model"], autoencoder.top
    expected = {top: reference.normal(latents[top], *reference.encode(p, x))}
    if "z1" in latents:
        q_z1 = reference.encode_z1(p, x, latents["z2"])
        expected["z1"] = reference.normal(latents["z1"], *q_z1)
    chex.assert_trees_all_close(found, expected, rtol=1e-5, atol=2e-4)


def test_without_a_density_log_q_is_refused_in_a_sentence():
    autoencoder, variables, x, noise = make_case(VAE, "standard")
    encoded = autoencoder.encode(variables, x)

    class Flow:  # draws, and knows no density elsewhere
        def sample_and_log_prob(self, noise):
            return noise, jnp.sum(noise, axis=-1)

    latents, log_q = autoencoder.draw(variables, encoded._replace(top=Flow()), noise)
    chex.assert_trees_all_equal(latents, noise)
    chex.assert_shape(log_q["z"], (len(x),))
    with pytest.raises(ValueError, match="the posterior of z, Flow, has no density"):
        autoencoder.log_q(variables, encoded._replace(top=Flow()), latents)


# ---------------------------------------------------------------------------------------------
# The prior.


def test_density_of_each_prior():
    for kind in PRIORS:
        autoencoder, variables, _, _ = make_case(VAE, kind)
        prior = autoencoder.prior_density(variables)
        z = np.random.RandomState(0).standard_normal((7, 4)).astype(F32)
        expected = reference.prior(variables, kind, np.float64(z))
        np.testing.assert_allclose(priors.log_prob(z, prior), expected, rtol=1e-5, atol=2e-5)
        assert len(prior.mean) == (1 if kind == "standard" else 5)


@pytest.mark.parametrize("kind", ["vamp", "vamp_data"])
def test_encoder_gets_gradient_through_the_components(kind):
    """Prior and posterior cooperate: d ln p(z) / d phi is not stopped (z held fixed)."""
    autoencoder, variables, _, _ = make_case(HVAE, kind)
    z = np.random.RandomState(0).standard_normal((7, 4)).astype(F32)

    def loss(variables):
        return jnp.sum(priors.log_prob(z, autoencoder.prior_density(variables)))

    gradients = jax.jit(jax.grad(loss))(variables)
    for name, part in gradients["params"]["model"].items():
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(part))
        assert (largest > 1e-2) == name.startswith("q_z2"), name
    if kind == "vamp":
        u = variables["params"]["prior"]["pseudo_inputs"]
        gradient = gradients["params"]["prior"]["pseudo_inputs"]
        np.testing.assert_array_equal(np.asarray(gradient) != 0, (u > 0) & (u < 1))
    else:
        assert variables["params"]["prior"] == {}
        assert not np.any(gradients["constants"]["pseudo_inputs"])


def test_an_encoder_can_take_the_place_of_the_networks_own():
    autoencoder, variables, _, _ = make_case(VAE, "vamp")
    seen = []

    def encode(u):
        seen.append(u)
        return jnp.ones((5, 4)), jnp.full((5, 4), -1.0)

    prior = autoencoder.prior_density(variables, encode)
    u = variables["params"]["prior"]["pseudo_inputs"]
    np.testing.assert_array_equal(seen[0], np.clip(u, 0, 1))
    np.testing.assert_array_equal(prior.mean, 1.0)
    np.testing.assert_array_equal(prior.log_var, -1.0)


def test_pseudo_inputs_are_as_the_encoder_sees_them():
    for kind in PRIORS:
        autoencoder, variables, _, _ = make_case(VAE, kind)
        found = autoencoder.pseudo_inputs(variables)
        if kind == "vamp":
            learned = variables["params"]["prior"]["pseudo_inputs"]
            assert np.min(learned) < 0 and np.max(learned) > 1
            np.testing.assert_array_equal(found, np.clip(learned, 0, 1))
        elif kind == "vamp_data":
            np.testing.assert_array_equal(found, variables["constants"]["pseudo_inputs"])
        else:
            assert found is None
