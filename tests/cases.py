"""Small configs, data, plans and models that the tests share."""

import importlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax

from configs import default
from tests.reference import SHAPE
from vamp_jax import choices, datasets, likelihoods, trainable_priors
from vamp_jax.autoencoder import Autoencoder
from vamp_jax.parallel import AXIS
from vamp_jax.training import devices, plans
from vamp_jax.training.checkpoints import Checkpoints
from vamp_jax.training.epoch import train_epoch
from vamp_jax.training.state import init_variables, initial_state

F32 = np.float32
LATENT_DIM = 4
SMALL = dict(x_shape=SHAPE, likelihood=likelihoods.BERNOULLI, latent_dim=LATENT_DIM, hidden_dim=7)
# Of the four priors, as `make_case` takes them.
PRIORS = {
    "standard": trainable_priors.standard(LATENT_DIM),
    "mog": trainable_priors.mixture_of_gaussians(5),
    "vamp_data": trainable_priors.vamp_data(5),
    "vamp": trainable_priors.vamp(5, bounds=(0.0, 1.0)),
}


# ---------------------------------------------------------------------------------------------
# Runs: from a config and data.


def small_config(**fields):
    """A config of small sizes, with these fields beside."""
    config = default.get_config("digits")
    config.update(dict(num_components=11, latent_dim=3, hidden_dim=8, eval_batch_size=16))
    config.dense_init = "he"  # wider weights tell more at such sizes
    config.update(fields)
    return config


def paper_config(name, dataset="static_mnist"):
    """The config of a file of configs/."""
    return importlib.import_module(f"configs.{name}").get_config(dataset)


def small_data(count=50, dynamic=True):
    """Images of 4x4 pixels, levels 0 to 16: `count` to train, 23 and 9 beside."""
    rng = np.random.RandomState(0)
    pixels = [rng.randint(0, 17, (n, 4, 4, 1)).astype(np.uint8) for n in (count, 23, 9)]
    return datasets.Dataset("digits", *pixels, "bernoulli", dynamic, 16, 0.3, 0.05, {})


def small_sequences(count=50):
    """Rolls of 3 keys and 1 to 5 steps: `count` to train, 23 and 9 beside."""
    rng = np.random.RandomState(0)
    splits = [
        {
            "values": rng.randint(0, 2, (n, 5, 3)).astype(np.uint8),
            "length": rng.randint(1, 6, n).astype(np.int32),
        }
        for n in (count, 23, 9)
    ]
    more = dict(kind="sequences")
    return datasets.Dataset("rolls", *splits, "bernoulli", False, 1, 0.5, 0.5, {}, **more)


def data_for(config, **options):
    """Small data of the kind that the config's network takes."""
    if config.model in choices.SEQUENTIAL:
        config.pseudo_input_start = "examples"
        return small_sequences()
    return small_data(**options)


def plan_for(config, data, optimizer=None):
    """What is done in an epoch of this run, with another optimiser where one is given."""
    plan = plans.make(config, data)
    return plan if optimizer is None else plan._replace(optimizer=optimizer)


def variables_for(plan, data):
    """A run's variables before its first epoch."""
    return init_variables(plan.autoencoder, data, plan.inputs, plan.seed)


def start_of(plan, data):
    """A run's state before its first epoch."""
    return initial_state(plan.autoencoder, plan.optimizer, data, plan.inputs, plan.seed)


def start_on_devices(plan, data):
    """(state, train, validation) as `make_epoch` takes them."""
    arrays = start_of(plan, data), data.train, data.validation
    return jax.device_put(arrays, devices.replicated())


def compiled_epoch(plan, state, train, validation, num_devices=1):
    """`train_epoch`, compiled for the first `num_devices` devices."""
    run = jax.pmap(
        lambda state, train, validation, _: train_epoch(
            state, train, validation, plan=plan, num_devices=num_devices
        ),
        axis_name=AXIS,
        in_axes=(None, None, None, 0),
        out_axes=None,
        devices=jax.devices()[:num_devices],
    )
    arguments = jax.device_get((state, train, validation))
    return run.lower(*arguments, np.zeros(num_devices)).compile()


def prepare_run(config, data, optimizer=None, num_devices=1):
    """(start, run): the state before the first epoch, and what goes on from a state.

    `run(state, num_epochs)` returns the state then, and the metrics of each epoch; it is compiled
    once, for the first `num_devices` devices.
    """
    plan = plan_for(config, data, optimizer)
    start = jax.device_get(start_of(plan, data))
    compiled = compiled_epoch(plan, start, data.train, data.validation, num_devices)

    def run(state, num_epochs):
        history = []
        for _ in range(num_epochs):
            arguments = state, data.train, data.validation, np.zeros(num_devices)
            state, metrics = jax.device_get(compiled(*arguments))
            history.append(metrics)
        return state, history

    return start, run


def run_epochs(config, data, optimizer=None, num_epochs=2, num_devices=1):
    """Runs some epochs from the start; returns the state and the metrics."""
    start, run = prepare_run(config, data, optimizer, num_devices)
    return run(start, num_epochs)


def run_resumed(config, data, folder, optimizer=None, num_epochs=2):
    """Runs some epochs, and again from a checkpoint half-way, to the same bits; as run_epochs."""
    start, run = prepare_run(config, data, optimizer)
    half, first = run(start, num_epochs // 2)
    through, second = run(half, num_epochs - num_epochs // 2)
    with Checkpoints(str(folder)) as checkpoints:
        checkpoints.save(jax.device_put(half, devices.replicated()))
    with Checkpoints(str(folder)) as checkpoints:
        saved, _ = checkpoints.restore_latest(
            like=start_of(plan_for(config, data, optimizer), data)
        )
    resumed, again = run(jax.device_get(saved), num_epochs - num_epochs // 2)
    chex.assert_trees_all_equal(resumed, through, strict=True)
    chex.assert_trees_all_equal(again, second, strict=True)
    return through, first + second


def largest_difference(a, b):
    """The largest difference of two trees' entries."""
    return max(
        float(np.max(np.abs(x - y), initial=0.0))
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# ---------------------------------------------------------------------------------------------
# States to save.


def noisy_state(prior="vamp"):
    """A state whose numbers differ from leaf to leaf, on the devices."""
    config, data = small_config(model="vae", prior=prior), small_data()
    state = start_of(plan_for(config, data, optax.adam(0.1)), data)
    leaves, treedef = jax.tree.flatten(state)
    rng = np.random.RandomState(0)
    noisy = [leaf + rng.normal(size=leaf.shape).astype(leaf.dtype) for leaf in leaves]
    return jax.device_put(jax.tree.unflatten(treedef, noisy), devices.replicated())


def at_epoch(state, number):
    """The state as after an epoch, the best of which was the one before."""
    numbers = dict(
        epoch=np.int32(number), best_epoch=np.int32(number - 1), best_loss=np.float32(number)
    )
    return state.replace(**jax.device_put(numbers, devices.replicated()))


# ---------------------------------------------------------------------------------------------
# Models with large weights.


def random_params(network, seed=0):
    """Weights of every tensor large enough to reach the clips; log-variances from -9 to 5."""
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, *network.x_shape)))
    rng = np.random.RandomState(seed)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if "bias" in name:
            spread = 4.0 if "log_var" in name else 1.0
            return rng.uniform(-spread, spread, leaf.shape).astype(F32)
        return (1.5 * rng.standard_normal(leaf.shape) / leaf.shape[0] ** 0.5).astype(F32)

    return jax.tree_util.tree_map_with_path(draw, shapes)["params"]


def draw_noise(network, *leading, rng=None):
    """Standard normal noise [*leading, D] for each layer."""
    rng = rng or np.random.RandomState(0)
    shapes = network.latent_shapes
    return {
        layer: rng.standard_normal((*leading, *shape)).astype(F32)
        for layer, shape in shapes.items()
    }


def make_case(kind, prior, likelihood=likelihoods.BERNOULLI, batch=6, num_components=5):
    """(autoencoder, variables, x, noise of one sample) of a class of network and a prior's name."""
    rng = np.random.RandomState(3)
    network = kind(**{**SMALL, "likelihood": likelihood})
    params, constants = {"model": random_params(network), "prior": {}}, {}
    if prior == "mog":
        params["prior"] = {
            "mean": rng.standard_normal((num_components, LATENT_DIM)).astype(F32),
            "log_var": rng.uniform(-2, 2, (num_components, LATENT_DIM)).astype(F32),
        }
    elif prior != "standard":
        u = rng.uniform(-0.2 if prior == "vamp" else 0.0, 1.2, (num_components, *SHAPE))
        place = params["prior"] if prior == "vamp" else constants
        place["pseudo_inputs"] = u.astype(F32)
    x = rng.randint(0, 2, (batch, *SHAPE)).astype(F32)
    if likelihood.name != "bernoulli":
        x = ((rng.randint(0, 256, x.shape) + 0.5) / 256).astype(F32)
    variables = {"params": params, "batch_stats": {}, "constants": constants}
    autoencoder = Autoencoder(network, PRIORS[prior], likelihood)
    return autoencoder, variables, x, draw_noise(network, batch, rng=rng)


def terms_of(autoencoder, variables, x, noise):
    """The ELBO's terms, from variables to the end."""
    prior = autoencoder.prior_density(variables)
    return autoencoder.terms(variables, prior, autoencoder.encode(variables, x), noise)[0]
