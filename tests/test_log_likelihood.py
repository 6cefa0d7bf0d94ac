"""The importance-sampled log-likelihood against evidence known in closed form (factor analysis)."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from tests.test_objectives import make_case
from vamp_jax import distributions, log_likelihood, objectives, priors
from vamp_jax.models.hvae import HVAE
from vamp_jax.objectives import Objective

F32 = np.float32
SHAPE = (3, 2, 1)
NOISE_LOG_VAR = -1.0
RNG = jax.random.key(11)


class LinearGaussian(nn.Module):
    """x = W z + b + e with e ~ N(0, s^2 I), and the posterior N(A (x - b) + o, diag(v))."""

    latent_dim: int
    likelihood: str = "normal"
    image_shape: tuple[int, ...] = SHAPE
    num_layers: int = 1
    autoregressive: bool = False

    def setup(self):
        zeros = nn.initializers.zeros
        self.W = self.param("W", zeros, (6, self.latent_dim))
        self.b = self.param("b", zeros, (6,))
        self.A = self.param("A", zeros, (self.latent_dim, 6))
        self.o = self.param("o", zeros, (self.latent_dim,))
        self.log_v = self.param("log_v", zeros, (self.latent_dim,))

    def encode(self, x):
        mean = (x.reshape(*x.shape[:-3], 6) - self.b) @ self.A.T + self.o
        return mean, jnp.broadcast_to(self.log_v, mean.shape)

    def decode(self, z):
        return ((z @ self.W.T + self.b).reshape(*z.shape[:-1], *SHAPE),)


class FactorAnalysis(Objective):
    """The ELBO's terms with a Gaussian p(x|z) in place of the likelihoods of images."""

    def terms(self, variables, prior, encoded, noise):
        (z,), (posterior,) = self.draw(variables, encoded, noise)
        ((mean,), _) = self.decode(variables, (z,), encoded.x)
        x, mean = (part.reshape(*part.shape[:-3], 6) for part in (encoded.x, mean))
        kl = distributions.normal_log_prob(z, *posterior) - priors.log_prob(z, prior)
        reconstruction = distributions.normal_log_prob(x, mean, jnp.full(6, NOISE_LOG_VAR))
        return objectives.Terms(reconstruction, {"z": kl}), variables["batch_stats"]


def factor_analysis(prior="standard", *, exact=False, count=13):
    """(objective, variables, images, ln p(x) [N]) of a random model.

    With `exact` W has orthogonal columns and q(z|x) is the posterior; else q is too wide and off.
    """
    rng = np.random.RandomState(0)
    W, b = rng.standard_normal((6, 3)), rng.standard_normal(6)
    if exact:
        W = np.linalg.qr(W)[0] * [0.7, 1.0, 1.5]
    noise_var = np.exp(NOISE_LOG_VAR)
    covariance = np.linalg.inv(np.eye(3) + W.T @ W / noise_var)
    A = covariance @ W.T / noise_var
    variance = np.diag(covariance) * (1.0 if exact else 1.4)
    offset = np.zeros(3) if exact else 0.1 * np.ones(3)
    model = {"W": W, "b": b, "A": A, "o": offset, "log_v": np.log(variance)}
    params = {"model": jax.tree.map(F32, model), "prior": {}}

    # The evidence: each Gaussian of the prior pushed through the linear model.
    mean, log_var = np.zeros((1, 3)), np.zeros((1, 3))
    if prior == "vamp":
        u = rng.uniform(size=(4, *SHAPE))
        params["prior"] = {"pseudo_inputs": u.astype(F32)}
        mean = (u.reshape(4, 6) - b) @ A.T + offset
        log_var = np.broadcast_to(np.log(variance), (4, 3))
    k = rng.randint(len(mean), size=count)
    z = mean[k] + np.exp(0.5 * log_var[k]) * rng.standard_normal((count, 3))
    images = z @ W.T + b + noise_var**0.5 * rng.standard_normal((count, 6))
    images = images.astype(F32)
    parts = [
        scipy.stats.multivariate_normal(
            W @ m + b, W @ np.diag(np.exp(v)) @ W.T + noise_var * np.eye(6)
        ).logpdf(images)
        for m, v in zip(mean, log_var, strict=True)
    ]
    evidence = scipy.special.logsumexp(np.stack(parts), axis=0) - np.log(len(parts))
    objective = FactorAnalysis(LinearGaussian(3), prior)
    variables = {"params": params, "batch_stats": {}}
    return objective, variables, images.reshape(count, *SHAPE), evidence


def log_weights_one_device(objective, variables, images, num_samples):
    """All the terms at once, [S, N] each, without chunks, batches or devices."""

    @jax.jit
    def run(variables, images):
        def noise(index):
            return objectives.example_noise(
                jax.random.fold_in(RNG, index),
                jnp.arange(num_samples),
                objective.model.num_layers,
                objective.model.latent_dim,
            )

        drawn = jax.vmap(noise, out_axes=1)(jnp.arange(len(images)))
        encoded = objective.encode(variables, images)
        prior = objective.components(variables)
        return objective.terms(variables, prior, encoded, drawn)[0]

    return jax.tree.map(np.float64, run(variables, images))


def check_against_one_device(result, terms):
    log_weight = terms.elbo()
    num_samples = len(log_weight)
    expected = scipy.special.logsumexp(log_weight, axis=0) - np.log(num_samples)
    np.testing.assert_allclose(result.log_likelihood, expected, rtol=5e-6, atol=1e-5)
    np.testing.assert_allclose(
        result.reconstruction, terms.reconstruction.mean(0), rtol=1e-5, atol=1e-5
    )
    assert set(result.kl) == set(terms.kl)
    for layer, kl in terms.kl.items():
        np.testing.assert_allclose(result.kl[layer], kl.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.elbo, log_weight.mean(0), rtol=1e-5, atol=3e-5)
    assert sorted(result.with_fewer_samples) == [n for n in (1, 10, 100, 1000) if n < num_samples]
    for size, values in result.with_fewer_samples.items():
        first = scipy.special.logsumexp(log_weight[:size], axis=0) - np.log(size)
        np.testing.assert_allclose(values, first, rtol=5e-6, atol=1e-5)
    weight = np.exp(log_weight - log_weight.max(axis=0))
    ess = weight.sum(0) ** 2 / (weight**2).sum(0)
    np.testing.assert_allclose(result.effective_sample_size, ess, rtol=1e-3)
    assert np.all(ess >= 1) and np.all(ess <= num_samples)


# ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["standard", "vamp"])
def test_agrees_with_the_evidence_within_its_standard_error(prior):
    objective, variables, images, evidence = factor_analysis(prior)
    samples = 5000
    result = log_likelihood.estimate(objective, variables, images, num_samples=samples, rng=RNG)
    # The delta method: var(ln mean w) = var(w) / (S mean(w)^2) = 1/ESS - 1/S.
    error = np.sqrt(1 / result.effective_sample_size - 1 / samples)
    assert error.max() < 0.05
    deviation = result.log_likelihood - evidence
    assert np.all(np.abs(deviation) < 4 * error)
    assert abs(deviation.mean()) < 4 * np.sqrt((error**2).sum()) / len(images)
    assert np.all(result.log_likelihood > result.elbo)
    assert np.all(result.effective_sample_size < samples)


def test_with_the_true_posterior_every_sample_is_exact():
    """Equal weights: ln p(x) for any S, the ELBO is tight, and all samples are effective."""
    objective, variables, images, evidence = factor_analysis(exact=True)
    result = log_likelihood.estimate(
        objective, variables, images, num_samples=37, rng=RNG, rows_per_chunk=10, images_per_batch=2
    )
    np.testing.assert_allclose(result.log_likelihood, evidence, atol=2e-5)
    np.testing.assert_allclose(result.elbo, evidence, atol=2e-5)
    np.testing.assert_allclose(result.effective_sample_size, 37.0, rtol=1e-4)


@functools.cache
def hvae_case():
    objective, params, x, _ = make_case(HVAE, "vamp", "bernoulli", batch=13)
    variables = {"params": params, "batch_stats": {}}
    return objective, variables, x, log_weights_one_device(objective, variables, x, 37)


@pytest.mark.parametrize(
    "images_per_batch, rows_per_chunk, batches_per_dispatch",
    [(10, 1000, 10), (1, 5, 1), (1, 1, 3)],
)
def test_chunks_batches_and_devices_change_nothing(
    images_per_batch, rows_per_chunk, batches_per_dispatch
):
    """13 images, 37 samples and 8 devices: nothing divides anything."""
    objective, variables, x, terms = hvae_case()
    done = []  # the results so far, each time
    result = log_likelihood.estimate(
        objective,
        variables,
        x,
        num_samples=37,
        rng=RNG,
        images_per_batch=images_per_batch,
        rows_per_chunk=rows_per_chunk,
        batches_per_dispatch=batches_per_dispatch,
        report=done.append,
    )
    assert jax.local_device_count() == 8
    assert all(len(leaf) == 13 for leaf in jax.tree.leaves(result))
    check_against_one_device(result, terms)
    counts = [len(part.log_likelihood) for part in done]
    assert counts[-1] == 13 and counts == sorted(counts)


@pytest.mark.parametrize("images_per_batch", [1, 2])
def test_an_interrupted_estimate_goes_on_with_the_same_bits(images_per_batch):
    objective, variables, x, _ = hvae_case()
    settings = {"images_per_batch": images_per_batch, "batches_per_dispatch": 1}
    done = []

    def estimate(**kwargs):
        return log_likelihood.estimate(
            objective, variables, x, num_samples=37, rng=RNG, **settings, **kwargs
        )

    whole = estimate(report=done.append)
    late = []
    resumed = estimate(done=done[0], report=late.append)
    assert len(late) == len(done) - 1 == 12 // (8 * images_per_batch)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, resumed))
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, estimate(done=whole)))


def test_an_image_has_the_same_result_alone():
    objective, variables, x, terms = hvae_case()
    result = log_likelihood.estimate(objective, variables, x[:1], num_samples=37, rng=RNG)
    check_against_one_device(result, jax.tree.map(lambda leaf: leaf[:, :1], terms))


def test_one_sample_is_the_elbo():
    objective, variables, x, terms = hvae_case()
    result = log_likelihood.estimate(objective, variables, x, num_samples=1, rng=RNG)
    np.testing.assert_allclose(result.log_likelihood, result.elbo, rtol=1e-6)
    np.testing.assert_allclose(result.log_likelihood, terms.elbo()[0], rtol=5e-6, atol=1e-5)
    np.testing.assert_allclose(result.effective_sample_size, 1.0, rtol=1e-4)
