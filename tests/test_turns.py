"""A few components a step: exact values, a gradient once a round, the same bits when resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.cases import (
    largest_difference,
    plan_for,
    prepare_run,
    run_epochs,
    run_resumed,
    small_config,
    small_data,
    variables_for,
)
from vamp_jax.random_streams import latent_noise
from vamp_jax.training import optimizers, turns

COUNT, TOTAL = 3, 12
FIELDS = dict(model="vae", prior="vamp", num_components=TOTAL, batch_size=10)


def case(**fields):
    config, data = small_config(**FIELDS | fields), small_data(dynamic=False)
    plan = plan_for(config, data)
    return plan, variables_for(plan, data), data


def test_each_pseudo_input_has_its_turn_once_a_round():
    plan, variables, _ = case()
    encode = lambda u: plan.autoencoder.encode_components(variables, u)  # noqa: E731
    turn = turns.start(plan.autoencoder, variables, jax.random.key(0), encode)
    rows = [np.asarray(turns.rows_of(turn, step, COUNT)) for step in range(8)]
    for round_ in (rows[:4], rows[4:]):
        assert sorted(np.concatenate(round_)) == list(range(TOTAL))
    other = turns.start(plan.autoencoder, variables, jax.random.key(1), encode)
    assert not np.array_equal(other.order, turn.order)


@pytest.mark.parametrize(
    "posterior", ["normal", pytest.param("householder", marks=pytest.mark.slow)]
)
def test_gradients_of_the_turns_add_up_to_the_full_one(posterior):
    """With fresh encodings: the value exactly, each turn; and the components' part of it."""
    plan, variables, data = case(posterior=posterior, prior="vamp")
    autoencoder = plan.autoencoder
    x = plan.inputs.of(data.train[:7])
    noise = latent_noise(jax.random.key(1), jnp.arange(7), autoencoder.network.latent_shapes)

    def elbo(params, prior_of):
        inside = variables | {"params": params}
        terms, _ = autoencoder.terms(inside, prior_of(inside), autoencoder.encode(inside, x), noise)
        return terms.elbo().mean()

    def of_turn(inside, step):
        encode = lambda u: autoencoder.encode_components(inside, u)  # noqa: E731
        turn = turns.start(autoencoder, inside, jax.random.key(0), encode)
        rows = turns.rows_of(turn, step, COUNT)
        prior, _, drift = turns.density(autoencoder, inside, turn, rows, encode)
        return prior, drift

    def stopped(inside):
        encode = lambda u: jax.lax.stop_gradient(autoencoder.encode_components(inside, u))  # noqa: E731
        return autoencoder.prior_density(inside, encode)

    @jax.jit
    def run(params):
        rest = jax.grad(elbo)(params, stopped)
        full = jax.value_and_grad(elbo)(params, autoencoder.prior_density)
        parts = [
            jax.value_and_grad(elbo)(params, lambda v, s=step: of_turn(v, s)[0])
            for step in range(TOTAL // COUNT)
        ]
        drifts = [of_turn(variables, step)[1] for step in range(TOTAL // COUNT)]
        return rest, full, parts, drifts

    rest, (value, gradient), parts, drifts = run(variables["params"])
    for part, _ in parts:
        np.testing.assert_allclose(part, value, rtol=1e-6)
    total = jax.tree.map(
        lambda rest, *leaves: rest + sum(leaf - rest for leaf in leaves),
        rest,
        *[g for _, g in parts],
    )
    scale = max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(gradient))
    assert largest_difference(total, gradient) < 1e-5 * scale
    for other in (rest, parts[0][1]):
        assert largest_difference(other, gradient) > 1e-4 * scale
    np.testing.assert_allclose(drifts, 0.0, atol=1e-6)


@pytest.mark.parametrize("period", [4.0, 20.0])
def test_a_rare_gradient_moves_pseudo_inputs_as_far_as_a_steady_one(period):
    """Of unit gradients, each in one step of a period: all the way that Adam goes with all."""
    plain = optimizers.normalized_adam(1e-3)
    rare = optimizers.larger_steps_of_pseudo_inputs(plain, period)
    params = {"prior": {"pseudo_inputs": jnp.zeros(2)}, "other": jnp.zeros(2)}

    def way(optimizer, every):
        def step(carry, index):
            params, state = carry
            gradient = jnp.where(index % every == 0, 1.0, 0.0) * jnp.ones(2)
            grads = {"prior": {"pseudo_inputs": gradient}, "other": gradient}
            updates, state = optimizer.update(grads, state, params)
            return (optax.apply_updates(params, updates), state), None

        start = params, optimizer.init(params)
        return jax.lax.scan(step, start, jnp.arange(8000))[0][0]

    steady, some = way(plain, 1), way(rare, period)
    np.testing.assert_allclose(
        some["prior"]["pseudo_inputs"], steady["prior"]["pseudo_inputs"], rtol=0.15
    )
    np.testing.assert_allclose(some["other"], steady["other"] / period**0.5, rtol=0.15)


def test_a_run_s_optimiser_knows_how_rare_gradients_are():
    steps = []
    for count in (0, COUNT):
        plan, variables, _ = case(components_per_step=count)
        grads = jax.tree.map(jnp.ones_like, variables["params"])
        steps.append(plan.optimizer.update(grads, plan.optimizer.init(grads), grads)[0])
    moved = [step["prior"]["pseudo_inputs"] for step in steps]
    np.testing.assert_allclose(moved[1], (TOTAL / COUNT) ** 0.5 * moved[0], rtol=1e-6)
    others = [{name: step[name] for name in step if name != "prior"} for step in steps]
    assert largest_difference(*others) == 0


def test_with_all_in_turn_nothing_changes():
    data = small_data()
    every, whole = (small_config(**FIELDS | {"components_per_step": n}) for n in (TOTAL, 0))
    assert plan_for(every, data).components_per_step == 0
    a, b = (run_epochs(config, data, optax.sgd(1e-2)) for config in (every, whole))
    assert largest_difference(a[0].params, b[0].params) == 0


@pytest.mark.parametrize("prior", ["vamp", pytest.param("vamp_data", marks=pytest.mark.slow)])
def test_training_is_close_to_the_full_gradient_s_and_drift_is_logged(prior):
    data = small_data()
    fields = FIELDS | {"prior": prior}
    start, run = prepare_run(small_config(**fields), data, optax.sgd(1e-2))
    full, _ = run(start, 3)
    config = small_config(**fields, components_per_step=COUNT)
    some, history = run_epochs(config, data, optax.sgd(1e-2), num_epochs=3)
    moved = largest_difference(full.params, start.params)
    assert 0 < largest_difference(full.params, some.params) < 0.5 * moved
    assert all(0 < metrics["component_drift"] < 1.0 for metrics in history)


def test_resumed_it_has_the_same_bits(tmp_path):
    config = small_config(**FIELDS, components_per_step=5)
    run_resumed(config, small_data(), tmp_path, num_epochs=4)


def test_trajectory_is_the_same_on_1_and_8_devices():
    config, data = small_config(**FIELDS, components_per_step=5), small_data()
    start, run = prepare_run(config, data, optax.sgd(1e-3))
    one, _ = run(start, 2)
    eight, _ = run_epochs(config, data, optax.sgd(1e-3), num_devices=8)
    moved = largest_difference(one.params, start.params)
    assert largest_difference(one.params, eight.params) < 1e-3 * moved


def test_drift_of_components_that_turn_is_the_divergence_of_full_covariances():
    config, data = small_config(**FIELDS | dict(posterior="householder")), small_data()
    plan = plan_for(config, data)
    variables = variables_for(plan, data)
    encode = lambda u: plan.autoencoder.encode_components(variables, u)  # noqa: E731
    turn = turns.start(plan.autoencoder, variables, jax.random.key(0), encode)
    rows = turns.rows_of(turn, 0, COUNT)

    def other(u):  # the base as it was, in other directions; or all of it another
        mean, log_var, rotation = encode(u)
        return mean + 0.3, log_var - 0.2, jnp.roll(rotation, 1, axis=1)

    drift = turns.density(plan.autoencoder, variables, turn, rows, other)[2]
    u = plan.autoencoder.pseudo_inputs(variables)[rows]
    divergences = []
    for new, old in zip(zip(*other(u), strict=True), zip(*encode(u), strict=True), strict=True):
        (mean, cov), (old_mean, old_cov) = (
            (r @ m, r @ np.diag(np.exp(v)) @ r.T)
            for m, v, r in (map(np.float64, c) for c in (new, old))
        )
        inverse, away = np.linalg.inv(old_cov), mean - old_mean
        logs = np.linalg.slogdet(old_cov)[1] - np.linalg.slogdet(cov)[1]
        terms = np.trace(inverse @ cov) + away @ inverse @ away - len(mean) + logs
        divergences.append(0.5 * terms)
    np.testing.assert_allclose(drift, np.mean(divergences), rtol=1e-4)
