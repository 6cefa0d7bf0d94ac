"""The ELBO's terms and their gradients against NumPy in float64 with the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.test_models import (
    SHAPE,
    SMALL,
    decode64,
    encode64,
    encode_z1_64,
    prior_z1_64,
    random_params,
)
from vamp_jax import distributions, objectives, priors
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE
from vamp_jax.objectives import Objective

F32 = np.float32
BETA = 0.3
CASES = [
    (VAE, "vamp", "bernoulli"),
    (VAE, "mog", "discretised_logistic"),
    (VAE, "standard", "bernoulli"),
    (HVAE, "vamp", "discretised_logistic"),
    (HVAE, "vamp_data", "bernoulli"),
]


# ---------------------------------------------------------------------------------------------
# PAPER.md in NumPy.


def normal64(z, mean, log_var):
    return scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * log_var)).sum(axis=-1)


def prior64(params, kind, z):
    """ln p(z) of the top layer, the encoder run on the pseudo-inputs."""
    if kind == "standard":
        return normal64(z, 0.0, 0.0)
    if kind == "mog":
        mean, log_var = (np.float64(params["prior"][name]) for name in ("mean", "log_var"))
    else:
        u = np.float64(params["prior"]["pseudo_inputs"])
        mean, log_var = encode64(params["model"], np.clip(u, 0, 1) if kind == "vamp" else u)
    joint = normal64(z[..., None, :], mean, log_var)
    return scipy.special.logsumexp(joint, axis=-1) - np.log(len(mean))


def pixels64(x, decoded):
    if len(decoded) == 1:
        p = np.clip(scipy.special.expit(decoded[0]), 1e-5, 1 - 1e-5)
        return (x * np.log(p) + (1 - x) * np.log1p(-p)).sum(axis=-1)
    mean = np.clip(scipy.special.expit(decoded[0]), 1 / 512, 1 - 1 / 512)
    law = scipy.stats.logistic(mean, np.exp(np.clip(decoded[1], -4.5, 0.0)))
    left = np.floor(x * 256) / 256
    right = left + 1 / 256
    above, below = law.sf(left) - law.sf(right), law.cdf(right) - law.cdf(left)
    return np.log(np.where(left > mean, above, below) + 1e-7).sum(axis=-1)


def terms64(params, prior, x, noise):
    """Reconstruction and the KL of each layer: x [B, H, W, C], noise [B, L, D] -> [B] each."""
    p = params["model"]
    mean, log_var = encode64(p, x)
    top = mean + np.exp(0.5 * log_var) * noise[:, -1]
    kl = {"z": normal64(top, mean, log_var) - prior64(params, prior, top)}
    latents = (top,)
    if noise.shape[1] == 2:
        mean, log_var = encode_z1_64(p, x, top)
        z1 = mean + np.exp(0.5 * log_var) * noise[:, 0]
        kl = {"z1": normal64(z1, mean, log_var) - normal64(z1, *prior_z1_64(p, top)), "z2": kl["z"]}
        latents = (z1, top)
    return pixels64(np.float64(x).reshape(len(x), -1), decode64(p, *latents)), kl


def loss64(params, prior, x, noise):
    reconstruction, kl = terms64(params, prior, x, noise)
    return -np.mean(reconstruction - BETA * sum(kl.values()))


# ---------------------------------------------------------------------------------------------
# Ours, on the same case.


def make_case(kind, prior, likelihood, batch=6, num_components=5):
    rng = np.random.RandomState(3)
    model = kind(**{**SMALL, "likelihood": likelihood})
    params = {"model": random_params(model), "prior": {}}
    if prior == "mog":
        params["prior"] = {
            "mean": rng.standard_normal((num_components, 4)).astype(F32),
            "log_var": rng.uniform(-2, 2, (num_components, 4)).astype(F32),
        }
    elif prior != "standard":
        u = rng.uniform(-0.2 if prior == "vamp" else 0.0, 1.2, (num_components, *SHAPE))
        params["prior"] = {"pseudo_inputs": u.astype(F32)}
    x = rng.randint(0, 2, (batch, *SHAPE)).astype(F32)
    if likelihood != "bernoulli":
        x = ((rng.randint(0, 256, x.shape) + 0.5) / 256).astype(F32)
    noise = rng.standard_normal((batch, model.num_layers, 4)).astype(F32)
    return Objective(model, prior), params, x, noise


def our_terms(objective, params, x, noise):
    variables = {"params": params, "batch_stats": {}}
    prior = objective.components(variables)
    terms, _ = objective.terms(variables, prior, objective.encode(variables, x), noise)
    return terms


def our_loss(objective, params, x, noise):
    return -jnp.mean(our_terms(objective, params, x, noise).elbo(BETA))


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].__name__}-{case[1]}")
def test_terms_and_gradients_are_those_of_float64(case):
    """Every parameter tensor, model's and prior's, along a random direction of its own."""
    objective, params, x, noise = make_case(*case)

    @jax.jit
    def terms_and_gradients(params):
        gradients = jax.grad(our_loss, argnums=1)(objective, params, x, noise)
        return our_terms(objective, params, x, noise), gradients

    terms, gradients = terms_and_gradients(params)
    reconstruction, kl = terms64(params, case[1], x, noise)
    np.testing.assert_allclose(terms.reconstruction, reconstruction, rtol=1e-5, atol=1e-4)
    assert list(terms.kl) == list(kl)
    for layer in kl:
        np.testing.assert_allclose(terms.kl[layer], kl[layer], rtol=1e-5, atol=2e-4)
    for beta in (0.0, BETA, 1.0):
        expected = reconstruction - beta * sum(kl.values())
        np.testing.assert_allclose(terms.elbo(beta), expected, rtol=1e-5, atol=4e-4)

    params = jax.tree.map(np.float64, params)
    leaves, treedef = jax.tree.flatten(params)
    rng = np.random.RandomState(9)
    for place, gradient in enumerate(jax.tree.leaves(gradients)):
        direction = rng.standard_normal(leaves[place].shape)
        values = []
        for step in (1e-6, -1e-6):
            moved = [*leaves[:place], leaves[place] + step * direction, *leaves[place + 1 :]]
            values.append(loss64(jax.tree.unflatten(treedef, moved), case[1], x, noise))
        expected = (values[0] - values[1]) / 2e-6
        if case[1] == "vamp_data" and place >= len(jax.tree.leaves(params["model"])):
            assert abs(expected) > 1e-2
            expected = 0.0  # training examples get no gradient
        along = np.float64(gradient) * direction
        assert abs(along.sum() - expected) <= 2e-5 + 1e-5 * np.abs(along).sum()


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_several_samples_are_separate_calls(kind):
    objective, params, x, _ = make_case(kind, "vamp", "bernoulli")
    shape = (3, len(x), objective.model.num_layers, 4)
    noise = np.random.RandomState(0).standard_normal(shape).astype(F32)
    run = jax.jit(functools.partial(our_terms, objective))
    together = run(params, x, noise)
    assert together.elbo().shape == (3, len(x))
    apart = [run(params, x, one) for one in noise]
    jax.tree.map(
        lambda whole, *parts: np.testing.assert_allclose(
            whole, np.stack(parts), rtol=1e-5, atol=2e-5
        ),
        together,
        *apart,
    )


def test_each_example_depends_on_itself_alone():
    objective, params, x, noise = make_case(HVAE, "vamp", "bernoulli")
    run = jax.jit(functools.partial(our_terms, objective))
    whole = run(params, x, noise).elbo()
    changed = run(params, np.concatenate([1 - x[:3], x[3:]]), noise).elbo()
    np.testing.assert_allclose(changed[3:], whole[3:], rtol=1e-6)
    assert np.all(np.abs(changed[:3] - whole[:3]) > 1e-3)


def test_proper_logistic_is_an_option():
    objective, params, x, noise = make_case(VAE, "standard", "discretised_logistic")
    authors = our_terms(objective, params, x, noise).reconstruction
    proper = our_terms(Objective(objective.model, "standard", True), params, x, noise)
    variables = {"params": params, "batch_stats": {}}
    latents, _ = objective.draw(variables, objective.encode(variables, x), noise)
    decoded, _ = objective.decode(variables, latents, x)
    expected = distributions.pixel_log_prob(x, decoded, "discretised_logistic", proper=True)
    np.testing.assert_allclose(proper.reconstruction, expected, rtol=1e-6)
    assert np.all(proper.reconstruction != authors)


def test_monte_carlo_kl_is_the_closed_form_on_average():
    """KL(N(m, s^2) || N(0, I)) of the standard prior: the mean of one-sample terms."""
    objective, params, x, _ = make_case(VAE, "standard", "bernoulli")
    mean, log_var = encode64(params["model"], x)
    exact = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=-1)
    noise = np.random.RandomState(0).standard_normal((4000, len(x), 1, 4)).astype(F32)
    kl = np.float64(jax.jit(functools.partial(our_terms, objective))(params, x, noise).kl["z"])
    assert np.all(np.abs(kl.mean(axis=0) - exact) < 4 * kl.std(axis=0) / 4000**0.5)


# ---------------------------------------------------------------------------------------------
# The prior's components.


def test_components_of_each_prior():
    for kind in objectives.PRIORS:
        objective, params, _, _ = make_case(VAE, kind, "bernoulli")
        prior = objective.components({"params": params, "batch_stats": {}})
        z = np.random.RandomState(0).standard_normal((7, 4)).astype(F32)
        expected = prior64(params, kind, np.float64(z))
        np.testing.assert_allclose(priors.log_prob(z, prior), expected, rtol=1e-5, atol=2e-5)
        assert len(prior.mean) == (1 if kind == "standard" else 5)


@pytest.mark.parametrize("kind", ["vamp", "vamp_data"])
def test_encoder_gets_gradient_through_the_components(kind):
    """Prior and posterior cooperate: d ln p(z) / d phi is not stopped (z held fixed)."""
    objective, params, _, _ = make_case(HVAE, kind, "bernoulli")
    z = np.random.RandomState(0).standard_normal((7, 4)).astype(F32)

    def loss(params):
        prior = objective.components({"params": params, "batch_stats": {}})
        return jnp.sum(priors.log_prob(z, prior))

    gradients = jax.jit(jax.grad(loss))(params)
    for name, part in gradients["model"].items():
        largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(part))
        assert (largest > 1e-2) == name.startswith("q_z2"), name
    gradient, u = gradients["prior"]["pseudo_inputs"], params["prior"]["pseudo_inputs"]
    reached = (u > 0) & (u < 1) if kind == "vamp" else np.zeros(u.shape, bool)
    np.testing.assert_array_equal(np.asarray(gradient) != 0, reached)


def test_an_encoder_can_take_the_place_of_the_models_own():
    objective, params, _, _ = make_case(VAE, "vamp", "bernoulli")
    seen = []

    def encode(u):
        seen.append(u)
        return jnp.ones((5, 4)), jnp.full((5, 4), -1.0)

    prior = objective.components({"params": params, "batch_stats": {}}, encode)
    np.testing.assert_array_equal(seen[0], np.clip(params["prior"]["pseudo_inputs"], 0, 1))
    np.testing.assert_array_equal(prior.mean, 1.0)
    np.testing.assert_array_equal(prior.log_var, -1.0)


# ---------------------------------------------------------------------------------------------
# Noise.


def test_noise_of_an_example_is_its_own():
    key = jax.random.key(0)
    whole = objectives.example_noise(key, np.arange(9), 2, 4)
    assert whole.shape == (9, 2, 4)
    some = objectives.example_noise(key, np.array([7, 3]), 2, 4)
    np.testing.assert_array_equal(some, whole[np.array([7, 3])])
    assert len(np.unique(whole)) == whole.size


def test_noise_is_standard_normal():
    noise = objectives.example_noise(jax.random.key(0), np.arange(3000), 1, 4)
    assert scipy.stats.kstest(np.ravel(noise), scipy.stats.norm.cdf).pvalue > 1e-3
