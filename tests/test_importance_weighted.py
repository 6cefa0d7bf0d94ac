"""The importance-weighted bound: its value, and its two gradients by brute force and in parts."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.test_objectives import make_case
from vamp_jax import distributions, importance_weighted, log_likelihood, priors
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE
from vamp_jax.objectives import PRIORS, Objective

F32 = np.float32
RNG = jax.random.key(5)
LATENT_DIM = 4  # of make_case
# These programs run once, in less time than the compiler's optimisations of them take.
quick_jit = functools.partial(
    jax.jit,
    compiler_options={
        "xla_backend_optimization_level": 0,
        "xla_llvm_disable_expensive_passes": True,
    },
)


def mild_case(kind, prior):
    """A model whose weights w_m are of like size; two images."""
    objective, params, x, _ = make_case(kind, prior, "bernoulli", batch=2)
    return objective, params | {"model": jax.tree.map(lambda p: F32(0.6) * p, params["model"])}, x


def normal(objective, *leading, seed=0):
    shape = (*leading, objective.model.num_layers, LATENT_DIM)
    return np.random.RandomState(seed).standard_normal(shape).astype(F32)


def run_bound(objective, params, x, noise, **kwargs):
    variables = {"params": params, "batch_stats": {}}
    prior, encoded = objective.components(variables), objective.encode(variables, x)
    return importance_weighted.bound(objective, variables, prior, encoded, noise, **kwargs)[:2]


def elbos(objective, params, x, noise):
    """The log-weights at beta = 1 by `Objective.terms`: [..., B]."""
    variables = {"params": params, "batch_stats": {}}
    prior, encoded = objective.components(variables), objective.encode(variables, x)
    return objective.terms(variables, prior, encoded, noise)[0].elbo()


def gradient_of(objective, params, x, noise, weight=1.0, **kwargs):
    """The gradient of sum_b weight_b bound_b."""

    def total(params):
        return jnp.sum(weight * run_bound(objective, params, x, noise, **kwargs)[0])

    return jax.grad(total)(params)


def encoder_part(gradients):
    """[..., P] of the encoder's parameters of gradients whose leaves are [N, ...]."""
    parts = {name: part for name, part in gradients["model"].items() if name.startswith("q_")}
    leaves = [np.float64(leaf) for leaf in jax.tree.leaves(parts)]
    return np.concatenate([leaf.reshape(len(leaf), -1) for leaf in leaves], axis=1)


def other_part(gradients):
    model = {name: part for name, part in gradients["model"].items() if not name.startswith("q_")}
    return {"decoder": model, "prior": gradients["prior"]}


def assert_close(ours, expected, tolerance=1e-4):
    """Each leaf within this share of its largest entry, or of the noise of float32."""
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        scale = np.max(np.abs(other), initial=1e-2)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * scale)


# ---------------------------------------------------------------------------------------------
# The value.


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_value_is_the_log_of_the_mean_weight_and_with_one_sample_the_elbo(kind):
    objective, params, x = mild_case(kind, "vamp")
    noise = normal(objective, 5, len(x))

    @quick_jit
    def run(params):
        bounds = [
            (count, *run_bound(objective, params, x, noise[:count], gradient=gradient))
            for gradient in importance_weighted.GRADIENTS
            for count in (5, 1)
        ]
        return elbos(objective, params, x, noise), bounds

    log_weights, bounds = run(params)
    log_weights = np.float64(log_weights)
    for count, value, terms in bounds:
        assert value.shape == terms.reconstruction.shape == x.shape[:1]
        count = int(count)
        expected = scipy.special.logsumexp(log_weights[:count], axis=0) - math.log(count)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(terms.elbo(), log_weights[:count].mean(axis=0), rtol=1e-5)


def test_one_sample_s_standard_gradient_is_the_elbo_s():
    objective, params, x = mild_case(VAE, "vamp")
    noise = normal(objective, 1, len(x))
    beta = 0.3

    @quick_jit
    def both(params):
        def elbo(params):
            variables = {"params": params, "batch_stats": {}}
            prior, encoded = objective.components(variables), objective.encode(variables, x)
            return jnp.sum(objective.terms(variables, prior, encoded, noise[0])[0].elbo(beta))

        return gradient_of(objective, params, x, noise, beta=beta), jax.grad(elbo)(params)

    assert_close(*both(params), tolerance=1e-5)


def test_bound_grows_with_the_number_of_samples():
    """On average: paired differences between M samples and the first fewer of them."""
    objective, params, x, _ = make_case(VAE, "vamp", "bernoulli", batch=2)
    noise = normal(objective, 32, 1000, len(x))
    log_weights = np.float64(quick_jit(functools.partial(elbos, objective))(params, x, noise))
    bounds = [importance_weighted.log_mean_exp(log_weights[:m]).mean(1) for m in (1, 2, 8, 32)]
    for fewer, more in zip(bounds, bounds[1:], strict=False):
        difference = np.float64(more - fewer)
        assert difference.mean() > 4 * difference.std() / 1000**0.5


def test_bound_of_many_samples_is_the_log_likelihood_s_estimate():
    """The noise, too, is that of `log_likelihood`: a function of (example, sample)."""
    objective, params, x = mild_case(VAE, "mog")
    estimate = log_likelihood.estimate(
        objective, {"params": params, "batch_stats": {}}, x, num_samples=60, rng=RNG
    )

    @quick_jit
    def run(params):
        noise = importance_weighted.sample_noise(RNG, jnp.arange(len(x)), 60, 1, LATENT_DIM)
        return run_bound(objective, params, x, noise)

    value, terms = run(params)
    np.testing.assert_allclose(value, estimate.log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(terms.reconstruction, estimate.reconstruction, rtol=1e-5)


def test_noise_of_an_example_and_sample_is_its_own():
    sample_noise = jax.jit(importance_weighted.sample_noise, static_argnums=(2, 3, 4))
    noise = sample_noise(RNG, jnp.arange(9), 6, 2, LATENT_DIM)
    assert noise.shape == (6, 9, 2, LATENT_DIM) and len(np.unique(noise)) == noise.size
    fewer = sample_noise(RNG, jnp.array([7, 3]), 4, 2, LATENT_DIM)
    np.testing.assert_array_equal(fewer, noise[:4, np.array([7, 3])])


# ---------------------------------------------------------------------------------------------
# The gradients.


@pytest.mark.parametrize("kind", [VAE, HVAE])
@pytest.mark.parametrize("prior", PRIORS)
def test_gradients_have_the_same_mean(kind, prior):
    """Over 2000 draws: every entry of the encoder's gradient; the other parts are equal outright.

    A quarter of the cases are in the warm-up.
    """
    count, num_samples = 2000, 4
    beta = 0.4 if prior == "mog" else 1.0
    objective, params, x = mild_case(kind, prior)
    noise = normal(objective, count, num_samples, len(x))

    @quick_jit
    def run(params):
        def gradients(gradient):
            one = functools.partial(gradient_of, objective, params, x, gradient=gradient, beta=beta)
            return jax.vmap(one)(noise)

        return [gradients(gradient) for gradient in importance_weighted.GRADIENTS]

    standard, dreg = jax.device_get(run(params))
    assert_close(other_part(dreg), other_part(standard))
    difference = encoder_part(dreg) - encoder_part(standard)
    spread = difference.std(axis=0)
    random = spread > 1e-5  # not where a clip of a log-variance leaves no gradient
    assert random.mean() > 0.7
    # Stopping all of q(z1|x,z2)'s parameters reaches 9 here; stopping the prior's components 100.
    assert np.max(np.abs(difference.mean(axis=0)[random]) / spread[random]) * count**0.5 < 5


def log_weights_by_role(objective, path, score, others, x, noise, beta):
    """ln w [M, B] with one set of parameters for each place where the encoder's stand."""
    path, score, others = ({"params": p, "batch_stats": {}} for p in (path, score, others))
    latents, _ = objective.draw(path, objective.encode(path, x), noise)
    z = latents[-1]
    given = objective.encode(score, x)
    log_q = distributions.normal_log_prob(z, given.mean, given.log_var)
    log_p = priors.log_prob(z, objective.components(others))
    if len(latents) == 2:
        z1 = latents[0]
        lower = objective.apply(score, given.features, z, method="encode_z1")
        log_q += distributions.normal_log_prob(z1, *lower)
        log_p += distributions.normal_log_prob(z1, *objective.apply(others, z, method="prior_z1"))
    decoded, _ = objective.decode(others, latents, x)
    return distributions.pixel_log_prob(x, decoded, "bernoulli") + beta * (log_p - log_q)


@pytest.mark.parametrize(("kind", "prior", "beta"), [(VAE, "mog", 1.0), (HVAE, "vamp", 0.3)])
def test_each_role_of_the_parameters_has_its_weight(kind, prior, beta):
    """sum_m of v_m (all but path and score), v_m (1 - beta + beta v_m) (path), 0 (score)."""
    objective, params, x = mild_case(kind, prior)
    noise = normal(objective, 3, len(x), seed=1)
    weight = np.array([0.7, -1.3], F32)  # of the examples in the loss

    @quick_jit
    def run(params):
        def of_roles(path, score, others):
            return log_weights_by_role(objective, path, score, others, x, noise, beta)

        ours = [
            gradient_of(objective, params, x, noise, weight, gradient=gradient, beta=beta)
            for gradient in importance_weighted.GRADIENTS
        ]
        roles = (params, params, params)
        return of_roles(*roles), jax.jacrev(of_roles, argnums=(0, 1, 2))(*roles), ours

    log_weights, jacobians, (standard, dreg) = jax.device_get(run(params))
    share = scipy.special.softmax(np.float64(log_weights), axis=0)
    assert share.max(axis=0).min() < 0.99

    def combine(*weights):
        def one(*parts):
            return sum(
                np.tensordot(weight * w, np.float64(p), 2)
                for w, p in zip(weights, parts, strict=True)
            )

        return jax.tree.map(one, *jacobians)

    assert_close(standard, combine(share, share, share))
    assert_close(dreg, combine(share * (1 - beta + beta * share), 0 * share, share))


def test_encoder_s_gradient_is_zero_at_the_true_posterior():
    """q(z1,z2|x) = p(z1,z2) and a decoder blind to z: nothing to learn, and 'dreg' sees it.

    It would not without the part of ln q(z1|x,z2)'s gradient that goes to z2.
    """
    objective, params, x, _ = make_case(HVAE, "standard", "bernoulli")
    model = jax.tree.map(np.copy, params["model"])
    for name in ("q_z2", "p_x"):  # q(z2|x) = N(0, I), p(x|z1,z2) = p(x)
        model[name] = jax.tree.map(np.zeros_like, model[name])
    # q(z1|x,z2) as p(z1|z2), and with nothing of x.
    model["q_z1_from_z2"], model["q_z1"] = model["p_z1_layers_0"], model["p_z1"]
    model["q_z1_joint"] = {
        part: {
            "kernel": np.concatenate([np.zeros_like(dense["kernel"]), dense["kernel"]]),
            "bias": dense["bias"],
        }
        for part, dense in model["p_z1_layers_1"].items()
    }
    params = {"model": model, "prior": {}}
    noise = normal(objective, 5, len(x))

    @quick_jit
    def run(params):
        value, _ = run_bound(objective, params, x, noise)
        return value, [
            gradient_of(objective, params, x, noise, gradient=gradient)
            for gradient in importance_weighted.GRADIENTS
        ]

    value, (standard, dreg) = jax.device_get(run(params))
    np.testing.assert_allclose(value, -6 * math.log(2), rtol=1e-5)  # six pixels of p = 1/2
    largest = [
        max(np.abs(leaf).max() for leaf in jax.tree.leaves(gradients["model"]))
        for gradients in (standard, dreg)
    ]
    encoder = [np.abs(encoder_part(jax.tree.map(lambda p: p[None], g))) for g in (standard, dreg)]
    assert largest[1] > 0.1 and encoder[0].max() > 0.1
    assert encoder[1].max() < 1e-4


@pytest.mark.parametrize("kind", [VAE, HVAE])
def test_dreg_has_the_lower_variance_where_the_posterior_fits(kind):
    """By a factor of at least three; see the module for where it does not."""
    objective, params, x = mild_case(kind, "standard")
    model = jax.tree.map(np.copy, params["model"])
    # Every distribution of z close to N(0, I), and p(x|z) to p(x): so is the true posterior.
    for name in model.keys() & {"q_z", "q_z1", "q_z2", "p_z1", "p_x"}:
        model[name] = jax.tree.map(lambda p: F32(0.05) * p, model[name])
    params = params | {"model": model}
    noise = normal(objective, 500, 8, len(x))

    @quick_jit
    def run(params):
        def gradients(gradient):
            one = functools.partial(gradient_of, objective, params, x, gradient=gradient)
            return jax.vmap(one)(noise)

        return [gradients(gradient) for gradient in importance_weighted.GRADIENTS]

    standard, dreg = (encoder_part(each).var(axis=0).sum() for each in run(params))
    assert dreg < standard / 3


# ---------------------------------------------------------------------------------------------
# Extremes.


def test_extreme_weights_are_finite():
    """Log-weights below -1e4 and thousands apart: one sample has it all, and nothing overflows."""
    objective, params, x, _ = make_case(HVAE, "vamp", "bernoulli")
    params = jax.tree.map(lambda p: 8 * p, params)
    noise = 5 * normal(objective, 6, len(x))

    @quick_jit
    def run(params):
        results = [
            (
                run_bound(objective, params, x, noise, gradient=gradient)[0],
                gradient_of(objective, params, x, noise, gradient=gradient),
            )
            for gradient in importance_weighted.GRADIENTS
        ]
        return elbos(objective, params, x, noise), results

    log_weights, results = run(params)
    assert np.ptp(log_weights, axis=0).max() > 1e3 and np.min(log_weights) < -1e4
    largest = np.max(log_weights, axis=0)
    for value, gradients in results:
        assert np.all((value >= largest - math.log(6) - 1e-2) & (value <= largest + 1e-2))
        leaves = jax.tree.leaves(gradients)
        assert all(np.all(np.isfinite(leaf)) for leaf in leaves)
        assert any(np.any(leaf != 0) for leaf in leaves)


def test_a_sample_of_weight_zero_counts_as_one_of_them():
    log_weights = jnp.array([[0.0, -jnp.inf], [-jnp.inf, 1e4]])
    np.testing.assert_allclose(
        importance_weighted.log_mean_exp(log_weights), [-math.log(2), 1e4 - math.log(2)]
    )
    gradient = jax.grad(lambda v: jnp.sum(importance_weighted.log_mean_exp(v)))(log_weights)
    np.testing.assert_array_equal(gradient, [[1.0, 0.0], [0.0, 1.0]])


def test_wrong_arguments_are_errors():
    objective, params, x = mild_case(VAE, "standard")
    assert isinstance(objective, Objective)
    noise = normal(objective, 2, len(x))
    with pytest.raises(ValueError, match="'drag'"):
        run_bound(objective, params, x, noise, gradient="drag")
    with pytest.raises(ValueError, match="M, B, L, D"):
        run_bound(objective, params, x, noise[0])
