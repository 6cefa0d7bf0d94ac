"""From the config to the step: what a field says is what an epoch does.

The functions that do it have tests of their own; here it is that they are called, with the values
that the config has.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.cases import (
    largest_difference,
    plan_for,
    run_epochs,
    small_config,
    small_data,
    start_of,
    variables_for,
)
from vamp_jax import autoencoder, priors
from vamp_jax.random_streams import NOISE, latent_noise, stream
from vamp_jax.training import epoch, loop, phases, turns
from vamp_jax.training.checkpoints import Checkpoints
from vamp_jax.training.state import arranged_state

FIELDS = dict(model="vae", prior="vamp", num_components=6, batch_size=20)


def case(**fields):
    config, data = small_config(**FIELDS | fields), small_data(dynamic=False)
    plan = plan_for(config, data)
    return plan, variables_for(plan, data), data


def prior_params(variables, **changed):
    return variables | {
        "params": variables["params"] | {"prior": variables["params"]["prior"] | changed}
    }


# Turns.


def test_what_a_turn_encodes_is_what_the_next_finds():
    plan, variables, _ = case(components_per_step=2)
    encode = lambda u: plan.autoencoder.encode_components(variables, u)  # noqa: E731
    turn = turns.start(plan.autoencoder, variables, jax.random.key(0), encode)
    u = variables["params"]["prior"]["pseudo_inputs"]
    moved = prior_params(variables, pseudo_inputs=jnp.clip(u + 0.3, 0, 1))
    rows = turns.rows_of(turn, jnp.asarray(1), 2)
    args = plan.autoencoder, moved, turn, rows, encode
    prior, after, drift = turns.density(*args)
    now = encode(plan.autoencoder.pseudo_inputs(moved))
    taken = np.isin(np.arange(6), np.asarray(rows))[:, None]
    for kept, old, new in zip(after.encoded, turn.encoded, now, strict=True):
        np.testing.assert_allclose(kept, np.where(taken, new, old), rtol=1e-6)
        assert np.abs(new - old).max() > 1e-3
    assert drift > 0 and turns.density(*args[:2], after, rows, encode)[2] < 1e-6
    np.testing.assert_array_equal(prior.mean, after.encoded[0])


def test_each_epoch_has_an_order_of_turns_of_its_own():
    plan, _, data = case(num_components=30, components_per_step=3)
    state = start_of(plan, data)

    def order_of(epochs_done):
        settings, _ = epoch.begin(jnp.asarray(epochs_done), state.constants, plan, 50, 1)
        return np.asarray(epoch.first_carry(settings, state)[-1].order)

    assert not np.array_equal(order_of(0), order_of(1))
    np.testing.assert_array_equal(order_of(1), order_of(1))


def test_components_that_change_too_much_are_told_once_with_the_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "MAX_DRIFT", 0.0)
    config = small_config(**FIELDS, components_per_step=2, num_epochs=4)
    data = small_data()
    plan = plan_for(config, data)
    with Checkpoints(str(tmp_path)) as checkpoints:
        loop.train([loop.Run(config, str(tmp_path), plan, checkpoints)], data, 1e9)
    said = [line for line in capsys.readouterr().out.splitlines() if "comes apart" in line]
    assert len(said) == 1 and f"until epoch 2 of {tmp_path}, 2 in a row" in said[0]
    assert "raise components_per_step, which is 2" in said[0]


# The optimiser.


def test_the_cosine_ends_with_the_last_step_of_the_last_epoch():
    fields = dict(learning_rate=1e-2, final_learning_rate=1e-4, num_epochs=4)
    plan, variables, _ = case(learning_rate_schedule="cosine", **fields)
    steps = 4 * 3  # of 50 examples in batches of 20
    params = {"model": jnp.zeros(()), "prior": {"pseudo_inputs": jnp.zeros(())}}
    state, rates = plan.optimizer.init(params), []
    for _ in range(steps + 1):
        # Of a gradient that never changes, a step of Adam is the learning rate.
        updates, state = plan.optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
        rates.append(-float(updates["model"]))
    share = np.cos(np.pi * np.arange(steps + 1) / steps) / 2 + 0.5
    np.testing.assert_allclose(rates, 1e-4 + (1e-2 - 1e-4) * share, rtol=1e-2)


# Pseudo-inputs.


def test_medoids_are_those_of_the_encoded_examples():
    config, data = small_config(**FIELDS, pseudo_input_start="kmedoids"), small_data(dynamic=False)
    plan = plan_for(config, data)
    args = start_of(plan, data), plan.autoencoder, data, plan.inputs, config.seed
    u = np.asarray(arranged_state(*args).params["prior"]["pseudo_inputs"])
    x = np.float32(data.train) / 16
    mean = plan.autoencoder.top_centre(variables_for(plan, data), x)
    expected, other = (priors.kmedoids(of, 6, seed=config.seed) for of in (np.asarray(mean), x))
    assert np.abs(u - x[expected]).max() < 0.06  # but for the noise
    assert set(expected) != set(other)


def test_components_without_mass_start_at_examples_each_at_another(monkeypatch):
    monkeypatch.setattr(phases, "NO_MASS", 1e9)  # all of them
    config = small_config(**FIELDS, pseudo_input_update="em", wake_steps=1)
    data = small_data(dynamic=False)
    state, (metrics,) = run_epochs(config, data, optax.sgd(0.0), num_epochs=1)
    assert metrics["restarted_components"] == 6
    u, x = np.asarray(state.params["prior"]["pseudo_inputs"]), np.float32(data.train) / 16
    distance = np.abs(u[:, None] - x[None]).max((2, 3, 4))  # the wake step moved them a little
    assert distance.min(1).max() < 0.02 and len(set(distance.argmin(1))) == 6


@pytest.mark.parametrize("update", ["wake", "em"])
def test_a_wake_phase_has_as_many_steps_as_the_config_says(update):
    for steps in (1, 7):
        plan, _, _ = case(pseudo_input_update=update, wake_steps=steps)
        assert plan.phase.steps == steps
        assert plan.phase.restart_below == (phases.NO_MASS if update == "em" else 0.0)


@pytest.mark.parametrize(("per_step", "period"), [(0, 1), (2, 3)])
def test_langevin_steps_are_of_as_many_examples_as_there_are(per_step, period):
    """A step's part that is no noise is -step_size / 2 N g; with turns a gradient comes 1 in 3."""
    fields = dict(pseudo_input_update="langevin", langevin_step_size=1e-4)
    plan, variables, _ = case(components_per_step=per_step, **fields)
    params = variables["params"]

    def move(gradient):
        grads = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), params)
        updates, _ = plan.optimizer.update(grads, plan.optimizer.init(params), params)
        return updates["prior"]["pseudo_inputs"]

    np.testing.assert_allclose(move(1.0) - move(0.0), -0.5e-4 * 50 * period, rtol=1e-2)
    assert float(jnp.std(move(0.0))) == pytest.approx(1e-2, rel=0.3)


# Priors.


@pytest.mark.parametrize("stopped", [False, True])
def test_components_of_a_warped_prior_are_stopped_where_the_config_says_so(stopped):
    plan, variables, _ = case(prior="vamp_flow", stop_components=stopped)
    z = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)

    def mean(u):
        density = plan.autoencoder.prior_density(prior_params(variables, pseudo_inputs=u))
        return jnp.mean(priors.log_prob(z, density))

    slope = jax.grad(mean)(variables["params"]["prior"]["pseudo_inputs"])
    assert bool((slope == 0).all()) == stopped


@pytest.mark.slow
def test_examples_are_encoded_a_few_at_a_time_on_any_number_of_devices(monkeypatch):
    config = small_config(**FIELDS | dict(prior="exemplar", num_neighbours=5))
    data, found = small_data(), []
    for at_a_time, devices in ((1000, 1), (16, 8)):
        monkeypatch.setattr(autoencoder, "EXAMPLES", at_a_time)
        found.append(run_epochs(config, data, optax.sgd(1e-3), 2, devices)[0].params)
    assert largest_difference(*found) < 2e-5


@pytest.mark.parametrize("neighbours", [pytest.param(0, marks=pytest.mark.slow), 49])
def test_the_kl_of_an_epoch_under_the_exemplar_prior_leaves_each_example_out(neighbours):
    config = small_config(**FIELDS | dict(prior="exemplar", num_neighbours=neighbours))
    data = small_data(dynamic=False)
    _, (metrics,) = run_epochs(config, data, optax.sgd(0.0), num_epochs=1)
    plan = plan_for(config, data)
    model, variables = plan.autoencoder, variables_for(plan, data)
    x, index = np.float32(data.train) / 16, np.arange(50)
    shapes = model.network.latent_shapes
    noise = latent_noise(stream(plan.seed, NOISE, 1), index, shapes)
    encoded = model.encode(variables, x)
    (drawn, log_q) = model.draw(variables, encoded, noise)
    z, mean = np.float64(drawn["z"]), np.float64(encoded.top.base.mean)
    log_var = float(variables["params"]["prior"]["log_var"])

    def log_prior(i, left_out):
        others = np.delete(mean, left_out, axis=0)
        terms = -0.5 * ((z[i] - others) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))
        return np.logaddexp.reduce(terms.sum(1)) - np.log(len(others))

    without = np.mean([log_q["z"][i] - log_prior(i, [i]) for i in index])
    with_itself = np.mean([log_q["z"][i] - log_prior(i, []) for i in index])
    assert metrics["train_kl"] == pytest.approx(without, abs=1e-4)
    assert abs(without - with_itself) > 1e-3
