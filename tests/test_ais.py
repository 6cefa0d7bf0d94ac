"""Annealed importance sampling against integrals that are known: quadrature and factor analysis."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.factor_analysis import GAUSSIAN, NOISE_LOG_VAR, factor_analysis
from tests.reference import SHAPE
from vamp_jax import ais, trainable_priors
from vamp_jax import annealed_likelihood as annealed
from vamp_jax.autoencoder import Autoencoder
from vamp_jax.flow_posteriors import Householder, Planar
from vamp_jax.posteriors import Normal

RNG = jax.random.key(3)
STARTS = {"posterior": annealed.POSTERIOR, "prior": annealed.PRIOR}


def keys_of(num_chains, num_problems, seed=0):
    return jax.random.split(jax.random.key(seed), (num_chains, num_problems))


def quartic(v):
    """f_0 = N(0, I) and r = 1 - (v - 1)^4 / 2, which falls off faster than any normal."""
    log_start = jnp.sum(jax.scipy.stats.norm.logpdf(v), axis=-1)
    return log_start, jnp.sum(1.0 - 0.5 * (v - 1.0) ** 4, axis=-1)


def quartic_mass(beta):
    """A grid, and f_beta / Z of one unit on it times the grid's step; and ln Z."""
    grid = np.linspace(-8, 8, 40_001)
    log_f = scipy.stats.norm.logpdf(grid) + beta * (1.0 - 0.5 * (grid - 1.0) ** 4)
    mass = np.exp(log_f) * (grid[1] - grid[0])
    return grid, mass / mass.sum(), np.log(mass.sum())


def test_schedule_rises_from_0_to_1():
    for count in (1, 2, 17, 1000):
        betas = ais.schedule(count)
        assert len(betas) == count + 1 and (betas[0], betas[-1]) == (0.0, 1.0)
        assert np.all(np.diff(betas) > 0)
    with pytest.raises(ValueError, match="num_distributions is 0"):
        ais.schedule(0)


@pytest.mark.parametrize("size", [0.08, 0.8])
def test_a_transition_leaves_its_density_as_it_is(size):
    """From exact draws, with steps so coarse that many are refused."""
    beta, count = 0.7, 20_000
    grid, mass, _ = quartic_mass(beta)
    rng = np.random.RandomState(0)
    v = rng.choice(grid, p=mass, size=(count, 1, 2)).astype("f")

    @jax.jit
    def run(v):
        for t in range(3):
            moved = ais.transition(quartic, keys_of(count, 1, t), v, beta, jnp.array([size]))
            v = moved.v
        return moved

    moved = run(v)
    assert (float(moved.acceptance.mean()) > 0.95) == (size < 0.1)
    after = np.float64(moved.v)
    assert np.mean(np.any(after != v, axis=-1)) > 0.5
    for function in (lambda z: z, np.square, lambda z: z**3, lambda z: z**4, np.tanh):
        found = function(after).reshape(-1)
        exact = (mass * function(grid)).sum()
        assert abs(found.mean() - exact) < 4 * found.std() / len(found) ** 0.5


def test_a_transition_is_hamilton_s():
    """The draw of one accepted step, by hand."""
    v, beta, size = jnp.array([[[0.3, -0.2]]]), 0.5, jnp.array([0.01])
    keys = keys_of(1, 1)
    moved = ais.transition(quartic, keys, v, beta, size)
    momentum, share, _ = ais._draw(keys, 2)
    z, p, step = np.float64(v[0, 0]), np.float64(momentum[0, 0]), 0.01 * float(share[0, 0])

    def gradient(z):
        return -z - beta * 2.0 * (z - 1.0) ** 3

    for _ in range(ais.LEAPFROG_STEPS):
        p = p + step / 2 * gradient(z)
        z = z + step * p
        p = p + step / 2 * gradient(z)
    np.testing.assert_allclose(moved.v[0, 0], z, rtol=1e-5)
    np.testing.assert_allclose(moved.ratio_before, quartic(v)[1])


def test_numbers_that_are_left_behind_move_nothing():
    def broken(v):
        bad = jnp.where(jnp.abs(v) > 0.5, jnp.nan, 0.0)
        return jnp.sum(-0.5 * v**2 + bad, axis=-1), jnp.zeros(v.shape[:-1])

    v = jnp.zeros((50, 1, 1))
    moved = ais.transition(broken, keys_of(50, 1), v, 1.0, jnp.array([5.0]))
    assert np.all(np.abs(moved.v) <= 0.5) and np.all(np.isfinite(moved.acceptance))


@pytest.mark.parametrize("betas", [ais.schedule(1), ais.schedule(2), ais.schedule(60)])
def test_weights_have_the_integral_as_their_mean_forward_and_backward(betas):
    count = 4000
    grid, mass, log_z = quartic_mass(1.0)
    sizes = jnp.full((len(betas), 1), 0.15)

    @functools.partial(jax.jit, static_argnums=1)
    def run(v, forward):
        ways = (betas, sizes) if forward else (betas[::-1], sizes[::-1])
        return ais.anneal(quartic, keys_of(count, 1), v, *ways).log_weight[:, 0]

    rng = np.random.RandomState(1)
    starts = rng.standard_normal((count, 1, 1)), rng.choice(grid, p=mass, size=(count, 1, 1))
    for v, forward in zip(starts, (True, False), strict=True):
        log_weight = np.float64(run(v.astype("f"), forward))  # ln w, or -ln w backward
        weight = np.exp(log_weight - log_z if forward else log_weight + log_z)
        if forward or len(betas) > 10:  # 1/w of few steps has no variance to speak of
            assert abs(weight.mean() - 1) < 4 * weight.std() / count**0.5 + 1e-3
    if len(betas) > 10:
        assert weight.std() < 0.5


def test_burn_in_finds_step_sizes_that_are_accepted():
    """Of two problems whose widths differ by thirty."""
    scale = jnp.array([1.0, 1 / 30])[:, None]

    def narrow(v):
        return jnp.sum(-0.5 * v**2, axis=-1), jnp.sum(-0.5 * (v / scale) ** 2, axis=-1)

    betas = ais.schedule(100)
    v = jax.random.normal(RNG, (16, 2, 10))

    @jax.jit
    def run():
        sizes = ais.tune(narrow, keys_of(16, 2), v, betas[1:], betas)
        return sizes, ais.anneal(narrow, keys_of(16, 2, 1), v, betas, sizes).acceptance

    sizes, acceptance = run()
    assert sizes.shape == (101, 2)
    assert np.all((acceptance > 0.5) & (acceptance < 0.85))
    assert sizes[-1, 0] > 10 * sizes[-1, 1]


# ---------------------------------------------------------------------------------------------
# Models.


def run_estimate(case, start, **settings):
    autoencoder, variables, x, _ = case
    settings = dict(num_distributions=60, num_chains=8, rng=RNG) | settings
    return annealed.estimate(autoencoder, variables, x, start=STARTS[start], **settings)


def check(found, evidence):
    """Each example within its error, and their mean within its own."""
    deviation = np.float64(found.log_likelihood) - evidence
    error = np.float64(found.standard_error)
    assert error.max() < 0.5
    assert np.all(np.abs(deviation) < 4 * error + 0.02)
    assert abs(deviation.mean()) < 3 * np.sqrt((error**2).sum()) / len(error) + 0.01


def test_factor_analysis_has_its_evidence():
    case = factor_analysis("vamp")
    found = run_estimate(case, "prior", num_distributions=200)
    check(found, case[-1])
    assert np.all((found.acceptance > 0.4) & (found.acceptance <= 1))
    assert np.all((found.effective_chains >= 1) & (found.effective_chains <= 8))


class DeepLinear(nn.Module):
    """z_3 ~ N(0, I), z_l = B z_{l+1} + e / 2, x = W z_1 + e; q(z_l|x) is crude, with a flow."""

    kind: str
    x_shape = SHAPE
    sample_x = None
    convolutional = False
    latent_shapes = {"z1": (3,), "z2": (2,), "z3": (2,)}

    def encode(self, x):
        h = 0.1 * x.reshape(*x.shape[:-3], 6)[..., :2]
        base = Normal(h, jnp.full(h.shape, 0.2))
        ones = jnp.ones((*h.shape[:-1], 2, 2))
        if self.kind == "planar":
            return Planar(base, 0.4 * ones, 0.3 * ones, ones[..., 0])
        return Householder(base, ones * jnp.array([1.0, 0.3]))

    def features(self, x):
        return x.reshape(*x.shape[:-3], 6)

    def posteriors(self, top, features, latents):
        z1 = Normal(0.2 * features[..., :3], jnp.full(3, -0.3))
        z2 = Normal(0.4 * latents["z3"], jnp.full(2, -0.3))
        return {"z1": z1, "z2": z2, "z3": top}

    def infer(self, top, features, noise):
        z, log_q = {}, {}
        z["z3"], log_q["z3"] = top.sample_and_log_prob(noise["z3"])
        found = self.posteriors(top, features, z)
        for layer in ("z2", "z1"):
            z[layer], log_q[layer] = found[layer].sample_and_log_prob(noise[layer])
        return z, log_q

    def conditional_priors(self, latents):
        b2, b1, _ = weights()
        noise = -2 * np.log(2.0)
        return {
            "z1": Normal(latents["z2"] @ b1.T, jnp.full(3, noise)),
            "z2": Normal(latents["z3"] @ b2.T, jnp.full(2, noise)),
        }

    def descend(self, z_top, noise):
        b2, b1, _ = weights()
        z2 = z_top @ b2.T + noise["z2"] / 2
        return {"z1": z2 @ b1.T + noise["z1"] / 2, "z2": z2, "z3": z_top}

    def decode(self, latents, x=None):
        z = latents["z1"]
        return ((z @ weights()[-1].T).reshape(*z.shape[:-1], *SHAPE),)


def weights():
    rng = np.random.RandomState(5)
    return [0.5 * rng.standard_normal(shape).astype("f") for shape in ((2, 2), (3, 2), (6, 3))]


def evidence_of_deep_linear():
    """p(x) of three layers, a normal."""
    b2, b1, w = map(np.float64, weights())
    covariance = b1 @ (b2 @ b2.T + np.eye(2) / 4) @ b1.T + np.eye(3) / 4
    return scipy.stats.multivariate_normal(
        np.zeros(6), w @ covariance @ w.T + np.exp(NOISE_LOG_VAR) * np.eye(6)
    )


def deep_linear(kind):
    """(autoencoder, variables, x, ln p(x)) of three layers; x from the model."""
    of_x = evidence_of_deep_linear()
    x = of_x.rvs(9, random_state=0).astype("f")
    autoencoder = Autoencoder(DeepLinear(kind), trainable_priors.standard(2), GAUSSIAN)
    variables = {"params": {"model": {}, "prior": {}}, "batch_stats": {}, "constants": {}}
    return autoencoder, variables, x.reshape(-1, *SHAPE), of_x.logpdf(x)


def test_three_layers_and_a_posterior_without_inverse_have_their_evidence():
    case = deep_linear("planar")
    check(run_estimate(case, "posterior", num_distributions=400, num_chains=16), case[-1])


@pytest.mark.slow
@pytest.mark.parametrize("start", STARTS)
def test_simulated_data_hold_the_evidence_between_two_bounds(start):
    autoencoder, variables, _, _ = deep_linear("householder")
    x, latents = annealed.simulate(autoencoder, variables, jax.random.key(8), 24)
    case = autoencoder, variables, x, None
    below, above = (
        run_estimate(case, start, num_distributions=400, latents=given) for given in (None, latents)
    )
    evidence = evidence_of_deep_linear().logpdf(x.reshape(24, 6))
    check(below, evidence)
    # The chains of an example share their beginning, so that their spread is not all of the error.
    deviation = np.float64(above.log_likelihood) - evidence
    assert np.abs(deviation).max() < 1.5
    assert abs(deviation.mean()) < 4 * deviation.std() / 24**0.5 + 0.02
    gap = np.float64(above.log_likelihood - below.log_likelihood)
    assert -0.05 < gap.mean() < 0.2


def test_chains_do_not_run_backward_from_a_posterior_without_an_inverse():
    autoencoder, variables, x, _ = deep_linear("planar")
    latents = {"z1": np.zeros((9, 3)), "z2": np.zeros((9, 2)), "z3": np.zeros((9, 2))}
    with pytest.raises(ValueError, match="z3, Planar, has no known inverse"):
        run_estimate((autoencoder, variables, x, None), "posterior", latents=latents)


def test_one_step_is_importance_sampling():
    autoencoder, variables, x, _ = case = factor_analysis(count=5)
    found = run_estimate(case, "posterior", num_distributions=1, num_chains=50)
    keys = jax.vmap(lambda i: jax.random.fold_in(RNG, i))(jnp.arange(5))
    keys = jax.vmap(lambda k: jax.vmap(lambda c: jax.random.fold_in(k, c))(jnp.arange(50)))(keys).T
    start = jax.vmap(jax.vmap(lambda key: jax.random.fold_in(key, annealed.START)))(keys)
    noise = jax.vmap(jax.vmap(lambda key: jax.random.normal(key, (3,))))(start)
    prior = autoencoder.prior_density(variables)
    terms, _ = autoencoder.terms(variables, prior, autoencoder.encode(variables, x), {"z": noise})
    expected = scipy.special.logsumexp(np.float64(terms.elbo()), axis=0) - np.log(50)
    np.testing.assert_allclose(found.log_likelihood, expected, rtol=1e-5)


def test_an_interrupted_estimate_goes_on_with_the_same_bits_and_batches_change_nothing():
    case = factor_analysis(count=11)
    settings = dict(num_distributions=5, num_chains=2, rows=2)
    done = []
    whole = run_estimate(case, "posterior", report=done.append, **settings)
    assert [len(part.log_likelihood) for part in done] == [8, 11]
    chex.assert_trees_all_equal(run_estimate(case, "posterior", done=done[0], **settings), whole)
    autoencoder, variables, x, evidence = case
    some = (autoencoder, variables, x[3:9], evidence)
    again = run_estimate(
        some, "posterior", index=np.arange(3, 9), num_distributions=5, num_chains=2
    )
    of_some = jax.tree.map(lambda leaf: leaf[3:9], whole)
    chex.assert_trees_all_close(again, of_some, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrong", [dict(num_chains=1), dict(index=np.arange(3))])
def test_what_cannot_be_estimated_is_a_sentence(wrong):
    with pytest.raises(ValueError, match="two chains at least"):
        run_estimate(factor_analysis(), "posterior", **wrong)
    empty = (*factor_analysis()[:2], np.zeros((0, *SHAPE)), None)
    with pytest.raises(ValueError, match="x must be"):
        run_estimate(empty, "posterior")
