"""VAEs of sequences: against float64 and enumeration, and what must not matter does not."""

import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from configs import vamp_seq_vae
from tests import float64, float64_gru
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
)
from vamp_jax import (
    choices,
    config_checks,
    datasets,
    likelihoods,
    log_likelihood,
    priors,
)
from vamp_jax.autoencoder import network_variables
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import music, record, rolls, texts
from vamp_jax.experiment import train_and_evaluate
from vamp_jax.objectives import Elbo, FreeBits
from vamp_jax.run.metrics_log import read_metrics

SEQUENCES = dict(model="seq_vae", pseudo_input_start="examples", num_components=5)


def make(data, **fields):
    """(plan, variables) of a small model whose weights are large."""
    return large_weights(data, model="seq_vae", **fields)


# ---------------------------------------------------------------------------------------------
# The terms of the ELBO.


@pytest.mark.parametrize("data", [small_sequences(), symbols()], ids=["keys", "symbols"])
def test_terms_are_those_of_one_sequence_at_a_time_in_float64(data):
    """Shifts by one, lengths, dropped steps and samples, with a prior of pseudo-sequences."""
    plan, variables = make(data, word_dropout=0.4)
    index = np.array([3, 8, 5, 0])
    x = plan.inputs.drawn(datasets.rows_of(data.train, index), jax.random.key(0), index)
    noise = draw_noise(plan.autoencoder.network, 2, 4)
    terms = jax.jit(lambda *args: terms_at(plan, *args))(variables, x, noise)
    of_model = variables["params"]["model"]
    u = plan.autoencoder.pseudo_inputs(variables)
    lengths, simplex = np.asarray(u["length"]), np.float64(u["values"])
    if data.num_classes:
        simplex /= simplex.sum(-1, keepdims=True)
    components = [
        float64_gru.posterior(of_model, steps[:length])
        for steps, length in zip(simplex, lengths, strict=True)
    ]
    mean, log_var = (np.array(part) for part in zip(*components, strict=True))
    kept = np.asarray(x["kept"])
    assert 0 < kept.mean() < 1
    for n, length in enumerate(np.asarray(x["length"])):
        values = np.asarray(x["values"])[n, :length]
        steps = values if data.num_classes is None else np.eye(NUM_CLASSES)[values]
        q = float64_gru.posterior(of_model, steps)
        for sample in range(2):
            z = q[0] + np.exp(q[1] / 2) * noise["z"][sample, n]
            args = of_model, values, z, data.num_classes, kept[n, :length]
            expected = float64_gru.reconstruction(*args)
            np.testing.assert_allclose(terms.reconstruction[sample, n], expected, rtol=2e-5)
            log_p = float64.mixture(z, mean, log_var, np.full(5, -np.log(5)))
            kl = float64.normal(z, *q).sum() - log_p
            np.testing.assert_allclose(terms.kl["z"][sample, n], kl, rtol=1e-4, atol=1e-4)


def test_what_is_past_the_end_and_more_of_it_counts_for_nothing():
    data = small_sequences()
    plan, variables = make(data)
    x = jax.device_get(plan.inputs.of(datasets.rows_of(data.train, np.arange(6))))
    check_what_is_past_the_end(plan, variables, x, 9)
    u = variables["params"]["prior"]["pseudo_inputs"]["values"]
    lengths = np.asarray(variables["constants"]["pseudo_inputs"]["length"])
    assert set(lengths) <= set(data.train["length"]) and u.shape[1] == lengths.max()


# ---------------------------------------------------------------------------------------------
# Against all sequences there are: three symbols, four steps, one latent.

ALL = np.array(list(itertools.product(range(NUM_CLASSES), repeat=4)))  # [81, 4]


@pytest.fixture(scope="module")
def tiny():
    """(plan, variables, ln p(x) of all 81 sequences by quadrature)."""
    plan, variables = make(symbols(), seed=3, latent_dim=1, prior="standard", size=1.2)
    of_model = variables["params"]["model"]
    # A posterior near the prior and wider: estimates whose error is known.
    of_model["q_z"]["mean"] = jax.tree.map(lambda leaf: 0.2 * leaf, of_model["q_z"]["mean"])
    of_model["q_z"]["log_var"] = jax.tree.map(np.zeros_like, of_model["q_z"]["log_var"])
    of_model["q_z"]["log_var"]["bias"] += 0.8
    z = np.linspace(-6, 6, 121)
    given = [
        [float64_gru.reconstruction(of_model, x, point[None], NUM_CLASSES) for point in z]
        for x in ALL
    ]
    log_weight = scipy.stats.norm.logpdf(z) + np.log(z[1] - z[0])
    return plan, variables, scipy.special.logsumexp(given + log_weight, axis=1)


def test_probabilities_of_all_sequences_sum_to_one_and_are_what_is_estimated(tiny):
    plan, variables, exact = tiny
    np.testing.assert_allclose(np.exp(exact).sum(), 1.0, atol=1e-6)
    x = jax.device_get(plan.inputs.of(ALL))
    found = log_likelihood.estimate(
        plan.autoencoder, variables, x, num_samples=4000, rng=jax.random.key(0)
    )
    error = np.sqrt((4000 / found.effective_sample_size - 1) / 4000)
    assert np.all(np.abs(found.log_likelihood - exact) < 4.5 * error + 1e-4)
    assert np.exp(exact).std() > 1e-3 and error.max() < 0.2


def test_samples_are_distributed_as_the_density_says(tiny):
    plan, variables, exact = tiny
    autoencoder, count = plan.autoencoder, 4000
    z = np.random.RandomState(0).standard_normal((count, 1)).astype("f")
    draw = jax.jit(autoencoder.network.sample_x)
    drawn = draw(network_variables(variables), jax.random.key(1), {"z": z})
    assert np.all(drawn["length"] == 4)
    numbers = np.asarray(drawn["values"]) @ NUM_CLASSES ** np.arange(3, -1, -1)
    observed, expected = np.bincount(numbers, minlength=81), count * np.exp(exact)
    rare = expected < 5
    observed, expected = (np.append(a[~rare], a[rare].sum()) for a in (observed, expected))
    assert scipy.stats.chisquare(observed, expected, sum_check=False).pvalue > 1e-3


# ---------------------------------------------------------------------------------------------
# Training.


@pytest.mark.slow
def test_the_trajectory_is_the_same_on_1_and_8_devices():
    check_trajectory_on_1_and_8_devices(**SEQUENCES)


def test_dropped_steps_are_the_example_s_own_and_of_training_alone():
    data = small_sequences(200)
    plan, _ = make(data, word_dropout=0.25)
    index = np.array([7, 1, 7])
    args = jax.random.key(3), index
    kept = np.asarray(plan.inputs.drawn(datasets.rows_of(data.train, index), *args)["kept"])
    np.testing.assert_array_equal(kept[0], kept[2])
    alone = plan.inputs.drawn(datasets.rows_of(data.train, index[1:2]), args[0], index[1:2])
    np.testing.assert_array_equal(alone["kept"][0], kept[1])
    of_all = plan.inputs.drawn(data.train, jax.random.key(4), np.arange(200))["kept"]
    assert np.mean(of_all) == pytest.approx(0.75, abs=0.05)
    assert "kept" not in plan.inputs.of(data.train)


def test_free_bits_let_a_small_kl_go():
    data = small_sequences()
    plan, variables = make(data, free_nats=2.0)
    assert plan.objective == FreeBits(1, 2.0)
    x, noise = plan.inputs.of(datasets.rows_of(data.train, np.arange(9))), None
    noise = draw_noise(plan.autoencoder.network, 3, 9)
    autoencoder = plan.autoencoder

    def bound(objective, params):
        inside = variables | {"params": params}
        args = autoencoder, inside, autoencoder.prior_density(inside)
        return objective.bound(*args, autoencoder.encode(inside, x), noise, beta=0.5)[:2]

    value, terms = jax.jit(lambda p: bound(FreeBits(3, 2.0), p))(variables["params"])
    kl = np.asarray(terms.kl["z"])
    assert 0 < np.sum(kl < 2.0) < 9
    expected = terms.reconstruction - 0.5 * np.maximum(kl, 2.0)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    chex.assert_trees_all_close(bound(Elbo(3), variables["params"])[1], terms, rtol=1e-5)
    gradient = jax.jit(jax.grad(lambda p: bound(FreeBits(3, 1e4), p)[0].sum()))
    assert not np.any(gradient(variables["params"])["prior"]["pseudo_inputs"]["values"])
    with pytest.raises(ValueError, match="free_nats is -1"):
        FreeBits(1, -1.0)


# ---------------------------------------------------------------------------------------------
# A run.


@pytest.mark.slow  # python -m pytest -m slow tests/test_seq_vae.py: most of it is compiling
def test_a_run_on_the_chorales_that_ship(tmp_path, capsys):
    config = vamp_seq_vae.get_config()
    config.update(num_epochs=1, hidden_dim=4, latent_dim=2, num_components=3, num_samples=2)
    train_and_evaluate(config, str(tmp_path), data_dir=str(tmp_path / "none"))
    told = capsys.readouterr().out
    assert " nats a sequence" in told and "nats a step, of 4725 steps" in told
    (row,) = read_metrics(str(tmp_path))
    assert row["val_nats_per_step"] == pytest.approx(row["val_loss"] * 76 / 4602)
    model = check_run_on_the_chorales(tmp_path)
    assert model.pseudo_inputs()["length"].shape == (3,)


def test_nats_a_step_are_a_ratio_of_sums():
    values, lengths = np.float32([-10.0, -32.0, -60.0]), np.array([1, 4, 5])
    sampled = log_likelihood.ImportanceSampled(
        values, {1: values - 10}, values, {"z": np.float32([1, 2, 3])}, np.ones(3)
    )
    found = record.summary(sampled, likelihoods.BERNOULLI, (5, 2), lengths)["per_step"]
    assert found["num_steps"] == 10
    assert found["log_likelihood"] == pytest.approx(-10.2)
    assert found["log_likelihood_with_fewer_samples"]["1"] == pytest.approx(-13.2)
    assert found["elbo"] == pytest.approx(-10.8)
    spread = np.std(values + 10.2 * lengths, ddof=1) / np.sqrt(3) / lengths.mean()
    assert found["log_likelihood_standard_error"] == pytest.approx(spread)
    assert "per_step" not in record.summary(sampled, likelihoods.BERNOULLI, (5, 2))


def test_rolls_are_drawn_with_pitch_up_and_grey_past_the_end():
    values = np.zeros((2, 4, 6), np.uint8)
    values[0, 0, 1] = values[1, 2, 3] = values[0, 3, 5] = 1  # the last is past the end
    piece = {"values": values, "length": np.array([2, 3])}
    images = rolls.images(piece)
    assert images.shape == (2, 3, 3, 1)  # keys 1 to 3, three steps
    expected = np.ones((2, 3, 3))
    expected[0, 2, 0] = expected[1, 0, 2] = 0.0
    expected[0, :, 2] = rolls.PAST_THE_END
    np.testing.assert_allclose(images[..., 0], expected)


@pytest.mark.parametrize(
    "fields, says",
    [
        (
            dict(model="vae", word_dropout=0.0),
            "jsb_chorales holds sequences, which model 'vae' does not take",
        ),
        (dict(dataset="digits"), "model 'seq_vae' takes sequences, and digits holds images"),
        (dict(pseudo_input_start="noise"), "on sequences starts at training sequences"),
        (dict(pseudo_input_start="kmeans"), "on sequences starts at training sequences"),
        (dict(pseudo_input_update="em"), "those of sequences, of fixed lengths, cannot"),
        (dict(pseudo_input_update="grown"), "those of sequences, of fixed lengths, cannot"),
        (dict(word_dropout=1.0), "word_dropout is 1.0; it must be below 1."),
        (dict(model="vae", word_dropout=0.1), "word_dropout goes with model 'seq_vae'"),
        (dict(free_nats=1.0, num_importance_samples=2), "goes with the ELBO alone"),
        (dict(num_components=300), "has only 229 training examples"),
    ],
)
def test_mistakes(fields, says):
    config = vamp_seq_vae.get_config()
    config.update(fields)
    with pytest.raises(UsageError) as caught:
        config_checks.check(config)
        config_checks.check_with_data(config, choices.dataset(config, None))
    assert says in str(caught.value)


def test_sequences_of_other_shapes_are_refused():
    plan, variables = make(small_sequences())
    x = plan.inputs.of(datasets.rows_of(small_sequences().train, np.arange(2)))
    x = jax.device_get(x)

    def estimate(x):
        args = plan.autoencoder, variables, x
        return log_likelihood.estimate(*args, num_samples=1, rng=jax.random.key(0))

    with pytest.raises(ValueError, match="lengths must be from 1 to T = 5"):
        estimate(x | {"length": np.array([0, 3])})
    with pytest.raises(ValueError, match="estimate: x must be {'values'"):
        estimate(x | {"values": x["values"][..., :2]})
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        estimate(x | {"values": x["values"] + 2})
    density = plan.autoencoder.prior_density(variables)
    assert np.isfinite(priors.log_prob(jnp.zeros((1, 3)), density)).all()


def test_a_midi_file_has_the_notes_of_the_roll(tmp_path):
    mido = pytest.importorskip("mido")
    steps = np.zeros((4, 88), int)
    steps[0:2, 0] = steps[3, 0] = steps[1:4, 87] = 1
    music.midi_file(steps).save(tmp_path / "m.mid")
    found, now = [], 0
    for message in mido.MidiFile(tmp_path / "m.mid").tracks[0]:
        now += message.time
        if not message.is_meta:
            found.append((now // music.TICKS, message.type, message.note))
    assert found == [
        (0, "note_on", 21),
        (1, "note_on", 108),
        (2, "note_off", 21),
        (3, "note_on", 21),
        (4, "note_off", 21),
        (4, "note_off", 108),
    ]


def test_text_is_written_with_its_line_breaks_and_the_largest_symbols_of_pseudo_inputs(tmp_path):
    data = {"values": np.array([[0, 1, 2, 2]]), "length": np.array([3])}
    pseudo = {"values": np.eye(3)[[[2, 0, 1, 1]]] * 0.4, "length": np.array([2])}
    texts.write({"data": data, "pseudo-inputs": pseudo}, "a\n\\", str(tmp_path / "t.txt"))
    written = (tmp_path / "t.txt").read_text()
    assert written == "data\n\na\\n\\\\\n\npseudo-inputs\n\n\\\\a\n"
