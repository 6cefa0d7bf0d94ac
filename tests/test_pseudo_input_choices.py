"""Pseudo-inputs: how they keep in range, where they start, how they learn; the exemplar prior.

The functions behind them have tests of their own: test_priors_{pseudo_inputs,starts,exemplar}.py.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.cases import (
    largest_difference,
    plan_for,
    run_epochs,
    run_resumed,
    small_config,
    small_data,
    start_of,
    variables_for,
)
from vamp_jax import choices, datasets, priors
from vamp_jax.evaluation import diagnose
from vamp_jax.random_streams import latent_noise
from vamp_jax.training import exemplars, optimizers, phases
from vamp_jax.training.epoch import Batch
from vamp_jax.training.state import arranged_state, prior_at_start

FIELDS = dict(model="vae", prior="vamp", num_components=6, batch_size=20)


def case(count=50, **fields):
    data = small_data(count, dynamic=False)
    plan = plan_for(small_config(**FIELDS | fields), data)
    return plan, variables_for(plan, data), data


# ---------------------------------------------------------------------------------------------
# Ranges and starts.


@pytest.mark.parametrize("start", ["noise", "examples"])
@pytest.mark.parametrize("squash", choices.SQUASHES)
def test_the_encoder_sees_the_same_start_however_it_is_kept_in_range(squash, start):
    seen = []
    for name in ("clip", squash):
        plan, variables, _ = case(pseudo_input_squash=name, pseudo_input_start=start)
        seen.append(np.asarray(plan.autoencoder.pseudo_inputs(variables)))
    outside = 0.05 if squash == "free" else 0.0  # the noise of a start at examples
    np.testing.assert_allclose(seen[1], seen[0], atol=0.011 + outside)  # a sigmoid's margin
    assert np.std(seen[0]) > (0.2 if start == "examples" else 0.03)


@pytest.mark.parametrize("start", ["examples", "kmeans"])
def test_classes_as_a_start_move_as_real_numbers(start):
    x = np.random.RandomState(0).randint(0, 4, (40, 7))
    data = datasets.of_arrays("x", {"x": x}, likelihood="categorical")
    config = small_config(**FIELDS | dict(pseudo_input_start=start, dataset="x.npz"))
    plan = plan_for(config, data)
    begun = variables_for(plan, data)["params"]["prior"]["pseudo_inputs"]
    assert begun.dtype == np.float32 and 1.0 < np.mean(begun) < 2.0
    state, _ = run_epochs(config, data, num_epochs=1)
    trained = state.params["prior"]["pseudo_inputs"]
    assert largest_difference(trained, begun) > 0


@pytest.mark.parametrize(
    ("squash", "dead"), [("clip", 0.5), ("straight_through", 0), ("sigmoid", 0), ("free", 0)]
)
def test_dead_values_are_those_that_no_gradient_reaches(squash, dead):
    plan, variables, _ = case(pseudo_input_squash=squash)
    start = variables["params"]["prior"]["pseudo_inputs"]
    u = jnp.where(jnp.arange(16).reshape(4, 4, 1) % 4 < 2, 0.5, jnp.asarray([-1.0, 2.0])[0])
    params = variables["params"] | {"prior": {"pseudo_inputs": jnp.broadcast_to(u, start.shape)}}
    found = diagnose.pseudo_inputs(plan.autoencoder, variables | {"params": params}, start)
    assert found["dead_values"] == dead
    assert found["at_clip"] == (0.0 if squash == "sigmoid" else 0.5)


def test_kmeans_and_kmedoids_are_where_a_run_starts():
    data = small_data(dynamic=False)
    x = np.float64(data.train) / 16
    for start in ("kmeans", "kmedoids"):
        config = small_config(**FIELDS, pseudo_input_start=start)
        plan = plan_for(config, data)
        state = arranged_state(
            start_of(plan, data), plan.autoencoder, data, plan.inputs, config.seed
        )
        u = np.float64(state.params["prior"]["pseudo_inputs"])
        chex.assert_trees_all_equal(state.best_params, state.params)
        again = prior_at_start(plan.autoencoder, data, plan.inputs, config.seed)
        np.testing.assert_array_equal(again["pseudo_inputs"], np.float32(u))
        nearest = ((x[:, None] - u[None]) ** 2).mean((2, 3, 4)) ** 0.5  # [N, K]
        if start == "kmedoids":  # examples, but for the noise, and each another
            assert nearest.min(0).max() < 0.02 and len(set(nearest.argmin(0))) == 6
            continue
        centres = priors.kmeans_centres(np.float32(x), 6, seed=config.seed)
        assert np.abs(u - centres).max() < 0.06


# ---------------------------------------------------------------------------------------------
# Updates.


def share_of(plan, variables, data, num_steps=3):
    """An epoch's examples in batches of 20, on one device, the last one padded."""
    autoencoder = plan.autoencoder

    def batch_at(step):
        place = step * 20 + jnp.arange(20)
        index = jnp.minimum(place, 49)
        noise = latent_noise(jax.random.key(3), index, autoencoder.network.latent_shapes)
        x = plan.inputs.of(jnp.asarray(data.train)[index])
        weight = (place < 50) * 1.0
        return Batch(x, index, weight, weight, jax.tree.map(lambda leaf: leaf[None], noise))

    return phases.Share(
        autoencoder=autoencoder,
        encode=lambda variables: lambda u: autoencoder.encode_components(variables, u),
        sum_over=lambda tree: tree,
        batch_at=batch_at,
        num_steps=num_steps,
        count=50,
    )


def test_mass_is_the_mean_responsibility_and_components_without_it_start_anew():
    plan, variables, data = case(pseudo_input_update="em", learned_weights=True)
    autoencoder, params = plan.autoencoder, variables["params"]
    logits = jnp.asarray([0.0, 0.0, -30.0, 1.0, -30.0, 2.0])
    prior = params["prior"] | {"weight_logits": logits}
    variables = variables | {"params": params | {"prior": prior}}
    share = share_of(plan, variables, data)
    mass = np.asarray(phases.component_mass(share, variables))
    z = np.concatenate([phases._draw(share, variables, step)[0][0] for step in range(3)])[:50]
    shares = priors.responsibilities(z, autoencoder.prior_density(variables))
    np.testing.assert_allclose(mass, shares.mean(0), atol=1e-6)

    fresh = plan.inputs.of(data.train[:6])
    still = phases.Phase(1, optax.sgd(0.0), restart_below=0.1)
    found, metrics = phases.run(still, share, variables, fresh)
    assert int(metrics["restarted_components"]) == np.sum(mass < 0.1 / 6) == 2
    new = np.isin(np.arange(6), [2, 4])
    seen = np.where(new[:, None, None, None], fresh, prior["pseudo_inputs"])
    np.testing.assert_array_equal(found["pseudo_inputs"], seen)
    np.testing.assert_allclose(found["weight_logits"], np.where(new, logits.mean(), logits))


def test_a_wake_step_is_a_gradient_step_of_the_mean_log_prior_by_the_pseudo_inputs_alone():
    plan, variables, data = case()
    share = share_of(plan, variables, data, num_steps=1)
    z, _ = phases._draw(share, variables, 0)

    def mean(u):
        inside = variables | {"params": variables["params"] | {"prior": {"pseudo_inputs": u}}}
        return priors.log_prob(z, plan.autoencoder.prior_density(inside)).mean()

    u = variables["params"]["prior"]["pseudo_inputs"]
    one = phases.Phase(1, optax.sgd(0.5))
    many = phases.Phase(300, optimizers.normalized_adam(3e-3))
    run = jax.jit(lambda phase: phases.run(phase, share, variables, u)[0], static_argnums=0)
    np.testing.assert_allclose(
        run(one)["pseudo_inputs"], u + 0.5 * jax.jit(jax.grad(mean))(u), atol=1e-6
    )
    assert mean(run(many)["pseudo_inputs"]) > mean(u) + 0.05


def test_langevin_steps_wander_through_the_posterior():
    """Under a loss of N(3, 0.2^2) / N they end there: mean and spread of 2,000 chains."""
    others = optax.sgd(0.1)
    optimizer = optimizers.langevin_of_pseudo_inputs(
        others, step_size=2e-3, num_examples=50, seed=0
    )
    params = {"model": jnp.ones(3), "prior": {"pseudo_inputs": jnp.zeros(2000)}}

    def loss(params):
        far = jnp.sum((params["prior"]["pseudo_inputs"] - 3.0) ** 2) / (2 * 0.2**2) / 50
        return far + jnp.sum(params["model"])

    def step(carry, _):
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    run = jax.jit(lambda carry: jax.lax.scan(step, carry, None, length=400)[0])
    params, state = run((params, optimizer.init(params)))
    u = np.float64(params["prior"]["pseudo_inputs"])
    assert u.mean() == pytest.approx(3.0, abs=0.02) and u.std() == pytest.approx(0.2, rel=0.06)
    assert int(state.count) == 400
    np.testing.assert_allclose(params["model"], 1.0 - 0.1 * 400, rtol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(dict(pseudo_input_update="em", wake_steps=4), id="em"),
        pytest.param(
            dict(pseudo_input_update="grown", doubling_epochs=1),
            id="grown",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            dict(prior="exemplar", num_neighbours=3), id="exemplar", marks=pytest.mark.slow
        ),
    ],
)
def test_resumed_it_has_the_same_bits_and_on_8_devices_the_same_trajectory(fields, tmp_path):
    config, data = small_config(**FIELDS | fields), small_data()
    optimizer = optax.sgd(1e-3)  # Adam would make much of round-off
    through, history = run_resumed(config, data, tmp_path, optimizer)
    eight, of_eight = run_epochs(config, data, optimizer, num_epochs=2, num_devices=8)
    assert largest_difference(through.params, eight.params) < 2e-4
    chex.assert_trees_all_close(history, of_eight, rtol=1e-3)
    assert all(np.isfinite(metrics["val_loss"]) for metrics in history)


def test_langevin_s_noise_is_another_for_each_array():
    steps = optimizers.langevin_of_pseudo_inputs(
        optax.sgd(0.1), step_size=1.0, num_examples=50, seed=0
    )
    params = {"prior": {"pseudo_inputs": {"a": jnp.zeros(9), "b": jnp.zeros(9)}}}
    updates, _ = steps.update(params, steps.init(params), params)
    a, b = updates["prior"]["pseudo_inputs"].values()
    assert jnp.abs(a - b).min() > 1e-3


def test_langevin_s_noise_is_the_same_when_resumed(tmp_path):
    config = small_config(**FIELDS, pseudo_input_update="langevin")
    run_resumed(config, small_data(), tmp_path)


# ---------------------------------------------------------------------------------------------
# The exemplar prior.


def test_a_step_of_the_exemplar_prior_leaves_each_example_out_of_its_own():
    plan, variables, data = case(prior="exemplar", num_neighbours=49)
    autoencoder, index = plan.autoencoder, np.array([3, 41, 0])
    encode = lambda u: autoencoder.encode_components(variables, u)  # noqa: E731
    means = exemplars.encoded_means(autoencoder, variables, encode)
    x = np.float32(data.train) / 16
    np.testing.assert_array_equal(variables["constants"]["pseudo_inputs"], x)
    args = autoencoder, variables, means, means[index], index, encode
    z = np.random.RandomState(0).standard_normal((2, 3, 3)).astype("f")
    near = exemplars.density(*args).log_prob(z)

    every = plan_for(small_config(**FIELDS | dict(prior="exemplar", num_neighbours=0)), data)
    whole = exemplars.density(every.autoencoder, *args[1:]).log_prob(z)
    np.testing.assert_allclose(near, whole, rtol=1e-5)  # 49 neighbours are all others
    without = [np.delete(np.asarray(means), i, axis=0) for i in index]
    exact = [priors.log_prob(z[:, b], priors.Exemplar(without[b], 0.0)) for b in range(3)]
    np.testing.assert_allclose(whole, np.stack(exact, 1), rtol=1e-5)
    few = plan_for(small_config(**FIELDS | dict(prior="exemplar", num_neighbours=5)), data)
    lower = exemplars.density(few.autoencoder, *args[1:])
    assert np.all(lower.log_prob(z) < whole)
    np.testing.assert_allclose(lower.responsibilities(z).sum(-1), 1.0, rtol=1e-5)
    with pytest.raises(ValueError, match="no density to draw from"):
        priors.sample(jax.random.key(0), lower, 2)
