"""The diagnostics on cases with a known answer."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

from tests.cases import plan_for, small_config, small_data, variables_for
from vamp_jax import diagnostics, priors
from vamp_jax.evaluation import diagnose
from vamp_jax.priors import GaussianMixture

GAUSSIAN_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


def test_active_units_are_those_above_a_hundredth():
    signs = np.array([[1.0], [-1.0]] * 10, np.float32)
    means = signs * np.sqrt(np.array([0.0, 0.009, 0.011, 4.0], np.float32)) + 5.0
    np.testing.assert_allclose(
        diagnostics.unit_variances(means), [0.0, 0.009, 0.011, 4.0], atol=1e-6
    )
    assert int(diagnostics.active_units(means)) == 2


def test_entropy_is_scipys():
    log_var = np.array([[-6.0, 0.0, 2.0], [1.0, 1.0, 1.0]], np.float32)
    expected = [
        scipy.stats.multivariate_normal(np.zeros(3), np.diag(np.exp(row))).entropy()
        for row in log_var.astype(np.float64)
    ]
    np.testing.assert_allclose(diagnostics.normal_entropy(log_var), expected, rtol=1e-6)
    several = np.stack([log_var] * 4)  # [4, 2, 3]
    np.testing.assert_allclose(diagnostics.normal_entropy(several), [expected] * 4, rtol=1e-6)


def decomposition(mean, log_var, prior, draws=4000):
    rng = np.random.RandomState(0)
    shape = (draws, *mean.shape)
    z = mean + np.exp(log_var / 2) * rng.normal(size=shape)
    log_posterior = scipy.stats.norm.logpdf(z, mean, np.exp(log_var / 2)).sum(-1).ravel()
    z = z.reshape(-1, mean.shape[1])
    aggregated = diagnostics.aggregated_posterior(mean, log_var)
    log_q, log_p = priors.log_prob(z, aggregated), priors.log_prob(z, prior)
    return diagnostics.decompose(log_posterior, log_q, log_p, jnp.asarray(log_var))


def test_decomposition_where_the_posterior_is_the_prior():
    """q(z|x) = N(0, I) for every x: nothing is known of x, and q(z) = p(z)."""
    zeros = np.zeros((5, 3), np.float32)
    terms = decomposition(zeros, zeros, priors.standard_normal(latent_dim=3))
    assert float(terms.encoder_entropy) == pytest.approx(3 * GAUSSIAN_ENTROPY, rel=1e-5)
    assert float(terms.cross_entropy) == pytest.approx(3 * GAUSSIAN_ENTROPY, rel=1e-5)
    assert float(terms.kl_to_prior) == pytest.approx(0.0, abs=1e-5)
    assert float(terms.mutual_information) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 40])
def test_decomposition_of_posteriors_far_apart(latent_dim):
    """N posteriors that do not meet tell x apart: I(x; z) = ln N, be there one draw of each."""
    mean = np.tile(100.0 * np.arange(7, dtype=np.float32)[:, None], latent_dim)
    log_var = np.linspace(-6, 2, 7 * latent_dim, dtype=np.float32).reshape(7, latent_dim)
    prior = GaussianMixture(jnp.asarray(mean), jnp.asarray(log_var), jnp.full(7, -math.log(7)))
    terms = decomposition(mean, log_var, prior, draws=1)
    assert float(terms.mutual_information) == pytest.approx(math.log(7), abs=2e-4)
    assert float(terms.kl_to_prior) == pytest.approx(0.0, abs=1e-5)


def test_decomposition_of_two_posteriors_that_overlap():
    """I(x; z) and H[q(z)] are the integrals."""
    mean, log_var = np.array([[-0.7], [0.9]], np.float32), np.array([[0.3], [-1.0]], np.float32)

    def q(z):
        return 0.5 * scipy.stats.norm.pdf(z, mean.ravel(), np.exp(log_var.ravel() / 2)).sum()

    entropy = scipy.integrate.quad(lambda z: -q(z) * np.log(q(z)), -12, 12)[0]
    encoder_entropy = GAUSSIAN_ENTROPY + 0.5 * float(log_var.mean())
    terms = decomposition(mean, log_var, priors.standard_normal(latent_dim=1), draws=40000)
    assert float(terms.aggregated_entropy) == pytest.approx(entropy, abs=0.01)
    assert float(terms.mutual_information) == pytest.approx(entropy - encoder_entropy, abs=0.01)
    cross_entropy = 0.5 * (math.log(2 * math.pi) + float((mean**2 + np.exp(log_var)).mean()))
    assert float(terms.cross_entropy) == pytest.approx(cross_entropy, abs=0.02)


def test_decomposition_s_kl_is_that_of_two_gaussians():
    mean, log_var = np.full((4, 1), 1.0, np.float32), np.full((4, 1), -1.0, np.float32)
    terms = decomposition(mean, log_var, priors.standard_normal(latent_dim=1), draws=20000)
    expected = 0.5 * (math.exp(-1.0) + 1.0 - 1.0 + 1.0)
    assert float(terms.kl_to_prior) == pytest.approx(expected, abs=0.02)


def test_kl_of_units_in_closed_form_is_the_integral():
    q, p = (0.7, -1.2), (-0.4, 0.9)

    def integrand(z):
        density, other = (scipy.stats.norm(m, math.exp(v / 2)) for m, v in (q, p))
        return density.pdf(z) * (density.logpdf(z) - other.logpdf(z))

    expected, _ = scipy.integrate.quad(integrand, -20, 20)
    result = diagnostics.normal_kl_per_unit(*(jnp.asarray([v]) for v in (*q, *p)))
    np.testing.assert_allclose(result, [expected], rtol=1e-5)


def test_kl_of_units_against_the_mixture_s_marginals():
    """Against scipy, unit by unit; and it is the layer's own where the prior has one component."""
    rng = np.random.RandomState(0)
    mean, log_var, z = rng.normal(size=(3, 6, 2)).astype(np.float32)
    components = rng.normal(size=(2, 5, 2)).astype(np.float32)
    weight = rng.dirichlet(np.ones(5))
    prior = GaussianMixture(*components, np.log(weight).astype(np.float32))
    result = diagnostics.marginal_kl_per_unit(z, mean, log_var, prior)
    for b in range(6):
        for u in range(2):
            log_q = scipy.stats.norm.logpdf(z[b, u], mean[b, u], np.exp(log_var[b, u] / 2))
            p = scipy.stats.norm.pdf(
                z[b, u], components[0][:, u], np.exp(components[1][:, u].astype(np.float64) / 2)
            )
            assert float(result[b, u]) == pytest.approx(log_q - np.log(weight @ p), abs=2e-5)
    normal = priors.standard_normal(latent_dim=2)
    layer = jax.scipy.stats.norm.logpdf(z, mean, jnp.exp(log_var / 2)).sum(-1)
    layer -= priors.log_prob(z, normal)
    sums = diagnostics.marginal_kl_per_unit(z, mean, log_var, normal).sum(-1)
    np.testing.assert_allclose(sums, layer, rtol=1e-5, atol=1e-5)


def test_prior_use_counts_who_has_what():
    """Four components far apart: three points at the first, one at the second, none elsewhere."""
    mean = jnp.asarray([[0.0], [50.0], [100.0], [150.0]])
    prior = GaussianMixture(mean, jnp.zeros((4, 1)), jnp.full(4, -math.log(4)))
    use = diagnostics.prior_use(jnp.asarray([[0.1], [-0.2], [0.0], [50.0]]), prior)
    np.testing.assert_allclose(use.mass, [0.75, 0.25, 0.0, 0.0], atol=1e-6)
    assert int(use.dead) == 2
    assert float(use.entropy) == pytest.approx(scipy.stats.entropy([0.75, 0.25]), rel=1e-5)


def test_pseudo_inputs_moved_and_at_the_clip():
    start = jnp.asarray([[0.5, 0.5, 0.5, 0.5], [0.0, 0.2, 0.9, 1.0]])
    now = jnp.asarray([[0.5, 0.5, 0.5, 0.7], [-3.0, 0.2, 0.9, 7.0]])
    use = diagnostics.pseudo_input_use(now, start)
    np.testing.assert_allclose(use["distance"], [0.1, 0.0], atol=1e-6)
    assert float(use["at_clip"]) == 0.25


@pytest.mark.parametrize(("model", "prior"), [("vae", "standard"), ("hvae", "vamp")])
def test_inspection_of_a_model(model, prior):
    """Over a whole split: the terms are those of the definition, and add up to the ELBO."""
    config, data = small_config(model=model, prior=prior), small_data(count=600)
    plan = plan_for(config, data)
    autoencoder, variables = plan.autoencoder, variables_for(plan, data)
    x = np.asarray(plan.inputs.of(data.train) > 0.5, np.float32)
    steps = []
    found = diagnose.inspect(autoencoder, variables, x, jax.random.key(0), steps.append)
    assert steps == [500, 600, 1100, 1200]
    mean, log_var = autoencoder.apply(variables, x, method="encode")
    top = "z" if model == "vae" else "z2"
    assert found["active_units"][top] == int((np.var(np.asarray(mean), axis=0) > 0.01).sum())
    assert len(found["unit_kl"][top]) == len(found["unit_variance"][top]) == config.latent_dim
    entropy = GAUSSIAN_ENTROPY * config.latent_dim + 0.5 * float(log_var.sum(-1).mean())
    assert found["encoder_entropy"] == pytest.approx(entropy, rel=1e-5)
    sampled = found["reconstruction"] - sum(found["kl"].values())
    assert found["elbo"] == pytest.approx(sampled, abs=1e-3)
    assert 0 <= found["mutual_information"] + 0.1 and found["mutual_information"] <= math.log(600)
    if prior == "vamp":
        assert sum(found["prior_use"]["mass"]) == pytest.approx(1.0, abs=1e-4)
        learned = variables["params"]["prior"]["pseudo_inputs"]
        use = diagnose.pseudo_inputs(autoencoder, variables, learned)
        assert use["mean_distance"] == use["dead_values"] == 0.0
