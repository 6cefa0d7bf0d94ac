"""The objectives: their values, and the two gradients of the bound by brute force and in parts."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.cases import F32, PRIORS, draw_noise, make_case, terms_of
from vamp_jax import likelihoods, log_likelihood, objectives, priors, random_streams
from vamp_jax.models.hvae import HVAE
from vamp_jax.models.vae import VAE
from vamp_jax.objectives import Elbo, Iwae
from vamp_jax.posteriors import Normal

RNG = jax.random.key(5)


def mild_case(kind, prior):
    """A model whose weights w_m are of like size; two images."""
    autoencoder, variables, x, _ = make_case(kind, prior, batch=2)
    model = jax.tree.map(lambda p: F32(0.6) * p, variables["params"]["model"])
    return autoencoder, variables | {"params": variables["params"] | {"model": model}}, x


def normal(autoencoder, *leading, seed=0):
    return draw_noise(autoencoder.network, *leading, rng=np.random.RandomState(seed))


def first(count, noise):  # the first samples
    return jax.tree.map(lambda part: part[:count], noise)


def both(num_samples):
    """The two gradients of a bound."""
    return [Iwae(num_samples, gradient) for gradient in objectives.GRADIENTS]


def run_bound(objective, autoencoder, variables, x, noise, **kwargs):
    prior, encoded = autoencoder.prior_density(variables), autoencoder.encode(variables, x)
    return objective.bound(autoencoder, variables, prior, encoded, noise, **kwargs)[:2]


def elbos(autoencoder, variables, x, noise):
    """The log-weights at beta = 1 by `Autoencoder.terms`: [..., B]."""
    return terms_of(autoencoder, variables, x, noise).elbo()


def gradient_of(objective, autoencoder, variables, x, noise, weight=1.0, **kwargs):
    """The gradient of sum_b weight_b bound_b with respect to all parameters."""

    def total(params):
        moved = variables | {"params": params}
        bound, _ = run_bound(objective, autoencoder, moved, x, noise, **kwargs)
        return jnp.sum(weight * bound)

    return jax.grad(total)(variables["params"])


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
    autoencoder, variables, x = mild_case(kind, "vamp")
    noise = normal(autoencoder, 5, len(x))

    @jax.jit
    def run(variables):
        bounds = [
            (count, *run_bound(objective, autoencoder, variables, x, first(count, noise)))
            for count in (5, 1)
            for objective in both(count)
        ]
        return elbos(autoencoder, variables, x, noise), bounds

    log_weights, bounds = run(variables)
    log_weights = np.float64(log_weights)
    for count, value, terms in bounds:
        chex.assert_equal_shape([value, terms.reconstruction, x[:, 0, 0, 0]])
        count = int(count)
        expected = scipy.special.logsumexp(log_weights[:count], axis=0) - math.log(count)
        np.testing.assert_allclose(value, expected, rtol=1e-6)
        np.testing.assert_allclose(terms.elbo(), log_weights[:count].mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize("num_samples", [1, 5])
def test_elbo_is_the_mean_over_its_draws(num_samples):
    autoencoder, variables, x = mild_case(HVAE, "vamp")
    noise = normal(autoencoder, num_samples, len(x))
    beta = 0.3

    @jax.jit
    def run(variables):
        value = run_bound(Elbo(num_samples), autoencoder, variables, x, noise, beta=beta)
        return value, terms_of(autoencoder, variables, x, noise)

    (value, terms), of_samples = run(variables)
    np.testing.assert_allclose(value, of_samples.elbo(beta).mean(axis=0), rtol=1e-6)
    means = jax.tree.map(lambda part: part.mean(axis=0), of_samples)
    chex.assert_trees_all_close(terms, means, rtol=1e-5, atol=1e-5)


def test_gradient_of_the_elbo_and_of_one_sample_s_standard_bound_is_the_plain_one():
    autoencoder, variables, x = mild_case(VAE, "vamp")
    noise = normal(autoencoder, 1, len(x))
    beta = 0.3

    @jax.jit
    def run(variables):
        def elbo(params):
            terms = terms_of(autoencoder, variables | {"params": params}, x, noise)
            return jnp.sum(terms.elbo(beta))

        ours = [
            gradient_of(objective, autoencoder, variables, x, noise, beta=beta)
            for objective in (Elbo(), Iwae(1))
        ]
        return ours, jax.grad(elbo)(variables["params"])

    ours, expected = run(variables)
    for gradients in ours:
        assert_close(gradients, expected, tolerance=1e-5)


def test_bound_grows_with_the_number_of_samples():
    """On average: paired differences between M samples and the first fewer of them."""
    autoencoder, variables, x, _ = make_case(VAE, "vamp", batch=2)
    noise = normal(autoencoder, 32, 1000, len(x))
    log_weights = jax.jit(functools.partial(elbos, autoencoder))(variables, x, noise)
    log_weights = np.float64(log_weights)
    bounds = [objectives.log_mean_exp(log_weights[:m]).mean(1) for m in (1, 2, 8, 32)]
    for fewer, more in zip(bounds, bounds[1:], strict=False):
        difference = np.float64(more - fewer)
        assert difference.mean() > 4 * difference.std() / 1000**0.5


def test_bound_of_many_samples_is_the_log_likelihood_s_estimate():
    """The noise, too, is that of `log_likelihood`: a function of (example, sample)."""
    autoencoder, variables, x = mild_case(VAE, "mog")
    estimate = log_likelihood.estimate(autoencoder, variables, x, num_samples=60, rng=RNG)

    @jax.jit
    def run(variables):
        shapes = autoencoder.network.latent_shapes
        noise = random_streams.sample_noise(RNG, jnp.arange(len(x)), 60, shapes)
        return run_bound(Iwae(60), autoencoder, variables, x, noise)

    value, terms = run(variables)
    np.testing.assert_allclose(value, estimate.log_likelihood, rtol=1e-5)
    np.testing.assert_allclose(terms.reconstruction, estimate.reconstruction, rtol=1e-5)


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
    autoencoder, variables, x = mild_case(kind, prior)
    noise = normal(autoencoder, count, num_samples, len(x))

    @jax.jit
    def run(variables):
        def gradients(objective):
            one = functools.partial(gradient_of, objective, autoencoder, variables, x, beta=beta)
            return jax.vmap(one)(noise)

        return [gradients(objective) for objective in both(num_samples)]

    standard, dreg = jax.device_get(run(variables))
    assert_close(other_part(dreg), other_part(standard))
    difference = encoder_part(dreg) - encoder_part(standard)
    spread = difference.std(axis=0)
    random = spread > 1e-5  # not where a clip of a log-variance leaves no gradient
    assert random.mean() > 0.7
    # Stopping all of q(z1|x,z2)'s parameters reaches 9 here; stopping the prior's components 100.
    assert np.max(np.abs(difference.mean(axis=0)[random]) / spread[random]) * count**0.5 < 5


def log_weights_by_role(autoencoder, path, score, others, x, noise, beta):
    """ln w [M, B] with one set of variables for each place where the encoder's stand."""
    (latents, _), top = autoencoder.draw(path, autoencoder.encode(path, x), noise), autoencoder.top
    z = latents[top]
    given = autoencoder.encode(score, x)
    log_q = given.top.log_prob(z)
    log_p = priors.log_prob(z, autoencoder.prior_density(others))
    if "z1" in latents:
        z1 = latents["z1"]
        log_q += autoencoder.apply(score, given.features, z, method="encode_z1").log_prob(z1)
        log_p += autoencoder.apply(others, z, method="prior_z1").log_prob(z1)
    heads, _ = autoencoder.decode(others, latents, x)
    reconstruction = likelihoods.log_prob(autoencoder.likelihood, x, heads, num_leading=2)
    return reconstruction + beta * (log_p - log_q)


@pytest.mark.parametrize(("kind", "prior", "beta"), [(VAE, "mog", 1.0), (HVAE, "vamp", 0.3)])
def test_each_role_of_the_parameters_has_its_weight(kind, prior, beta):
    """sum_m of v_m (all but path and score), v_m (1 - beta + beta v_m) (path), 0 (score)."""
    autoencoder, variables, x = mild_case(kind, prior)
    noise = normal(autoencoder, 3, len(x), seed=1)
    weight = np.array([0.7, -1.3], F32)  # of the examples in the loss

    @jax.jit
    def run(params):
        def of_roles(*roles):
            roles = [variables | {"params": role} for role in roles]
            return log_weights_by_role(autoencoder, *roles, x, noise, beta)

        ours = [
            gradient_of(
                objective, autoencoder, variables | {"params": params}, x, noise, weight, beta=beta
            )
            for objective in both(3)
        ]
        roles = (params, params, params)
        return of_roles(*roles), jax.jacrev(of_roles, argnums=(0, 1, 2))(*roles), ours

    log_weights, jacobians, (standard, dreg) = jax.device_get(run(variables["params"]))
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
    autoencoder, variables, x, _ = make_case(HVAE, "standard")
    model = jax.tree.map(np.copy, variables["params"]["model"])
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
    variables = variables | {"params": {"model": model, "prior": {}}}
    noise = normal(autoencoder, 5, len(x))

    @jax.jit
    def run(variables):
        value, _ = run_bound(Iwae(5), autoencoder, variables, x, noise)
        return value, [
            gradient_of(objective, autoencoder, variables, x, noise) for objective in both(5)
        ]

    value, (standard, dreg) = jax.device_get(run(variables))
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
    autoencoder, variables, x = mild_case(kind, "standard")
    model = jax.tree.map(np.copy, variables["params"]["model"])
    # Every distribution of z close to N(0, I), and p(x|z) to p(x): so is the true posterior.
    for name in model.keys() & {"q_z", "q_z1", "q_z2", "p_z1", "p_x"}:
        model[name] = jax.tree.map(lambda p: F32(0.05) * p, model[name])
    variables = variables | {"params": variables["params"] | {"model": model}}
    noise = normal(autoencoder, 500, 8, len(x))

    @jax.jit
    def run(variables):
        def gradients(objective):
            one = functools.partial(gradient_of, objective, autoencoder, variables, x)
            return jax.vmap(one)(noise)

        return [gradients(objective) for objective in both(8)]

    standard, dreg = (encoder_part(each).var(axis=0).sum() for each in run(variables))
    assert dreg < standard / 3


# ---------------------------------------------------------------------------------------------
# Extremes.


def test_extreme_weights_are_finite():
    """Log-weights below -1e4 and thousands apart: one sample has it all, and nothing overflows."""
    autoencoder, variables, x, _ = make_case(HVAE, "vamp")
    variables = jax.tree.map(lambda p: 8 * p, variables)
    noise = jax.tree.map(lambda part: 5 * part, normal(autoencoder, 6, len(x)))

    @jax.jit
    def run(variables):
        results = [
            (
                run_bound(objective, autoencoder, variables, x, noise)[0],
                gradient_of(objective, autoencoder, variables, x, noise),
            )
            for objective in both(6)
        ]
        return elbos(autoencoder, variables, x, noise), results

    log_weights, results = run(variables)
    assert np.ptp(log_weights, axis=0).max() > 1e3 and np.min(log_weights) < -1e4
    largest = np.max(log_weights, axis=0)
    for value, gradients in results:
        assert np.all((value >= largest - math.log(6) - 1e-2) & (value <= largest + 1e-2))
        chex.assert_tree_all_finite(gradients)
        assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(gradients))


def test_a_sample_of_weight_zero_counts_as_one_of_them():
    log_weights = jnp.array([[0.0, -jnp.inf], [-jnp.inf, 1e4]])
    np.testing.assert_allclose(
        objectives.log_mean_exp(log_weights), [-math.log(2), 1e4 - math.log(2)]
    )
    gradient = jax.grad(lambda v: jnp.sum(objectives.log_mean_exp(v)))(log_weights)
    np.testing.assert_array_equal(gradient, [[1.0, 0.0], [0.0, 1.0]])


def test_wrong_arguments_are_errors():
    autoencoder, variables, x = mild_case(VAE, "standard")
    noise = normal(autoencoder, 2, len(x))
    with pytest.raises(ValueError, match="'drag'"):
        Iwae(2, gradient="drag")
    for objective in (Elbo(2), Iwae(2)):
        with pytest.raises(ValueError, match="'M', 2, 4"):
            run_bound(objective, autoencoder, variables, x, {"z": noise["z"][0]})


def test_dreg_needs_a_density_at_given_points():
    """A posterior that only draws is refused in a sentence; the standard gradient takes it."""
    autoencoder, variables, x = mild_case(VAE, "standard")
    noise = normal(autoencoder, 2, len(x))
    prior, encoded = autoencoder.prior_density(variables), autoencoder.encode(variables, x)
    whole = Iwae(2).bound(autoencoder, variables, prior, encoded, noise)[0]
    encoded = encoded._replace(top=DrawsOnly(encoded.top))
    value = Iwae(2).bound(autoencoder, variables, prior, encoded, noise)[0]
    np.testing.assert_array_equal(value, whole)
    with pytest.raises(ValueError, match="the posterior of z, DrawsOnly, has no density"):
        Iwae(2, "dreg").bound(autoencoder, variables, prior, encoded, noise)


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class DrawsOnly:
    """A normal that is asked for nothing but draws and their density."""

    normal: Normal

    def sample_and_log_prob(self, noise):
        return self.normal.sample_and_log_prob(noise)
