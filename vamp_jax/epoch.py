"""One epoch of training as one dispatch: `lax.scan` over the steps inside `jax.pmap`.

All device code of training is here. The training set lies on the device as uint8; shuffling,
dynamic binarisation and noise happen there, as functions of (seed, epoch, example) alone, so the
trajectory is the same on any number of devices and across an interruption. The state is donated,
and the metrics of the epoch come back once.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vamp_jax import importance_weighted, layers, models, objectives, priors
from vamp_jax.datasets import Dataset
from vamp_jax.objectives import Objective

Array = jax.Array

AXIS = models.DEVICE_AXIS
# Streams of random numbers, all from the config's seed.
INIT, SHUFFLE, NOISE, BINARISE, VALIDATION_NOISE, EVALUATION = range(6)


@flax.struct.dataclass
class TrainState:
    """All that changes while training, arrays only: what a checkpoint holds."""

    epoch: Array  # epochs done
    params: dict[str, Any]  # {'model': ..., 'prior': ...}
    batch_stats: dict[str, Any]  # of batch norm; empty without
    opt_state: optax.OptState
    best_params: dict[str, Any]  # at the lowest validation loss (beta = 1) so far...
    best_batch_stats: dict[str, Any]
    best_epoch: Array  # ...which was this epoch's
    best_loss: Array


def stream(seed: int, *path: int | Array) -> Array:
    """The random key of one stream: the seed, folded with each part of the path."""
    key = jax.random.key(seed)
    for part in path:
        key = jax.random.fold_in(key, part)
    return key


def unit_images(images: Array, dataset: Dataset) -> Array:
    """uint8 pixels -> float32 in [0, 1]: v / max_value, or bin centres (v + 0.5) / 256."""
    images = images.astype(jnp.float32)
    if dataset.likelihood == "bernoulli":
        return images / dataset.max_value
    return (images + 0.5) / 256.0


def init_prior(config: ml_collections.ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """The prior's parameters; pseudo-inputs are [K, H, W, C]."""
    rng = stream(config.seed, INIT, 1)
    num_components, learned = config.num_components, config.learned_weights
    if config.prior == "standard":
        return {}
    if config.prior == "mog":
        return priors.init_mixture_of_gaussians(
            rng, num_components, config.latent_dim, learned_weights=learned
        )
    if config.prior == "vamp" and not config.pseudo_inputs_from_data:
        return priors.init_vamp(
            rng,
            num_components,
            dataset.shape,
            mean=dataset.pseudo_input_mean,
            stddev=dataset.pseudo_input_stddev,
            learned_weights=learned,
        )
    chosen = np.random.RandomState(config.seed).permutation(len(dataset.train))[:num_components]
    examples = unit_images(jnp.asarray(dataset.train[np.sort(chosen)]), dataset)
    stddev = 0.0 if config.prior == "vamp_data" else 0.01
    return priors.init_vamp_from_data(rng, examples, stddev=stddev, learned_weights=learned)


def init_variables(
    config: ml_collections.ConfigDict, dataset: Dataset, objective: Objective
) -> dict[str, Any]:
    """{'params': {'model', 'prior'}, 'batch_stats'} before the first epoch."""
    image = jnp.zeros((1, *dataset.shape), jnp.float32)
    variables = objective.model.init(stream(config.seed, INIT, 0), image)
    model = variables["params"]
    return {
        "params": {
            "model": layers.glorot(model) if config.dense_init == "glorot" else model,
            "prior": init_prior(config, dataset),
        },
        "batch_stats": variables.get("batch_stats", {}),
    }


def init_state(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    objective: Objective,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """The state before the first epoch."""
    variables = init_variables(config, dataset, objective)
    state = TrainState(
        epoch=jnp.zeros([], jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        best_params=variables["params"],
        best_batch_stats=variables["batch_stats"],
        best_epoch=jnp.zeros([], jnp.int32),
        best_loss=jnp.asarray(jnp.inf, jnp.float32),
    )
    return jax.tree.map(jnp.copy, state)  # donating two names of one buffer is an error


def share_out(encode: Callable, num_devices: int) -> Callable:
    """The encoder of K pseudo-inputs, each device encoding K/n of them and gathering the rest.

    Under `pmap` with the axis AXIS. The gradient of the gathering hands every device's share of
    the gradient back to the device that encoded, so a sum over devices of local gradients is right.
    """
    if num_devices == 1:
        return encode

    def encode_share(inputs):
        count = jax.tree.leaves(inputs)[0].shape[0]
        share = -(-count // num_devices)
        # The last devices may have less to do: they take the last rows again, dropped below.
        rows = jnp.minimum(jax.lax.axis_index(AXIS) * share + jnp.arange(share), count - 1)
        encoded = encode(jax.tree.map(lambda u: u[rows], inputs))
        return jax.tree.map(
            lambda part: jax.lax.all_gather(part, AXIS, tiled=True)[:count], encoded
        )

    return encode_share


def train_epoch(
    state: TrainState,
    train: Array,
    validation: Array,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    num_devices: int,
) -> tuple[TrainState, dict[str, Array]]:
    """All steps of one epoch and the validation after it, on one device of `num_devices`.

    Args:
      state: replicated.
      train, validation: all images of the split, uint8 [N, H, W, C], replicated.
      objective, optimizer, config, dataset, num_devices: static.
    Returns:
      The new state and the epoch's metrics: means over examples, in nats.
    """
    epoch = state.epoch + 1
    beta = jnp.minimum(1.0, epoch / max(1, config.warmup_epochs)).astype(jnp.float32)
    order = jax.random.permutation(stream(config.seed, SHUFFLE, epoch), len(train))
    noise_key = stream(config.seed, NOISE, epoch)
    binarise_key = stream(config.seed, BINARISE, epoch)
    size, count = config.batch_size, len(train)
    rows = -(-size // num_devices)  # of a batch, on each device; the last ones may be padding

    def over_devices(tree):
        """Sums over the devices; on a lone one XLA would copy every tensor."""
        return tree if num_devices == 1 else jax.lax.psum(tree, AXIS)

    def batch(step):
        """This device's rows of a batch: images, weights (0: padding), noise."""
        position = jax.lax.axis_index(AXIS) * rows + jnp.arange(rows)
        place = step * size + position
        weight = ((position < size) & (place < count)).astype(jnp.float32)
        index = order[jnp.minimum(place, count - 1)]
        x = unit_images(train[index], dataset)
        if dataset.dynamic:
            x = _binarise(binarise_key, index, x)
        return x, weight, _noise(noise_key, index)

    def _noise(key, index):
        """[M, rows, L, D]; with M = 1 the stream that a single draw has."""
        sizes = (objective.model.num_layers, objective.model.latent_dim)
        if config.num_importance_samples == 1:
            return objectives.example_noise(key, index, *sizes)[None]
        return importance_weighted.sample_noise(key, index, config.num_importance_samples, *sizes)

    def bound(variables, prior, encoded, noise, beta, **kwargs):
        return importance_weighted.bound(
            objective,
            variables,
            prior,
            encoded,
            noise,
            gradient=config.importance_gradient,
            beta=beta,
            **kwargs,
        )

    def loss(params, batch_stats, x, weight, noise, true_count):
        variables = {"params": params, "batch_stats": batch_stats}
        prior = _shared_components(objective, variables, num_devices)
        encoded = objective.encode(variables, x)
        kwargs = {"train": True, "row_weight": weight} if batch_stats else {}
        value, terms, batch_stats = bound(variables, prior, encoded, noise, beta, **kwargs)
        sums = {name: jnp.sum(weight * part) for name, part in _named(value, terms).items()}
        # The mean over the whole batch, this device's part of it: the parts add up.
        return sums["loss"] / true_count, (sums, batch_stats)

    def step(carry, index):
        params, opt_state, batch_stats = carry
        true_count = jnp.minimum(size, count - index * size)
        gradient = jax.grad(loss, has_aux=True)
        grads, (sums, batch_stats) = gradient(params, batch_stats, *batch(index), true_count)
        updates, opt_state = optimizer.update(over_devices(grads), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state, batch_stats), sums

    carry = (state.params, state.opt_state, state.batch_stats)
    (params, opt_state, batch_stats), sums = jax.lax.scan(
        step, carry, jnp.arange(-(-count // size))
    )
    train_sums = over_devices(jax.tree.map(jnp.sum, sums))

    variables = {"params": params, "batch_stats": batch_stats}
    prior = _shared_components(objective, variables, num_devices)
    validation_noise_key = stream(config.seed, VALIDATION_NOISE, epoch)
    chunk = max(1, config.eval_batch_size // config.num_importance_samples)
    chunk = min(chunk, -(-len(validation) // num_devices))

    def validate(total, step):
        place = (step * num_devices + jax.lax.axis_index(AXIS)) * chunk + jnp.arange(chunk)
        weight = (place < len(validation)).astype(jnp.float32)
        index = jnp.minimum(place, len(validation) - 1)
        encoded = objective.encode(variables, unit_images(validation[index], dataset))
        noise = _noise(validation_noise_key, index)
        value, terms, _ = bound(variables, prior, encoded, noise, 1.0)
        sums = {name: jnp.sum(weight * part) for name, part in _named(value, terms).items()}
        return jax.tree.map(jnp.add, total, sums), None

    steps = -(-len(validation) // (chunk * num_devices))
    zeros = {name: jnp.zeros([]) for name in train_sums}
    validation_sums, _ = jax.lax.scan(validate, zeros, jnp.arange(steps))
    validation_sums = over_devices(validation_sums)

    metrics = {"epoch": epoch, "beta": beta}
    metrics |= {f"train_{name}": value / count for name, value in train_sums.items()}
    metrics |= {f"val_{name}": value / len(validation) for name, value in validation_sums.items()}

    better = metrics["val_loss"] < state.best_loss
    choose = lambda new, old: jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)  # noqa: E731
    new_state = TrainState(
        epoch=epoch,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        best_params=choose(params, state.best_params),
        best_batch_stats=choose(batch_stats, state.best_batch_stats),
        best_epoch=choose(epoch, state.best_epoch),
        best_loss=choose(metrics["val_loss"], state.best_loss),
    )
    return new_state, metrics | {"best_epoch": new_state.best_epoch}


def _binarise(key: Array, index: Array, means: Array) -> Array:
    """Bernoulli draws with these means, a function of (key, example) for each example."""

    def one(i, mean):
        return jax.random.uniform(jax.random.fold_in(key, i), mean.shape) < mean

    return jax.vmap(one)(index, means).astype(jnp.float32)


def _shared_components(objective: Objective, variables: dict[str, Any], num_devices: int):
    encode = share_out(lambda u: objective.apply(variables, u, method="encode"), num_devices)
    return objective.components(variables, encode)


def _named(bound: Array, terms: objectives.Terms) -> dict[str, Array]:
    """The per-example terms under the names of metrics.jsonl; -loss is the ELBO or IWAE bound."""
    named = {
        "loss": -bound,
        "reconstruction": terms.reconstruction,
        "kl": sum(terms.kl.values()),
    }
    if len(terms.kl) > 1:
        named |= {f"kl_{layer}": value for layer, value in terms.kl.items()}
    return named


def replicated() -> NamedSharding:
    """The sharding of a value that every device of this process holds whole."""
    return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec())


def make_epoch(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    config: ml_collections.ConfigDict,
    dataset: Dataset,
) -> Callable[[TrainState, Array, Array], tuple[TrainState, dict[str, Array]]]:
    """`train_epoch` over all devices: (state, train, validation) -> (state, metrics).

    The arguments are to lie on the devices as `replicated()`; the state is donated.
    """
    static = dict(
        objective=objective,
        optimizer=optimizer,
        config=config,
        dataset=dataset,
        num_devices=jax.device_count(),
    )

    def on_device(state, train, validation, _):
        return train_epoch(state, train, validation, **static)

    mapped = jax.pmap(
        on_device,
        axis_name=AXIS,
        in_axes=(None, None, None, 0),
        out_axes=(None, None),
        donate_argnums=(0,),
    )
    # pmap wants one argument with the devices' axis.
    local = np.zeros(jax.local_device_count(), np.int32)
    return lambda state, train, validation: mapped(state, train, validation, local)
