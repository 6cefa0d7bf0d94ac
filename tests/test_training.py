"""The epoch and the loop: the same on any number of devices, resumed exactly, stopped rightly."""

import functools

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
import pytest

from configs import default
from vamp_jax import datasets, epoch, models, settings, training
from vamp_jax.errors import UsageError
from vamp_jax.objectives import Objective
from vamp_jax.run.stopping import should_stop


def small_config(**fields):
    config = default.get_config("digits")
    config.update(dict(num_components=11, latent_dim=3, hidden_dim=8, eval_batch_size=16))
    config.update(fields)
    return config


def small_data(count=50, dynamic=True):
    rng = np.random.RandomState(0)
    pixels = [rng.randint(0, 17, (n, 4, 4, 1)).astype(np.uint8) for n in (count, 23, 9)]
    return datasets.Dataset("digits", *pixels, "bernoulli", dynamic, 16, 0.3, 0.05, {})


def objective_for(config, data):
    return Objective(models.create(config, data), config.prior)


def run_epochs(config, data, optimizer, num_epochs=2, num_devices=None):
    """Some epochs on the first `num_devices` devices, each device's program run by vmap."""
    objective = objective_for(config, data)
    state = epoch.init_state(config, data, objective, optimizer)
    one_device = functools.partial(
        epoch.train_epoch,
        objective=objective,
        optimizer=optimizer,
        config=config,
        dataset=data,
        num_devices=num_devices,
    )
    run = jax.pmap(
        lambda state, train, validation, _: one_device(state, train, validation),
        axis_name=epoch.AXIS,
        in_axes=(None, None, None, 0),
        out_axes=(None, None),
        devices=jax.devices()[:num_devices],
    )
    history = []
    for _ in range(num_epochs):
        state, metrics = run(state, data.train, data.validation, np.zeros(num_devices))
        history.append(jax.device_get(metrics))
    return jax.device_get(state), history


def largest_difference(a, b):
    return max(
        float(np.max(np.abs(x - y), initial=0.0))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# SGD, since Adam hides gradients of a wrong scale. Batches of 20 leave padding on 8 devices and
# none on 2; of 7, padding everywhere and a last batch of one example.
@pytest.mark.parametrize(
    "fields",
    [
        dict(batch_size=20),
        dict(batch_size=7, num_importance_samples=3, importance_gradient="dreg"),
    ],
)
def test_trajectory_is_the_same_on_1_2_and_8_devices(fields):
    config = small_config(model="hvae", prior="vamp", **fields)
    data = small_data()
    runs = {n: run_epochs(config, data, optax.sgd(1e-3), num_devices=n) for n in (1, 2, 8)}
    start = epoch.init_state(config, data, objective_for(config, data), optax.sgd(1e-3))
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
    objective = objective_for(config, data)
    start = epoch.init_state(config, data, objective, optax.sgd(1.0))
    key = epoch.stream(config.seed, epoch.NOISE, 1)

    def mean_loss(params):
        total = 0.0
        for i in range(len(data.train)):  # one example at a time, by itself
            variables = {"params": params, "batch_stats": {}}
            noise = jax.random.normal(jax.random.fold_in(key, i), (1, 1, config.latent_dim))
            x = jnp.asarray(data.train[i : i + 1], jnp.float32) / 16
            terms, _ = objective.terms(
                variables, objective.components(variables), objective.encode(variables, x), noise
            )
            total += terms.reconstruction[0] - 0.25 * terms.kl["z"][0]
        return -total / len(data.train)

    value, gradient = jax.value_and_grad(mean_loss)(start.params)
    np.testing.assert_allclose(history[0]["train_loss"], value, rtol=1e-5)
    stepped = jax.tree.map(lambda old, g: old - g, start.params, gradient)
    assert largest_difference(stepped, state.params) < 2e-5


def test_every_example_is_seen_once_an_epoch_and_padding_counts_for_nothing():
    """With a learning rate of 0 the epoch's mean is the mean over the data, whatever the batch."""
    data = small_data(dynamic=False)
    losses = []
    for batch_size in (50, 20, 7, 1):
        config = small_config(model="vae", prior="standard", batch_size=batch_size)
        _, history = run_epochs(config, data, optax.sgd(0.0), num_epochs=1, num_devices=2)
        losses.append(history[0]["train_loss"])
    np.testing.assert_allclose(losses, losses[0], rtol=1e-6)


def test_dynamic_binarisation_draws_anew_each_epoch_with_the_right_means():
    data = small_data()
    key = epoch.stream(0, epoch.BINARISE, 1)
    index = jnp.arange(len(data.train))
    means = epoch.unit_images(jnp.asarray(data.train), data)
    draws = jnp.stack(
        [epoch._binarise(jax.random.fold_in(key, e), index, means) for e in range(400)]
    )
    assert set(np.unique(draws)) == {0.0, 1.0}
    error = np.sqrt(np.maximum(means * (1 - means), 1e-9) / 400)
    assert np.max(np.abs(draws.mean(0) - means) / (error + 1e-6)) < 5.5
    assert not np.array_equal(draws[0], draws[1])


def test_second_epoch_does_not_compile_again():
    config = small_config(model="vae", prior="vamp", batch_size=10)
    data = small_data()
    optimizer = optax.sgd(0.1)
    objective = objective_for(config, data)
    sharding = epoch.replicated()
    state = jax.device_put(epoch.init_state(config, data, objective, optimizer), sharding)
    images = jax.device_put((data.train, data.validation), sharding)
    run = epoch.make_epoch(objective, optimizer, config, data)
    state, _ = run(state, *images)
    with jax.log_compiles(), _compilations() as count:
        state, metrics = run(state, *images)
        state, metrics = run(state, *images)
    assert count == [] and int(metrics["epoch"]) == 3


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


def test_best_parameters_are_those_of_the_lowest_validation_loss():
    config = small_config(model="vae", prior="standard", batch_size=10, warmup_epochs=1)
    data = small_data()
    optimizer = optax.sgd(0.05)
    objective = objective_for(config, data)
    sharding = epoch.replicated()
    state = jax.device_put(epoch.init_state(config, data, objective, optimizer), sharding)
    images = jax.device_put((data.train, data.validation), sharding)
    run = epoch.make_epoch(objective, optimizer, config, data)
    history = []
    for _ in range(12):
        state, metrics = run(state, *images)
        history.append((float(metrics["val_loss"]), jax.device_get(state.params)))
        best = min(range(len(history)), key=lambda i: history[i][0])
        assert int(state.best_epoch) == int(metrics["best_epoch"]) == best + 1
        assert float(state.best_loss) == history[best][0]
        assert largest_difference(jax.device_get(state.best_params), history[best][1]) == 0


def test_vamp_data_keeps_its_examples():
    config = small_config(model="vae", prior="vamp_data", batch_size=10)
    data = small_data()
    _, optimizer = training.set_up(config, data)
    state, _ = run_epochs(config, data, optimizer, num_devices=2)
    kept = state.params["prior"]["pseudo_inputs"]
    rows = {row.tobytes() for row in (data.train / np.float32(16)).astype(np.float32)}
    assert len(kept) == 11 and all(row.tobytes() in rows for row in np.asarray(kept))


def test_pseudo_inputs_move_and_so_do_weights_where_they_are_learned():
    config = small_config(model="vae", prior="vamp", batch_size=10, learned_weights=True)
    data = small_data()
    _, optimizer = training.set_up(config, data)
    start = epoch.init_state(config, data, objective_for(config, data), optimizer)
    state, _ = run_epochs(config, data, optimizer, num_devices=2)
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


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(model="hvea"), "model is 'hvea'.*Did you mean 'hvae'"),
        (dict(prior="vampprior"), "prior is 'vampprior'.*Did you mean"),
        (dict(dataset="static-mnist"), "dataset is 'static-mnist'.*Did you mean 'static_mnist'"),
        (dict(latent_dim=0), "latent_dim is 0"),
        (dict(num_components=-3), "num_components is -3"),
        (dict(batch_size=0), "batch_size is 0"),
        (dict(learning_rate=0.0), "learning_rate is 0.0"),
        (dict(learning_rate=float("nan")), "learning_rate is nan"),
        (dict(num_epochs=0), "num_epochs is 0"),
        (dict(warmup_epochs=-1), "warmup_epochs is -1"),
        (dict(num_samples=0), "num_samples is 0"),
        (dict(seed=-1), "seed is -1"),
        (dict(prior="mog", pseudo_inputs_from_data=True), "pseudo_inputs_from_data goes with"),
        (dict(prior="standard", learned_weights=True), "learned_weights goes with a mixture"),
        (dict(pixel_gated_stacks=True), "go with model 'pixel_hvae'"),
        (dict(pixel_mask_z=False), "go with model 'pixel_hvae'"),
        (dict(num_importance_samples=0), "num_importance_samples is 0"),
        (dict(importance_gradient="iwae"), "importance_gradient is 'iwae'"),
        (dict(model="pixel_hvae", importance_gradient="dreg"), "biased with batch norm"),
        (dict(matmul_precision="float16"), "matmul_precision is 'float16'"),
    ],
)
def test_impossible_settings_are_one_sentence(fields, sentence):
    config = default.get_config()
    config.update(fields)
    with pytest.raises(UsageError, match=sentence):
        settings.check(config)


def test_fields_of_a_config_are_the_known_ones_and_of_their_types():
    """As a config file of a user's own, or a damaged config.json, may not have them."""
    fields = default.get_config().to_dict()
    assert fields.keys() == settings.FIELDS.keys()
    without = {name: value for name, value in fields.items() if name != "proper_logistic"}
    for wrong, sentence in [
        (without, "no field 'proper_logistic'"),
        (fields | {"colour": "red"}, "field 'colour' that is not known"),
        (fields | {"latent_dim": "2"}, "latent_dim is '2'; it must be of type int"),
        (fields | {"batch_size": 100.0}, "batch_size is 100.0; it must be of type int"),
        (fields | {"learned_weights": 1}, "learned_weights is 1; it must be of type bool"),
    ]:
        with pytest.raises(UsageError, match=sentence):
            settings.check(ml_collections.ConfigDict(wrong))


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (dict(prior="vamp_data", num_components=51), "num_components is 51.*only 50"),
        (dict(pseudo_inputs_from_data=True, num_components=51), "num_components is 51.*only 50"),
        (dict(batch_size=51), "batch_size is 51.*only 50"),
        (dict(proper_logistic=True), "proper_logistic goes with grey images"),
    ],
)
def test_settings_that_do_not_fit_the_data_are_one_sentence(fields, sentence):
    with pytest.raises(UsageError, match=sentence):
        settings.check_with_data(small_config(**fields), small_data())


def test_dense_weights_start_with_the_variance_asked_for():
    data = small_data()
    for model in ("vae", "conv_hvae", "pixel_hvae"):
        variables = {}
        for init in ("he", "glorot"):
            config = small_config(model=model, dense_init=init, hidden_dim=300)
            objective = objective_for(config, data)
            variables[init] = epoch.init_variables(config, data, objective)["params"]
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
