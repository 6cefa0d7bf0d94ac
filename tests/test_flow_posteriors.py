"""Posteriors with flows: densities by autodiff, and the evidence of small models by quadrature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.cases import plan_for, small_config, small_data, variables_for
from vamp_jax import choices, config_checks, flows, likelihoods, log_likelihood, priors
from vamp_jax.autoencoder import compiled_prior
from vamp_jax.errors import UsageError
from vamp_jax.flow_posteriors import Householder
from vamp_jax.posteriors import Normal
from vamp_jax.priors import GaussianMixture
from vamp_jax.priors.rotated import RotatedMixture
from vamp_jax.training import plans

HIDDEN = 6


def head_of(name, dim, num_flows=3):
    """The end of an encoder with random weights: (function of h, h [4, HIDDEN])."""
    config = small_config(posterior=name, num_flows=num_flows)
    kernel_init = choices.DENSE_INITS["glorot"](config)
    head = choices.POSTERIORS[name](config)(dim, kernel_init)
    rng = np.random.RandomState(dim)
    h = jnp.asarray(rng.standard_normal((4, HIDDEN)), jnp.float32)
    params = head.init(jax.random.key(0), h)
    moved = jax.tree.map(lambda p: p + 0.1 * rng.standard_normal(p.shape).astype("f"), params)
    return lambda h: head.apply(moved, h), h


@pytest.mark.parametrize("dim", [1, 4])
@pytest.mark.parametrize("name", choices.POSTERIORS)
def test_log_q_is_that_of_the_noise_less_the_log_determinant(name, dim):
    head, h = head_of(name, dim)
    noise = jnp.asarray(np.random.RandomState(1).standard_normal((4, dim)), jnp.float32)

    @jax.jit
    def run(noise):
        def one(h, noise):
            return head(h[None]).sample_and_log_prob(noise[None])[0][0]

        return head(h).sample_and_log_prob(noise), jax.vmap(jax.jacfwd(one, argnums=1))(h, noise)

    (z, log_q), jacobian = run(noise)
    log_noise = scipy.stats.norm.logpdf(np.float64(noise)).sum(-1)
    expected = log_noise - np.linalg.slogdet(np.float64(jacobian))[1]
    assert z.shape == (4, dim)
    np.testing.assert_allclose(log_q, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", choices.POSTERIORS)
def test_many_samples_of_an_example_are_separate_calls(name):
    head, h = head_of(name, 4)
    noise = jnp.asarray(np.random.RandomState(1).standard_normal((3, 4, 4)), jnp.float32)
    run = jax.jit(lambda noise: head(h).sample_and_log_prob(noise))
    z, log_q = run(noise)
    assert z.shape == (3, 4, 4) and log_q.shape == (3, 4)
    for i, one in enumerate(noise):
        z_one, log_q_one = run(one)
        np.testing.assert_allclose(z[i], z_one, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(log_q[i], log_q_one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", choices.POSTERIORS)
def test_a_density_at_a_given_point_is_that_of_the_draw_where_there_is_one(name):
    head, h = head_of(name, 4)
    posterior = head(h)
    noise = np.random.RandomState(1).standard_normal((4, 4)).astype("f")
    z, log_q = posterior.sample_and_log_prob(noise)
    has_density = name in ("normal", "householder")
    assert hasattr(posterior, "log_prob") is has_density
    if has_density:
        np.testing.assert_allclose(posterior.log_prob(z), log_q, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["planar", "sylvester", "householder_sylvester", "iaf"])
def test_flows_start_near_the_identity(name):
    config = small_config(posterior=name)
    head = choices.POSTERIORS[name](config)(5, choices.DENSE_INITS["glorot"](config))
    h = jnp.asarray(np.random.RandomState(0).standard_normal((4, HIDDEN)), jnp.float32)
    posterior = head.apply(head.init(jax.random.key(0), h), h)
    noise = np.random.RandomState(1).standard_normal((4, 5)).astype("f")
    z, log_q = posterior.sample_and_log_prob(noise)
    base, log_base = posterior.base.sample_and_log_prob(noise)
    if name == "iaf":  # sigma = sigmoid(2), m = 0, in each step
        sigma = scipy.special.expit(2.0) ** config.num_flows
        base = np.flip(base, -1) if config.num_flows % 2 == 0 else base
        np.testing.assert_allclose(z, sigma * base, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_allclose(z, base, atol=1e-5)
        np.testing.assert_allclose(log_q, log_base, atol=1e-5)


def householder_case(num_components, dim, seed=0):
    rng = np.random.RandomState(seed)
    mean, log_var = rng.standard_normal((2, num_components, dim)).astype("f")
    v = rng.standard_normal((num_components, 3, dim)).astype("f")
    return Householder(Normal(mean, log_var), v)


def mixture_of(posterior):
    mean, log_var, rotation = posterior.component
    count = len(mean)
    return RotatedMixture(GaussianMixture(mean, log_var, jnp.full(count, -np.log(count))), rotation)


@pytest.mark.parametrize(("num_components", "dim"), [(1, 1), (1, 3), (5, 1), (6, 4)])
def test_householder_components_are_normals_with_full_covariance(num_components, dim):
    posterior = householder_case(num_components, dim)
    prior = mixture_of(posterior)
    z = np.random.RandomState(1).standard_normal((7, dim)).astype("f")
    rotation = np.float64(flows.householder_matrix(posterior.v))
    joint = np.stack(
        [
            scipy.stats.multivariate_normal(r @ mean, r @ np.diag(np.exp(log_var)) @ r.T).logpdf(z)
            for r, mean, log_var in zip(rotation, *np.float64(posterior.base), strict=True)
        ]
    ).reshape(num_components, 7)
    expected = scipy.special.logsumexp(joint, axis=0) - np.log(num_components)
    np.testing.assert_allclose(prior.log_prob(z), expected, rtol=1e-5, atol=1e-5)
    shares = scipy.special.softmax(joint, axis=0).T
    np.testing.assert_allclose(prior.responsibilities(z), shares, atol=1e-5)
    # The VampPrior is the mixture of the posteriors, point by point.
    by_posterior = jnp.stack([jax.jit(posterior.log_prob)(point) for point in z])
    np.testing.assert_allclose(by_posterior, joint.T, rtol=1e-4, atol=1e-4)


def test_the_centre_of_a_posterior_is_its_mean_after_the_flow():
    """A pseudo-input's own component lies there, so that it may be compared with components."""
    config = small_config(model="vae", prior="vamp", posterior="householder")
    data = small_data()
    plan = plan_for(config, data)
    variables = variables_for(plan, data)
    model = plan.autoencoder
    centres = jax.jit(model.top_centre)(variables, model.pseudo_inputs(variables))
    means = compiled_prior(model, variables).component_means()
    np.testing.assert_allclose(centres, means, atol=1e-5)
    base = model.encode(variables, model.pseudo_inputs(variables)).top.base.mean
    assert np.abs(base - means).max() > 1e-2


def test_rotated_mixture_s_sampler_has_its_moments():
    posterior = householder_case(4, 3)
    prior = mixture_of(posterior)
    drawn = np.float64(prior.sample(jax.random.key(0), 40_000))
    means = np.float64(prior.component_means())
    error = drawn.std(0) / 200
    assert np.all(np.abs(drawn.mean(0) - means.mean(0)) < 4 * error)
    covariances = [
        np.cov(np.float64(prior.sample(jax.random.key(k), 20_000, component=k)).T) for k in range(4)
    ]
    rotation = np.float64(flows.householder_matrix(posterior.v))
    for k, found in enumerate(covariances):
        exact = rotation[k] @ np.diag(np.exp(np.float64(posterior.base.log_var[k]))) @ rotation[k].T
        np.testing.assert_allclose(found, exact, atol=0.06 * np.trace(exact))


def test_rotated_mixture_s_memory_does_not_grow_with_all_three_sizes():
    prior = mixture_of(householder_case(300, 40))
    z = jax.ShapeDtypeStruct((20_000, 40), jnp.float32)
    analysis = jax.jit(lambda z: prior.log_prob(z)).lower(z).compile().memory_analysis()
    assert analysis.temp_size_in_bytes < 200 << 20  # [S, K, D] would take 960 MB


def test_a_warped_rotated_mixture_is_its_base_s_density_times_the_determinant():
    base = mixture_of(householder_case(4, 3))
    flow = priors.init_flow(jax.random.key(0), 3, num_layers=2, hidden=(5,))["flow"]
    rng = np.random.RandomState(0)
    flow = jax.tree.map(lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype("f"), flow)
    prior = priors.warp(base, flow)
    z = jnp.asarray(rng.standard_normal((5, 3)), jnp.float32)

    @jax.jit
    def run(z):
        def move(z):
            return flows.couplings(z, flow)[0]

        warped, rng = move(z), jax.random.key(1)
        drawn = move(prior.sample(rng, 6)), base.sample(rng, 6)
        means = move(prior.component_means()), base.component_means()
        shares = prior.responsibilities(z), base.responsibilities(warped)
        densities = prior.log_prob(z), base.log_prob(warped)
        return densities, jax.vmap(jax.jacfwd(move))(z), shares, means, drawn

    (log_p, log_base), jacobian, *pairs = run(z)
    expected = np.float64(log_base) + np.linalg.slogdet(np.float64(jacobian))[1]
    np.testing.assert_allclose(log_p, expected, rtol=1e-4, atol=1e-4)
    for found, of_base in pairs:
        np.testing.assert_allclose(found, of_base, rtol=1e-3, atol=1e-3)
    with pytest.raises(ValueError, match="the flow was made for D = 3"):
        priors.warp(mixture_of(householder_case(4, 2)), flow)


def evidence_by_quadrature(autoencoder, variables, x):
    """ln p(x) [N] of a model with two latent units: a sum over a grid."""
    side = np.linspace(-9.0, 9.0, 241)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2).astype("f")

    @jax.jit
    def joint(variables, z):
        log_p = autoencoder.prior_density(variables).log_prob(z)
        heads, _ = autoencoder.decode(variables, {"z": z[:, None]}, None)
        return log_p[:, None] + likelihoods.log_prob(autoencoder.likelihood, x, heads, 2)

    parts = [np.float64(joint(variables, part)) for part in np.split(grid, 241)]
    area = (side[1] - side[0]) ** 2
    return scipy.special.logsumexp(np.concatenate(parts), axis=0) + np.log(area)


ALL_PAIRS = list(itertools.product(choices.POSTERIORS, choices.PRIORS))
QUICK = {("householder", "vamp_flow"), ("iaf", "vamp_flow")}


@pytest.mark.parametrize(
    ("posterior", "prior"),
    [pytest.param(*pair, marks=() if pair in QUICK else pytest.mark.slow) for pair in ALL_PAIRS],
)
def test_importance_sampling_agrees_with_quadrature(posterior, prior):
    """Every posterior with every prior, on a model of two latent units with random weights."""
    fields = dict(posterior=posterior, prior=prior, latent_dim=2, model="vae", num_components=6)
    config, data = small_config(**fields), small_data()
    plan = plans.make(config, data)
    rng = np.random.RandomState(0)
    variables = variables_for(plan, data)

    def moved(path, leaf):
        # Wide posteriors: a proposal that is narrower than the posterior misses its tails.
        name = jax.tree_util.keystr(path)
        wider = 2.2 if posterior == "iaf" else 1.0  # its steps start by narrowing
        wider = wider if "q_z" in name and "log_var" in name and "bias" in name else 0.0
        return leaf + wider + 0.04 * rng.standard_normal(leaf.shape).astype("f")

    params = jax.tree_util.tree_map_with_path(moved, variables["params"])
    variables = variables | {"params": params}
    x = np.asarray(plan.inputs.of(data.train))[:20].round()
    exact = evidence_by_quadrature(plan.autoencoder, variables, x)
    samples = 20_000
    found = log_likelihood.estimate(
        plan.autoencoder, variables, x, num_samples=samples, rng=jax.random.key(0)
    )
    error = np.sqrt(1 / found.effective_sample_size - 1 / samples)
    sure = error < 0.04  # a larger error is itself a guess
    assert sure.sum() >= 10
    away = (np.abs(found.log_likelihood - exact)[sure] - 1e-3) / error[sure]
    assert away.max() < 4 and np.mean(away**2) < 2.5  # 3 of one alone would fail by chance


@pytest.mark.parametrize(
    "fields",
    [
        dict(posterior="iaf", importance_gradient="dreg"),
        dict(posterior="normal", num_flows=2),
        dict(prior="vamp", stop_components=True),
        dict(prior="flow", stop_components=True),  # has no components
    ],
)
def test_pairs_that_cannot_be_are_one_sentence(fields):
    with pytest.raises(UsageError):
        config_checks.check(small_config(**fields))
