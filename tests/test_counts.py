"""Counts in a run: shares of a row's sum, and what the encoder sees of them."""

import jax
import numpy as np
import pytest

from tests.cases import plan_for, small_config, variables_for
from vamp_jax import (
    annealed_likelihood,
    choices,
    config_checks,
    datasets,
    likelihoods,
    model_file,
    priors,
)
from vamp_jax.datasets.inputs import DataSpec
from vamp_jax.errors import UsageError

FIELDS = dict(model="vae", batch_size=10, library_size=True, encoder_input="log1p")


@pytest.fixture
def path(tmp_path):
    """Counts of 12 genes in 90 cells, whose sums differ a hundredfold."""
    rng = np.random.default_rng(0)
    share = rng.dirichlet(np.ones(12), 90)
    counts = rng.poisson(share * rng.lognormal(5, 1.5, (90, 1)))
    np.savez(tmp_path / "cells.npz", x=counts)
    return str(tmp_path / "cells.npz")


def case(path, likelihood="negative_binomial", **fields):
    config = small_config(dataset=path, likelihood=likelihood, **FIELDS | fields)
    config_checks.check(config)
    data = choices.dataset(config, None)
    config_checks.check_with_data(config, data)
    return config, data


@pytest.mark.parametrize("likelihood", choices.COUNTS)
def test_a_row_s_mean_is_its_share_of_the_row_s_sum(path, likelihood):
    config, data = case(path, likelihood)
    plan = plan_for(config, data)
    variables = variables_for(plan, data)
    x = np.float32(data.train[:5])
    noise = {"z": np.zeros((5, 3), np.float32)}
    of_x = plan.autoencoder.likelihood
    assert of_x.event_axes == 1
    encoded = plan.autoencoder.encode(variables, x)
    heads, _ = plan.autoencoder.decode(variables, noise, x)
    given = of_x.log_prob(x, *heads)
    again = of_x.log_prob(x, *heads, library=x.sum(-1))
    np.testing.assert_allclose(given, again, rtol=1e-5)
    sums = np.asarray(of_x.mean(*heads)).sum(-1)
    np.testing.assert_allclose(sums, np.median(data.train.sum(-1)), rtol=1e-4)
    assert encoded.top.base.mean.shape == (5, 3)


def test_the_encoder_sees_the_logarithm_and_pseudo_inputs_are_of_its_kind(path):
    for prior, start in (("vamp", "noise"), ("vamp", "kmedoids"), ("exemplar", "noise")):
        config, data = case(path, prior=prior, pseudo_input_start=start, num_components=11)
        plan = plan_for(config, data)
        variables = variables_for(plan, data)
        seen = np.log1p(np.float64(data.train))
        np.testing.assert_allclose(data.pseudo_input_mean, seen.mean(0), rtol=1e-5)
        np.testing.assert_allclose(data.pseudo_input_stddev, seen.std(0), rtol=1e-4)
        u = np.asarray(plan.autoencoder.pseudo_inputs(variables))
        assert 0.0 <= u.min() and u.max() < seen.max() + 4 * seen.std()
        if prior == "exemplar":
            np.testing.assert_allclose(u, seen, rtol=1e-5)
        raw = plan_for(*case(path, prior=prior, encoder_input="x")).autoencoder
        x = np.float32(data.train[:4])
        ours = plan.autoencoder.encode(variables, x).top.base.mean
        by_hand = raw.encode(variables, np.log1p(x)).top.base.mean
        np.testing.assert_allclose(ours, by_hand, rtol=1e-5)


def test_without_them_all_is_as_it_was(path):
    config, data = case(path, library_size=False, encoder_input="x")
    plan = plan_for(config, data)
    assert plan.autoencoder.encoder_input is None
    assert plan.autoencoder.likelihood.event_axes == 0
    np.testing.assert_allclose(data.pseudo_input_mean, data.train.mean(0), rtol=1e-5)


def test_a_missing_count_is_seen_as_the_mean_logarithm(tmp_path):
    x = np.random.default_rng(0).poisson(20.0, (60, 5)).astype(np.float32)
    x[3, 2] = np.nan
    np.savez(tmp_path / "x.npz", x=x)
    config, data = case(str(tmp_path / "x.npz"), missing="mask", num_components=5)
    plan = plan_for(config, data)
    seen = np.asarray(plan.autoencoder.seen(np.float32([[np.nan, 7.0]])))
    mean = np.nanmean(np.log1p(np.float64(data.train)), axis=0).mean()
    np.testing.assert_allclose(seen, [[mean, np.log(8.0)]], rtol=1e-5)
    assert np.isfinite(data.library_size)


def test_a_model_file_has_both(path, tmp_path):
    config, data = case(path, num_components=5)
    plan = plan_for(config, data)
    spec = DataSpec.of(data)
    assert spec.library_size == np.median(data.train.sum(-1))
    variables = variables_for(plan, data)
    trained = model_file.Trained(config.to_dict(), spec, plan.autoencoder, variables)
    again = model_file.of_arrays("here", model_file.to_arrays(trained))
    assert again.autoencoder == plan.autoencoder
    z = np.zeros((2, 3), np.float32)
    ours, theirs = (
        priors.log_prob(z, model.prior_density(variables))
        for model in (plan.autoencoder, again.autoencoder)
    )
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        (dict(library_size=True), "library_size is True; it goes with vectors of counts"),
        (dict(encoder_input="log1p"), "encoder_input is 'log1p'; it goes with vectors of counts"),
    ],
)
def test_they_are_for_vectors_of_counts_alone(tmp_path, fields, says):
    vectors = np.random.default_rng(0).normal(size=(60, 5))
    np.savez(tmp_path / "x.npz", x=vectors)
    others = {"library_size": False, "encoder_input": "x"} | fields
    with pytest.raises(UsageError, match=says):
        case(str(tmp_path / "x.npz"), "gaussian", **others)
    images = np.random.default_rng(0).poisson(3.0, (60, 4, 4, 1))
    np.savez(tmp_path / "y.npz", x=images)
    with pytest.raises(UsageError, match="holds images with likelihood 'poisson'"):
        case(str(tmp_path / "y.npz"), "poisson", **others)


def test_the_library_size_is_the_median_sum_and_of_counts_alone(path):
    counts = datasets.load(path, likelihood="poisson")
    assert counts.library_size == np.median(counts.train.sum(-1))
    assert datasets.load(path, likelihood="gaussian").library_size is None


@pytest.mark.parametrize("likelihood", choices.COUNTS)
def test_what_is_missing_of_a_row_is_filled_in_by_the_size_of_the_row(path, likelihood):
    counts = np.load(path)["x"].astype(np.float32)
    counts[::9, 3] = np.nan
    np.savez(path, x=counts)
    config, data = case(path, likelihood, missing="mask", prior="standard")
    plan = plan_for(config, data)
    variables = jax.tree.map(np.zeros_like, variables_for(plan, data))
    share = np.float32(np.arange(1, 13) / 78)
    variables["params"]["model"]["p_x"]["logits"]["bias"] = np.log(share)
    model = model_file.Trained(config.to_dict(), DataSpec.of(data), plan.autoencoder, variables)
    whole = np.outer([1.0, 100.0, 1e4], np.arange(1.0, 13.0))
    x = np.where(np.arange(12) % 5 == 3, np.nan, whole)
    nothing = np.full((1, 12), np.nan)  # a row that says nothing of its size: that of the library
    expected = np.concatenate([whole, data.library_size * share[None]])
    np.testing.assert_allclose(model.impute(np.concatenate([x, nothing])), expected, rtol=1e-5)


def test_no_upper_bound_is_told_of_data_whose_density_is_not_what_is_evaluated(path):
    for likelihood, library_size in (("negative_binomial", False), ("poisson", True)):
        config, data = case(path, likelihood, library_size=library_size)
        annealed_likelihood.check_draws("ais_simulated", plan_for(config, data).autoencoder)
    plan = plan_for(*case(path))
    with pytest.raises(UsageError, match="^ais_simulated asks .* pass --ais_simulated=0.$"):
        annealed_likelihood.check_draws("ais_simulated", plan.autoencoder)


@pytest.mark.parametrize("log_mean", [3.0, 11.0, 12.0, 16.0, 20.0])
def test_draws_have_the_mean_and_the_spread_of_counts_however_large(log_mean):
    heads = np.full(100_000, log_mean, np.float32)
    x = np.float64(likelihoods.POISSON.sample(jax.random.key(0), heads))
    mean = np.exp(log_mean)
    assert abs(x.mean() - mean) < 4 * np.sqrt(mean / len(x)) + 1e-7 * mean
    np.testing.assert_allclose(x.std(), np.sqrt(mean), rtol=4 / np.sqrt(2 * len(x)))
    theta = np.float32(np.log(5.0))
    x = np.float64(likelihoods.negative_binomial().sample(jax.random.key(1), heads, theta))
    np.testing.assert_allclose(x.mean(), mean, rtol=4 * np.sqrt((1 / mean + 0.2) / len(x)))
