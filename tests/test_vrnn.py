"""VRNNs and their particle filter: against float64 and enumeration; what must not matter."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from configs import vamp_vrnn
from tests import float64, float64_vrnn
from tests.cases import (
    draw_noise,
    small_sequences,
)
from tests.sequence_cases import (
    NUM_CLASSES,
    check_run_on_the_chorales,
    check_trajectory_on_1_and_8_devices,
    check_what_is_past_the_end,
    large_weights,
    symbols,
    terms_at,
    with_noise_after,
)
from vamp_jax import datasets, disk, log_likelihood, particle_filter
from vamp_jax.autoencoder import network_variables
from vamp_jax.experiment import train_and_evaluate
from vamp_jax.random_streams import sample_noise

# Of several lengths, and, once more for the one-hot inputs, symbols.
KINDS = [
    pytest.param(small_sequences(), id="keys"),
    pytest.param(symbols(), id="symbols", marks=pytest.mark.slow),
]


def make(data, **fields):
    """(plan, variables) of a small VRNN whose weights are large."""
    return large_weights(data, model="vrnn", **fields)


def float64_model(variables):
    return jax.tree.map(np.float64, variables["params"]["model"])


def prior_of(plan, variables, of_model, num_classes):
    """ln p(z_1) in float64, of pseudo-sequences."""
    u = plan.autoencoder.pseudo_inputs(variables)
    values = np.float64(u["values"])
    if num_classes:
        values /= values.sum(-1, keepdims=True)
    found = [
        float64_vrnn.first_posterior(of_model, steps[:length])
        for steps, length in zip(values, np.asarray(u["length"]), strict=True)
    ]
    mean, log_var = (np.array(part) for part in zip(*found, strict=True))
    return lambda z: float64.mixture(z, mean, log_var, np.full(5, -np.log(5)))


@pytest.mark.parametrize("data", KINDS)
def test_terms_and_filter_are_those_of_one_sequence_at_a_time_in_float64(data):
    """Shifts by one, lengths, dropped steps, samples and particles, with a VampPrior."""
    plan, variables = make(data, word_dropout=0.4)
    autoencoder, index = plan.autoencoder, np.array([3, 8, 5, 0])
    x = plan.inputs.drawn(datasets.rows_of(data.train, index), jax.random.key(0), index)
    noise = draw_noise(autoencoder.network, 3, 4)
    num_later = x["values"].shape[1] - 1
    uniform = np.random.RandomState(4).uniform(size=(num_later, 4)).astype("f")

    @jax.jit
    def run(variables, x, noise):
        whole = {name: leaf for name, leaf in x.items() if name != "kept"}
        args = autoencoder, variables, autoencoder.prior_density(variables)
        encoded = autoencoder.encode(variables, whole)
        single = jax.tree.map(lambda part: part[:1], noise)
        return (
            terms_at(plan, variables, x, noise),
            particle_filter.run_filter(*args, encoded, noise, uniform),
            particle_filter.run_filter(*args, encoded, single, uniform).log_likelihood,
            terms_at(plan, variables, whole, single).elbo()[0],
        )

    terms, found, one_particle, elbo = run(variables, x, noise)
    np.testing.assert_allclose(one_particle, elbo, rtol=2e-6)
    of_model = float64_model(variables)
    log_prior = prior_of(plan, variables, of_model, data.num_classes)
    of_steps = noise["later"].reshape(3, 4, num_later, 3)
    kept, often = np.asarray(x["kept"]), 0
    for n, length in enumerate(np.asarray(x["length"])):
        values = np.asarray(x["values"])[n, :length]
        for m in range(3):
            given = noise["z1"][m, n], of_steps[m, n]
            args = of_model, values, *given, data.num_classes, kept[n, :length]
            z1, log_q, kl, log_p = float64_vrnn.terms(*args)
            np.testing.assert_allclose(terms.reconstruction[m, n], log_p.sum(), rtol=2e-5)
            np.testing.assert_allclose(terms.kl["later"][m, n], kl.sum(), rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(
                terms.kl["z1"][m, n], log_q - log_prior(z1), rtol=1e-4, atol=1e-4
            )
        args = of_model, values, log_prior, noise["z1"][:, n], of_steps[:, n], uniform[:, n]
        expected, drawn = float64_vrnn.filtered(*args, data.num_classes)
        np.testing.assert_allclose(found.log_likelihood[n], expected, rtol=2e-5)
        assert found.resamplings[n] == drawn
        often += drawn
    assert often > 0


@pytest.mark.slow
def test_a_filter_of_one_particle_draws_what_importance_sampling_draws():
    data = small_sequences()
    plan, variables = make(data)
    x = jax.device_get(plan.inputs.of(datasets.rows_of(data.train, np.arange(7))))
    rng, index = jax.random.key(5), np.arange(7) + 3
    args = plan.autoencoder, variables, x
    found = particle_filter.estimate(*args, num_particles=1, rng=rng, index=index)
    noise = sample_noise(rng, jnp.asarray(index), 1, plan.autoencoder.network.latent_shapes)
    elbo = terms_at(plan, variables, x, noise).elbo()[0]
    np.testing.assert_allclose(found.log_likelihood, elbo, rtol=2e-6)
    again = log_likelihood.estimate(*args, num_samples=1, rng=rng, index=index)
    np.testing.assert_allclose(found.log_likelihood, again.log_likelihood, rtol=2e-6)
    assert not np.any(found.resamplings)


@pytest.mark.slow
def test_what_is_past_the_end_and_more_of_it_counts_for_nothing():
    plan, variables = make(small_sequences())
    train = small_sequences().train
    short = {"values": train["values"][:, :4], "length": np.minimum(train["length"], 3)}
    x = jax.device_get(plan.inputs.of(datasets.rows_of(short, np.arange(6))))
    value_and_grad, longer = check_what_is_past_the_end(plan, variables, x, 5)
    padded = x | {"values": with_noise_after(x["values"], x["length"], 5)}
    more = dict(num_particles=4, rng=jax.random.key(0))
    both = [particle_filter.estimate(plan.autoencoder, variables, of, **more) for of in (x, padded)]
    assert np.all(np.isfinite(both[0].log_likelihood))
    with pytest.raises(ValueError, match="VRNN: x has 9 steps; .* at most 5"):
        value_and_grad(longer, x | {"values": with_noise_after(x["values"], x["length"], 9)})


@pytest.mark.slow
def test_sequences_of_one_step():
    rng = np.random.RandomState(0)
    splits = [
        {"values": rng.randint(0, 2, (n, 1, 3)).astype("u1"), "length": np.ones(n, np.int32)}
        for n in (20, 9, 9)
    ]
    more = dict(kind="sequences")
    data = datasets.Dataset("rolls", *splits, "bernoulli", False, 1, 0.5, 0.5, {}, **more)
    plan, variables = make(data)
    x = jax.device_get(plan.inputs.of(data.test))
    args = plan.autoencoder, variables, x
    by_filter = particle_filter.estimate(*args, num_particles=6, rng=jax.random.key(0))
    sampled = log_likelihood.estimate(*args, num_samples=6, rng=jax.random.key(0))
    np.testing.assert_allclose(by_filter.log_likelihood, sampled.log_likelihood, rtol=2e-6)
    np.testing.assert_array_equal(sampled.kl["later"], 0.0)


# ---------------------------------------------------------------------------------------------
# Against all sequences there are: three symbols, three steps, a latent of one unit for each.

STEPS = 3
ALL = np.array(list(itertools.product(range(NUM_CLASSES), repeat=STEPS)))  # [27, 3]


@pytest.fixture(scope="module")
def tiny():
    """(plan, variables, p(x) of all 27 sequences by quadrature)."""
    data = symbols(length=STEPS)
    plan, variables = make(data, seed=3, latent_dim=1, prior="standard", size=0.8)
    of_model = variables["params"]["model"]
    # Posteriors near the priors and wider: estimates whose error is known.
    for name in ("q_z1", "q_later"):
        of_model[name]["mean"] = jax.tree.map(lambda leaf: 0.3 * leaf, of_model[name]["mean"])
        of_model[name]["log_var"] = jax.tree.map(np.zeros_like, of_model[name]["log_var"])
        of_model[name]["log_var"]["bias"] += 0.5
    exact = float64_vrnn.probabilities(float64_model(variables), NUM_CLASSES, STEPS, 61)
    return plan, variables, exact


@pytest.mark.slow
def test_probabilities_of_all_sequences_sum_to_one_and_are_what_is_estimated(tiny):
    plan, variables, exact = tiny
    assert exact.sum() == pytest.approx(1.0, abs=1e-9) and exact.std() > 1e-2
    coarser = float64_vrnn.probabilities(float64_model(variables), NUM_CLASSES, STEPS, 49)
    np.testing.assert_allclose(coarser, exact, rtol=1e-4)
    args = plan.autoencoder, variables, jax.device_get(plan.inputs.of(ALL))
    found = log_likelihood.estimate(*args, num_samples=4000, rng=jax.random.key(0))
    error = np.sqrt((4000 / found.effective_sample_size - 1) / 4000)
    assert np.all(np.abs(found.log_likelihood - np.log(exact)) < 4 * error + 1e-4)
    assert error.max() < 0.1
    filtered = particle_filter.estimate(*args, num_particles=4000, rng=jax.random.key(0))
    np.testing.assert_allclose(filtered.log_likelihood, np.log(exact), atol=6 * error.max())


def test_a_filter_s_mean_is_the_probability_and_more_particles_tighten_the_bound(tiny):
    plan, variables, exact = tiny
    which, times = [0, 11, 25], 2000
    x = jax.device_get(plan.inputs.of(np.repeat(ALL[which], times, axis=0)))
    bounds = []
    for count in (1, 4, 16):
        more = dict(num_particles=count, rng=jax.random.key(7))
        found = particle_filter.estimate(plan.autoencoder, variables, x, **more)
        log_estimate = np.float64(found.log_likelihood).reshape(3, times)
        estimate = np.exp(log_estimate)
        error = estimate.std(1, ddof=1) / times**0.5
        assert np.all(np.abs(estimate.mean(1) - exact[which]) < 3 * error)
        assert np.any(found.resamplings) == (count > 1)
        bounds.append(log_estimate.mean(1))
    assert np.all(np.diff(bounds, axis=0) > 0) and np.all(bounds[-1] < np.log(exact[which]))


@pytest.mark.slow
def test_samples_are_distributed_as_the_density_says(tiny):
    plan, variables, exact = tiny
    count, shapes = 4000, plan.autoencoder.network.latent_shapes
    rng = np.random.RandomState(0)
    latents = {k: rng.standard_normal((count, *shape)).astype("f") for k, shape in shapes.items()}
    draw = jax.jit(plan.autoencoder.network.sample_x)
    drawn = draw(network_variables(variables), jax.random.key(1), latents)
    assert np.all(drawn["length"] == STEPS)
    numbers = np.asarray(drawn["values"]) @ NUM_CLASSES ** np.arange(STEPS - 1, -1, -1)
    observed, expected = np.bincount(numbers, minlength=27), count * exact
    rare = expected < 5
    observed, expected = (np.append(a[~rare], a[rare].sum()) for a in (observed, expected))
    kept = expected > 0
    assert scipy.stats.chisquare(observed[kept], expected[kept], sum_check=False).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------
# Training, and a run.


@pytest.mark.slow
def test_the_trajectory_is_the_same_on_1_and_8_devices():
    check_trajectory_on_1_and_8_devices(model="vrnn")


@pytest.mark.slow
def test_a_network_without_steps_is_refused():
    plan, variables = large_weights(small_sequences(), model="seq_vae")
    x = jax.device_get(plan.inputs.of(small_sequences().test))
    args = plan.autoencoder, variables, x
    with pytest.raises(ValueError, match="SeqVAE has no latents of single steps"):
        particle_filter.estimate(*args, num_particles=2, rng=jax.random.key(0))


@pytest.mark.slow  # python -m pytest -m slow tests/test_vrnn.py: most of it is compiling
def test_a_run_on_the_chorales_that_ship(tmp_path, capsys):
    config = vamp_vrnn.get_config()
    config.update(num_epochs=1, hidden_dim=4, latent_dim=2, num_components=3, num_samples=2)
    train_and_evaluate(config, str(tmp_path), data_dir=str(tmp_path / "none"))
    told = capsys.readouterr().out
    assert "by 2 particles" in told and "nats a step; drawn anew" in told
    found = disk.read_json(str(tmp_path / "eval" / "test-S2.json"))["particle_filter"]
    held = np.load(tmp_path / "eval" / "test-S2.npz")["filtered_log_likelihood"]
    assert found["log_likelihood"] == pytest.approx(np.float64(held).mean())
    assert found["per_step"]["log_likelihood"] == pytest.approx(np.float64(held).sum() / 4725)
    check_run_on_the_chorales(tmp_path)
    assert not list((tmp_path / "eval").glob("*unfinished*"))
