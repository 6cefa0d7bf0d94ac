"""The epoch and the loop: the same on any number of devices, resumed exactly, stopped rightly."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from configs import default
from tests.cases import (
    largest_difference,
    plan_for,
    run_epochs,
    small_config,
    small_data,
    start_of,
    start_on_devices,
    terms_of,
    variables_for,
)
from vamp_jax.datasets.inputs import binarise
from vamp_jax.random_streams import BINARISE, NOISE, stream
from vamp_jax.run.stopping import should_stop
from vamp_jax.training import epoch as epochs
from vamp_jax.training.epoch import make_epoch


# SGD, since Adam hides gradients of a wrong scale. Batches of 20 leave padding on 8 devices and
# none on 2; of 7, padding everywhere and a last batch of one example.
@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(dict(batch_size=20), marks=pytest.mark.slow),
        dict(batch_size=7, num_importance_samples=3, importance_gradient="dreg"),
    ],
)
def test_trajectory_is_the_same_on_1_2_and_8_devices(fields):
    config = small_config(model="hvae", prior="vamp", **fields)
    data = small_data()
    optimizer = optax.sgd(1e-3)
    start = start_of(plan_for(config, data, optimizer), data)
    runs = {n: run_epochs(config, data, optimizer, num_devices=n) for n in (1, 2, 8)}
    moved = largest_difference(runs[1][0].params, jax.device_get(start.params))
    assert moved > 1e-3
    for n in (2, 8):
        assert largest_difference(runs[n][0].params, runs[1][0].params) < 1e-3 * moved
        for ours, single in zip(runs[n][1], runs[1][1], strict=True):
            for name in single:
                np.testing.assert_allclose(ours[name], single[name], rtol=1e-5, err_msg=name)


def test_gradient_of_an_epoch_of_one_batch_is_the_plain_gradient():
    """One full batch, plain gradients: what the devices add up is d mean(loss) / d params."""
    config = small_config(model="vae", prior="vamp", batch_size=50, warmup_epochs=4)
    data = small_data(dynamic=False)
    state, history = run_epochs(config, data, optax.sgd(1.0), num_epochs=1, num_devices=8)
    plan = plan_for(config, data, optax.sgd(1.0))
    start, key = start_of(plan, data), stream(config.seed, NOISE, 1)

    def mean_loss(params):
        def loss_of(example):  # one at a time, by itself
            i, stored = example
            noise = jax.random.normal(jax.random.fold_in(key, i), (1, config.latent_dim))
            x = stored[None].astype(jnp.float32) / 16
            variables = start.variables | {"params": params}
            terms = terms_of(plan.autoencoder, variables, x, {"z": noise})
            return -(terms.reconstruction[0] - 0.25 * terms.kl["z"][0])

        return jnp.mean(jax.lax.map(loss_of, (jnp.arange(len(data.train)), data.train)))

    value, gradient = jax.jit(jax.value_and_grad(mean_loss))(start.params)
    np.testing.assert_allclose(history[0]["train_loss"], value, rtol=1e-5)
    stepped = jax.tree.map(lambda old, g: old - g, start.params, gradient)
    assert largest_difference(stepped, state.params) < 2e-5


def test_every_example_is_seen_once_an_epoch_and_padding_counts_for_nothing():
    """With a learning rate of 0 the epoch's mean is the mean over the data, whatever the batch."""
    data = small_data(dynamic=False)
    losses = []
    for batch_size in (50, 7, 1):
        config = small_config(model="vae", prior="standard", batch_size=batch_size)
        _, history = run_epochs(config, data, optax.sgd(0.0), num_epochs=1, num_devices=2)
        losses.append(history[0]["train_loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_a_smaller_last_batch_is_filled_up_with_the_epoch_s_first_examples():
    """For the statistics of ladders' batch norm; its examples alone count for the loss."""
    config = small_config(model="vae", prior="standard", batch_size=7)
    plan = plan_for(config, small_data(10))
    settings, order = epochs.begin(jnp.int32(0), {}, plan, 10, 2)
    first, last = (
        [epochs.places(settings, order, step, device) for device in (0, 1)] for step in (0, 1)
    )
    index, weight, filled = (np.concatenate(parts) for parts in zip(*last, strict=True))
    np.testing.assert_array_equal(index[:7], np.asarray(order)[[7, 8, 9, 0, 1, 2, 3]])
    np.testing.assert_array_equal(weight, [1, 1, 1, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(filled, [1, 1, 1, 1, 1, 1, 1, 0])
    np.testing.assert_array_equal(np.concatenate([first[0].weight, first[1].weight]), filled)


def test_dynamic_binarisation_draws_anew_each_epoch_with_the_right_means():
    config, data = small_config(), small_data()
    key = stream(0, BINARISE, 1)
    index = jnp.arange(len(data.train))
    means = plan_for(config, data).inputs.of(data.train)
    np.testing.assert_array_equal(means, data.train / np.float32(16))
    draws = jnp.stack([binarise(jax.random.fold_in(key, e), index, means) for e in range(400)])
    assert set(np.unique(draws)) == {0.0, 1.0}
    error = np.sqrt(np.maximum(means * (1 - means), 1e-9) / 400)
    assert np.max(np.abs(draws.mean(0) - means) / (error + 1e-6)) < 5.5
    assert not np.array_equal(draws[0], draws[1])


def test_second_epoch_does_not_compile_again():
    config = small_config(model="vae", prior="vamp", batch_size=10)
    data = small_data()
    plan = plan_for(config, data, optax.sgd(0.1))
    state, *images = start_on_devices(plan, data)
    run = make_epoch(plan)
    state, _ = run(state, *images)
    with jax.log_compiles(), _compilations() as count:
        state, metrics = run(state, *images)
        state, metrics = run(state, *images)
        jax.block_until_ready(metrics)
        assert count == [] and int(metrics["epoch"]) == 3
        jax.jit(lambda x: x + 1)(0)
        assert count  # it hears of programs


class _compilations:
    """Collects the names of programs that JAX compiles inside the block."""

    def __enter__(self):
        import logging

        self.names = []
        self.handler = logging.Handler()
        self.handler.emit = lambda record: (
            self.names.append(record.getMessage())
            if "Finished XLA compilation" in record.getMessage()
            else None
        )
        self.logger = logging.getLogger("jax._src.dispatch")
        self.logger.addHandler(self.handler)
        return self.names

    def __exit__(self, *exception):
        self.logger.removeHandler(self.handler)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        pytest.param(dict(num_importance_samples=30), marks=pytest.mark.slow),
        dict(num_importance_samples=4, renyi_alpha=-np.inf),
    ],
    ids=["ELBO", "IWAE", "VR-max"],
)
def test_best_parameters_are_those_of_the_best_validation_elbo(fields):
    """Whatever is trained: of an IWAE the bound, `val_loss`, has another best epoch."""
    config = small_config(model="vae", prior="standard", batch_size=10, warmup_epochs=1, **fields)
    data = small_data()
    plan = plan_for(config, data, optax.sgd(0.1))
    state, *images = start_on_devices(plan, data)
    run = make_epoch(plan)
    elbos, losses, params, others = [], [], [], 0
    for _ in range(12):
        state, metrics = run(state, *images)
        elbos.append(float(metrics["val_reconstruction"] - metrics["val_kl"]))
        losses.append(float(metrics["val_loss"]))
        params.append(jax.device_get(state.params))
        best = int(np.argmax(elbos))
        assert int(state.best_epoch) == int(metrics["best_epoch"]) == best + 1
        np.testing.assert_allclose(float(state.best_loss), -elbos[best], rtol=1e-6)
        chex.assert_trees_all_equal(jax.device_get(state.best_params), params[best])
        others += np.argmin(losses) != best
    assert (others > 0) == bool(fields)
    if not fields:
        np.testing.assert_allclose(losses, -np.array(elbos), rtol=1e-6)


def test_vamp_data_keeps_its_examples_as_constants():
    config = small_config(model="vae", prior="vamp_data", batch_size=10)
    data = small_data()
    start = start_of(plan_for(config, data), data)
    state, _ = run_epochs(config, data, num_devices=2)
    kept = state.constants["pseudo_inputs"]
    rows = {row.tobytes() for row in (data.train / np.float32(16)).astype(np.float32)}
    assert len(kept) == 11 and all(row.tobytes() in rows for row in np.asarray(kept))
    chex.assert_trees_all_equal(state.constants, jax.device_get(start.constants))
    # Nothing that is learned, or kept beside it, has their shape.
    learned = (state.params, state.opt_state, state.best_params)
    assert all(np.shape(leaf) != kept.shape for leaf in jax.tree.leaves(learned))


def test_pseudo_inputs_move_and_so_do_weights_where_they_are_learned():
    config = small_config(model="vae", prior="vamp", batch_size=10, learned_weights=True)
    data = small_data()
    start = start_of(plan_for(config, data), data)
    state, _ = run_epochs(config, data, num_devices=2)
    for name in ("pseudo_inputs", "weight_logits"):
        moved = np.abs(state.params["prior"][name] - np.asarray(start.params["prior"][name]))
        assert moved.max() > 1e-4, name


@pytest.mark.parametrize(
    ("done", "best", "stops"),
    [
        (49, 1, False),  # in the warm-up the counter is held at 0
        (99, 1, False),
        (148, 1, False),  # counted from epoch 99: 49 without improvement
        (149, 1, True),
        (169, 120, False),
        (170, 120, True),
        (2000, 2000, True),
    ],
)
def test_early_stopping_is_counted_after_the_warm_up(done, best, stops):
    assert should_stop(done, best, default.get_config()) is stops


def test_two_seeds_differ_and_one_seed_repeats():
    data = small_data()
    params = []
    for seed in (0, 0, 1):
        config = small_config(model="vae", prior="vamp", batch_size=10, seed=seed)
        state, _ = run_epochs(config, data, optax.sgd(0.1), num_epochs=1, num_devices=1)
        params.append(state.params)
    assert largest_difference(params[0], params[1]) == 0
    assert largest_difference(params[0], params[2]) > 1e-3


def test_dense_weights_start_with_the_variance_asked_for():
    data = small_data()
    for model in ("vae", "pixel_hvae"):
        variables = {}
        for init in ("he", "glorot"):
            config = small_config(model=model, dense_init=init, hidden_dim=300)
            variables[init] = variables_for(plan_for(config, data), data)["params"]
        dense = 0
        for (path, he), glorot in zip(
            jax.tree_util.tree_leaves_with_path(variables["he"]),
            jax.tree.leaves(variables["glorot"]),
            strict=True,
        ):
            name = jax.tree_util.keystr(path)
            if "kernel" in name and he.ndim == 2:
                dense += 1
                fan_in, fan_out = he.shape
                if he.size > 10_000:
                    assert abs(he.std() * np.sqrt(fan_in / 2) - 1) < 0.02, name
                    assert abs(glorot.std() * np.sqrt((fan_in + fan_out) / 2) - 1) < 0.02, name
                assert not np.array_equal(he, glorot), name
            else:
                np.testing.assert_array_equal(he, glorot)
        assert dense > 8
