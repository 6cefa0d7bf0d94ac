"""Sequences of like length share batches, which are cut to few lengths; nothing else changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.cases import plan_for, small_config, small_data, small_sequences, start_of
from vamp_jax import lengths, log_likelihood
from vamp_jax.training import devices, placement

FIELDS = dict(model="seq_vae", prior="vamp", pseudo_input_start="examples", num_components=5)
FIELDS |= dict(batch_size=8, word_dropout=0.3)


def of_lengths(*length, num_steps=40):
    return {"values": np.zeros((len(length), num_steps, 2)), "length": np.array(length)}


def test_cuts_are_parts_of_the_length_that_some_sequence_fits():
    assert lengths.cuts(of_lengths(7, 40)) == (10, 20)
    assert lengths.cuts(of_lengths(11, 40)) == (20,)
    assert lengths.cuts(of_lengths(21, 40)) == ()
    assert lengths.cuts(of_lengths(1, 1, 2, num_steps=3)) == (1,)
    assert lengths.cuts(of_lengths(1, num_steps=1)) == ()
    assert lengths.cuts(small_data().train) == ()


@pytest.mark.parametrize("batch_size", [1, 8, 30, 100])
def test_a_batch_has_sequences_of_like_length(batch_size):
    of_class = jnp.asarray(np.random.RandomState(0).randint(0, 3, 100))
    seen_last = set()
    for seed in range(30):
        rng = jax.random.key(seed)
        start = jax.random.permutation(jax.random.key(100 + seed), 100)
        order = np.asarray(lengths.alike(start, of_class, batch_size, rng))
        np.testing.assert_array_equal(np.sort(order), np.arange(100))
        batches = np.split(order, range(batch_size, 100, batch_size))
        assert all(len(batch) == batch_size for batch in batches[:-1])
        mixed = [len(set(np.asarray(of_class)[batch])) > 1 for batch in batches]
        assert sum(mixed) <= 3  # two borders, and where the circle closes
        seen_last |= set(np.asarray(of_class)[batches[-1]])
    assert seen_last == {0, 1, 2}  # none of them is always, or never, in the smaller batch
    again = lengths.alike(start, of_class, batch_size, jax.random.key(77))
    assert batch_size == 100 or not np.array_equal(again, order)


@pytest.mark.parametrize(
    "length, taken", [((1, 3), 3), ((3, 3), 3), ((4, 1), 7), ((7, 7), 7), ((2, 8), 40)]
)
def test_the_shortest_length_that_holds_a_batch_is_taken(length, taken):
    def steps(x):
        return jnp.float32(x["values"].shape[1]), x["length"]

    found, same = jax.jit(lambda x: lengths.cut(steps, x, (3, 7)))(of_lengths(*length))
    assert found == taken
    np.testing.assert_array_equal(same, length)


def epoch_of(config, data, cuts, place="replicated"):
    """The metrics and the parameters after an epoch."""
    plan = plan_for(config, data, optax.sgd(0.1))._replace(cuts=cuts)
    epoch = getattr(placement, place)(plan, data.train, data.validation)
    state, metrics = epoch(jax.device_put(start_of(plan, data), devices.replicated()))
    return jax.device_get((metrics, state.params))


@pytest.mark.parametrize("model", ["seq_vae", pytest.param("vrnn", marks=pytest.mark.slow)])
def test_a_cut_batch_has_the_loss_and_the_gradient_of_the_padded_one(model):
    """One batch of the whole set, whatever its order, cut or not."""
    data = small_sequences()
    data = data._replace(train=data.train | {"length": np.minimum(data.train["length"], 3)})
    config = small_config(**FIELDS | dict(model=model, batch_size=50))
    (cut, cut_params), (whole, params) = (epoch_of(config, data, cuts) for cuts in ((3,), ()))
    for name in whole:
        np.testing.assert_allclose(cut[name], whole[name], rtol=1e-5, err_msg=name)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    jax.tree.map(close, cut_params, params)


@pytest.mark.slow  # python -m pytest -m slow tests/test_lengths.py
def test_an_epoch_of_sequences_is_the_same_wherever_they_lie():
    config, data = small_config(**FIELDS), small_sequences()
    cuts = lengths.cuts(data.train)
    assert cuts
    expected = epoch_of(config, data, cuts)
    for place in ("sharded", "streamed"):
        found = epoch_of(config, data, cuts, place)
        close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
        jax.tree.map(close, found, expected)


def test_log_likelihoods_are_those_of_padded_sequences(monkeypatch):
    config, data = small_config(**FIELDS), small_sequences()
    plan = plan_for(config, data)
    variables = start_of(plan, data).variables

    def estimate():
        args = plan.autoencoder, variables, data.train
        more = dict(num_samples=7, rng=jax.random.key(0), examples_per_batch=3)
        return log_likelihood.estimate(*args, **more).log_likelihood

    cut = estimate()
    monkeypatch.setattr(lengths, "cuts", lambda x: ())
    np.testing.assert_allclose(cut, estimate(), rtol=1e-5)


def test_a_batch_shorter_than_every_cut_is_taken_whole():
    x = of_lengths(2, 3, num_steps=3)
    assert jax.jit(lambda x: lengths.cut(lambda x: x["values"].shape[1], x, (3, 7)))(x) == 3
