"""The importance-sampled log-likelihood against evidence known in closed form (factor analysis)."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from tests.cases import make_case, terms_of
from tests.factor_analysis import factor_analysis
from vamp_jax import log_likelihood, random_streams
from vamp_jax.models.hvae import HVAE

F32 = np.float32
RNG = jax.random.key(11)


def log_weights_one_device(autoencoder, variables, x, num_samples):
    """All the terms at once, [S, N] each, without chunks, batches or devices."""

    @jax.jit
    def run(variables, x):
        def noise(index):
            rng, samples = jax.random.fold_in(RNG, index), jnp.arange(num_samples)
            return random_streams.latent_noise(rng, samples, autoencoder.network.latent_shapes)

        drawn = jax.vmap(noise, out_axes=1)(jnp.arange(len(x)))
        return terms_of(autoencoder, variables, x, drawn)

    return jax.tree.map(np.float64, run(variables, x))


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
    autoencoder, variables, x, evidence = factor_analysis(prior)
    samples = 5000
    result = log_likelihood.estimate(autoencoder, variables, x, num_samples=samples, rng=RNG)
    # The delta method: var(ln mean w) = var(w) / (S mean(w)^2) = 1/ESS - 1/S.
    error = np.sqrt(1 / result.effective_sample_size - 1 / samples)
    assert error.max() < 0.05
    deviation = result.log_likelihood - evidence
    assert np.all(np.abs(deviation) < 4 * error)
    assert abs(deviation.mean()) < 4 * np.sqrt((error**2).sum()) / len(x)
    assert np.all(result.log_likelihood > result.elbo)
    assert np.all(result.effective_sample_size < samples)


def test_with_the_true_posterior_every_sample_is_exact():
    """Equal weights: ln p(x) for any S, the ELBO is tight, and all samples are effective."""
    autoencoder, variables, x, evidence = factor_analysis(exact=True)
    result = log_likelihood.estimate(
        autoencoder, variables, x, num_samples=37, rng=RNG, rows_per_chunk=10, examples_per_batch=2
    )
    np.testing.assert_allclose(result.log_likelihood, evidence, atol=2e-5)
    np.testing.assert_allclose(result.elbo, evidence, atol=2e-5)
    np.testing.assert_allclose(result.effective_sample_size, 37.0, rtol=1e-4)


@pytest.mark.parametrize("rows_per_chunk", [2, 1000])
def test_small_chunks_are_not_lost_in_a_large_sum(rows_per_chunk):
    """float32 tells numbers near -40,000 apart by 4e-3; of 2,500 chunks each may add less."""
    autoencoder, variables, x, _ = factor_analysis(exact=True)
    kwargs = dict(rng=RNG, examples_per_batch=1)
    one = log_likelihood.estimate(autoencoder, variables, x + 100, num_samples=1, **kwargs)
    result = log_likelihood.estimate(
        autoencoder, variables, x + 100, num_samples=5000, rows_per_chunk=rows_per_chunk, **kwargs
    )
    assert np.all(one.log_likelihood < -8000)
    np.testing.assert_allclose(result.log_likelihood, one.log_likelihood, rtol=1e-6)
    np.testing.assert_allclose(result.effective_sample_size, 5000.0, rtol=1e-3)
    assert np.all(result.effective_sample_size <= 5000)


@functools.cache
def hvae_case():
    autoencoder, variables, x, _ = make_case(HVAE, "vamp", batch=13)
    return autoencoder, variables, x, log_weights_one_device(autoencoder, variables, x, 37)


@pytest.mark.parametrize(
    "examples_per_batch, rows_per_chunk, batches_per_dispatch",
    [(10, 1000, 10), (1, 5, 1), (1, 1, 3)],
)
def test_chunks_batches_and_devices_change_nothing(
    examples_per_batch, rows_per_chunk, batches_per_dispatch
):
    """13 examples, 37 samples and 8 devices: nothing divides anything."""
    autoencoder, variables, x, terms = hvae_case()
    done = []  # the results so far, each time
    result = log_likelihood.estimate(
        autoencoder,
        variables,
        x,
        num_samples=37,
        rng=RNG,
        examples_per_batch=examples_per_batch,
        rows_per_chunk=rows_per_chunk,
        batches_per_dispatch=batches_per_dispatch,
        report=done.append,
    )
    assert jax.local_device_count() == 8
    assert all(len(leaf) == 13 for leaf in jax.tree.leaves(result))
    check_against_one_device(result, terms)
    counts = [len(part.log_likelihood) for part in done]
    assert counts[-1] == 13 and counts == sorted(counts)


@pytest.mark.parametrize("examples_per_batch", [1, 2])
def test_an_interrupted_estimate_goes_on_with_the_same_bits(examples_per_batch):
    autoencoder, variables, x, _ = hvae_case()
    settings = {"examples_per_batch": examples_per_batch, "batches_per_dispatch": 1}
    done = []

    def estimate(**kwargs):
        return log_likelihood.estimate(
            autoencoder, variables, x, num_samples=37, rng=RNG, **settings, **kwargs
        )

    whole = estimate(report=done.append)
    late = []
    resumed = estimate(done=done[0], report=late.append)
    assert len(late) == len(done) - 1 == 12 // (8 * examples_per_batch)
    chex.assert_trees_all_equal(whole, resumed)
    chex.assert_trees_all_equal(whole, estimate(done=whole))


@pytest.mark.parametrize("index", [[0], [3, 8]])
def test_examples_have_the_same_result_without_the_others(index):
    autoencoder, variables, x, terms = hvae_case()
    result = log_likelihood.estimate(
        autoencoder, variables, x[index], num_samples=37, rng=RNG, index=index
    )
    check_against_one_device(result, jax.tree.map(lambda leaf: leaf[:, index], terms))


def test_one_sample_is_the_elbo():
    autoencoder, variables, x, terms = hvae_case()
    result = log_likelihood.estimate(autoencoder, variables, x, num_samples=1, rng=RNG)
    np.testing.assert_allclose(result.log_likelihood, result.elbo, rtol=1e-6)
    np.testing.assert_allclose(result.log_likelihood, terms.elbo()[0], rtol=5e-6, atol=1e-5)
    np.testing.assert_allclose(result.effective_sample_size, 1.0, rtol=1e-4)
