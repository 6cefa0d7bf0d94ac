"""K grown during training: one component at the start, doubled until there are K.

A resumed run, and one on 8 devices: test_pseudo_input_choices.py.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.cases import plan_for, prepare_run, small_config, small_data, start_of, variables_for
from vamp_jax import datasets, priors
from vamp_jax.training import growing
from vamp_jax.training.state import arranged_state

GROWN = dict(model="vae", prior="vamp", pseudo_input_update="grown", batch_size=10)


def num_distinct(leaf):
    return len(np.unique(np.reshape(leaf, (len(leaf), -1)), axis=0))


@pytest.mark.parametrize("total", [1, 2, 3, 10, 64, 500])
def test_groups_lie_in_those_before_and_are_as_large_as_each_other(total):
    growth, before = growing.Growth(total, 3, 0.1, 0), np.zeros(total, int)
    params = {"pseudo_inputs": np.arange(total), "flow": 7}
    for epoch in range(1, 40):
        expected = min(total, 2 ** ((epoch - 1) // 3))
        found = growing.tied(growth, params, jnp.asarray(epoch))
        original, sizes = np.unique(found["pseudo_inputs"], return_counts=True)
        assert len(original) == expected == growing.num_distinct(growth, jnp.asarray(epoch))
        assert sizes.max() - sizes.min() <= 1 and found["flow"] == 7
        np.testing.assert_array_equal(before[found["pseudo_inputs"]], before)
        before = found["pseudo_inputs"]


@pytest.mark.parametrize("start", ["noise", "kmeans"])
def test_it_starts_as_the_mixture_of_one(start):
    """Bit for bit its component, and its density."""
    data, priors_of = small_data(), []
    for fields in (dict(num_components=7), dict(num_components=1, pseudo_input_update="joint")):
        config = small_config(
            **GROWN | dict(pseudo_input_start=start, learned_weights=True) | fields
        )
        plan = plan_for(config, data)
        rest = plan.autoencoder, data, plan.inputs, config.seed
        priors_of.append((plan.autoencoder, arranged_state(start_of(plan, data), *rest).variables))
    (many, grown), (one, single) = priors_of
    chex.assert_trees_all_equal(grown["params"]["model"], single["params"]["model"])
    for name, leaf in grown["params"]["prior"].items():
        assert len(leaf) == 7
        np.testing.assert_array_equal(
            leaf, np.broadcast_to(single["params"]["prior"][name], leaf.shape)
        )
    z = np.random.RandomState(0).standard_normal((9, 3)).astype("f")
    expected = priors.log_prob(z, one.prior_density(single))
    np.testing.assert_allclose(priors.log_prob(z, many.prior_density(grown)), expected, rtol=1e-5)


def test_copies_stay_copies_through_real_steps_until_they_part():
    """Though they begin a little apart, as round-off would have them after a step."""
    total, data = 11, small_data()
    fields = dict(num_components=total, doubling_epochs=1, learned_weights=True)
    state, run = prepare_run(small_config(**GROWN | fields), data)
    assert num_distinct(state.params["prior"]["pseudo_inputs"]) == 1
    rng = np.random.RandomState(0)
    apart = {
        name: leaf + 1e-6 * rng.standard_normal(leaf.shape).astype("f")
        for name, leaf in state.params["prior"].items()
    }
    state = state.replace(params=state.params | {"prior": apart})
    states, was_best = [], 0
    for epoch, (now, after) in enumerate([(1, 2), (2, 4), (4, 8), (8, 11)], 1):
        before = state.params["prior"]
        states.append(state)
        state, (metrics,) = run(state, 1)
        found, best = state.params["prior"], state.best_params["prior"]
        assert metrics["distinct_components"] == now
        assert num_distinct(found["pseudo_inputs"]) == after
        assert num_distinct(found["weight_logits"]) <= now
        if metrics["best_epoch"] == epoch:
            was_best += 1
            assert num_distinct(best["pseudo_inputs"]) == now  # validated before they part
        moved = np.abs(found["pseudo_inputs"] - before["pseudo_inputs"])
        assert moved.reshape(total, -1).max(1).min() > 1e-3  # each has learned
    assert was_best
    resumed, history = run(states[2], 2)
    chex.assert_trees_all_equal(resumed, state)
    assert [int(metrics["distinct_components"]) for metrics in history] == [4, 8]


def test_the_second_half_of_a_group_moves_by_the_noise_of_a_start():
    """As the encoder sees them, with a deviation for each value of vectors."""
    x = np.random.RandomState(0).rand(50, 200).astype("f")
    stddev = np.geomspace(1e-3, 1e-2, 200).astype("f")
    data = datasets.Dataset(
        *("toy", x, x, x, "bernoulli", False, 1, 0.5 + 0 * stddev, stddev, {}), kind="vectors"
    )
    fields = dict(num_components=6, pseudo_input_squash="sigmoid", doubling_epochs=1)
    plan = plan_for(small_config(**GROWN | fields), data)
    variables, epoch = variables_for(plan, data), jnp.asarray(1)
    see = plan.autoencoder.pseudo_inputs
    prior = jax.jit(lambda v, e: growing.parted(plan.growth, plan.autoencoder, v, e))(
        variables, epoch
    )
    u, found = variables["params"]["prior"]["pseudo_inputs"], prior["pseudo_inputs"]
    np.testing.assert_array_equal(found[:3], u[:3])
    np.testing.assert_array_equal(found[3:], np.broadcast_to(found[3], u[3:].shape))
    after = variables | {"params": variables["params"] | {"prior": prior}}
    noise = np.asarray(see(after)[3] - see(variables)[3]) / stddev
    assert noise.std() == pytest.approx(1.0, abs=0.15) and abs(noise.mean()) < 0.3
