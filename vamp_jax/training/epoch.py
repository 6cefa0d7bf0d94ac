"""One epoch of training as one dispatch: `lax.scan` over the steps, on all devices.

The training set lies on the device as it is stored; shuffling, dynamic binarisation and noise
happen there, as functions of (seed, epoch, example) alone, so the trajectory is the same on any
number of devices and across an interruption. The state is donated, and the metrics of the epoch
come back once. placement.py makes the same epoch of a training set that lies elsewhere, from the
same parts: `begin`, `train_batch`, `train_step`, `end`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from vamp_jax import lengths
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets.inputs import Inputs
from vamp_jax.objectives import Objective
from vamp_jax.parallel import AXIS, over_devices
from vamp_jax.random_streams import (
    BATCHES,
    BINARISE,
    NOISE,
    PHASE,
    SHUFFLE,
    TURNS,
    VALIDATION_NOISE,
    latent_noise,
    sample_noise,
    stream,
)
from vamp_jax.sequences import num_examples, rows_of
from vamp_jax.training import bounds, collected, devices, exemplars, growing, phases, turns
from vamp_jax.training.state import TrainState, as_pseudo_inputs

Array = jax.Array
Sums = dict[str, Array]


class Plan(NamedTuple):
    """What is done in an epoch: choices as values, static under `jit`."""

    autoencoder: Autoencoder
    objective: Objective
    optimizer: optax.GradientTransformation
    inputs: Inputs
    batch_size: int  # over all devices
    eval_batch_size: int  # validation examples at a time on each device
    warmup_epochs: int
    seed: int
    components_per_step: int = 0  # pseudo-inputs that a step encodes, in turn; 0: all of them
    phase: phases.Phase | None = None  # of the pseudo-inputs alone, after the steps
    growth: growing.Growth | None = None  # of the components, after each epoch
    cuts: tuple[int, ...] = ()  # lengths that batches of sequences are cut to (lengths.py)


class Batch(NamedTuple):
    """One device's rows of a batch."""

    x: Any  # [B, ...]
    index: Array  # of the examples, [B]
    weight: Array  # 1, or 0 for padding, [B]
    filled: Array  # of `Places`, [B]
    noise: dict[str, Array]  # [M, B, *shape] for each layer


def make_epoch(
    plan: Plan, on: Sequence[jax.Device] | None = None
) -> Callable[[TrainState, Any, Any], tuple[TrainState, Sums]]:
    """Returns `train_epoch` over all devices: (state, train, validation) -> (state, metrics).

    The arguments are to lie on the devices as `devices.replicated()`; the state is donated.

    Args:
      on: the devices of a topology, to compile for it ahead of time; None: those that there are.
    """
    count = jax.device_count() if on is None else len(on)
    run = functools.partial(train_epoch, plan=plan, num_devices=count)
    return over_devices(run, (None, None, None), out_axes=None, donate=(0,), on=on)


def train_epoch(
    state: TrainState, train: Any, validation: Any, *, plan: Plan, num_devices: int
) -> tuple[TrainState, Sums]:
    """All steps of one epoch and the validation after it, on one device of `num_devices`.

    Args:
      state: replicated.
      train, validation: all examples of the split as stored, [N, ...], replicated.
      plan, num_devices: static.
    Returns:
      The new state and the epoch's metrics: means over examples, in nats.
    """
    of_class = lengths.classes(train, plan.cuts)
    settings, order = begin(
        state.epoch, state.constants, plan, num_examples(train), num_devices, of_class
    )

    def batch_at(index):
        return train_batch(settings, order, index, lambda rows: rows_of(train, rows))

    def step(carry, index):
        return train_step(settings, carry, batch_at(index), index)

    carry, sums = jax.lax.scan(step, first_carry(settings, state), jnp.arange(settings.num_steps))
    state = with_carry(state, carry)
    if plan.autoencoder.collects_statistics:
        state = state.replace(batch_stats=collected.over_epoch(settings, state.variables, batch_at))
    state, phase_metrics = _phase(settings, state, train)
    state, metrics = end(settings, state, sums, validation)
    return state, metrics | phase_metrics


class Settings(NamedTuple):
    """What is the same in all steps of an epoch."""

    plan: Plan
    epoch: Array  # its number
    beta: Array
    keys: tuple[Array, Array]  # of binarisation and of noise
    constants: dict[str, Any]
    count: int  # training examples
    num_devices: int

    @property
    def num_steps(self) -> int:
        """Steps of an epoch; the last batch may be smaller."""
        return -(-self.count // self.plan.batch_size)


def begin(
    epochs_done: Array,
    constants: dict[str, Any],
    plan: Plan,
    count: int,
    num_devices: int,
    of_class: Array | None = None,
) -> tuple[Settings, Array]:
    """What is the same in all steps of the next epoch; and the order of the examples, [count].

    Args:
      of_class: `lengths.classes` of the training set.
    """
    epoch = epochs_done + 1
    beta = jnp.minimum(1.0, epoch / max(1, plan.warmup_epochs)).astype(jnp.float32)
    order = jax.random.permutation(stream(plan.seed, SHUFFLE, epoch), count)
    if of_class is not None:
        order = lengths.alike(order, of_class, plan.batch_size, stream(plan.seed, BATCHES, epoch))
    keys = stream(plan.seed, BINARISE, epoch), stream(plan.seed, NOISE, epoch)
    return Settings(plan, epoch, beta, keys, constants, count, num_devices), order


def first_carry(settings: Settings, state: TrainState) -> tuple:
    """What goes from step to step; last what is kept of components, see `_first_cache`."""
    return state.params, state.opt_state, state.batch_stats, _first_cache(settings, state)


def with_carry(state: TrainState, carry: tuple) -> TrainState:
    """The state after the steps of an epoch."""
    params, opt_state, batch_stats, _ = carry
    return state.replace(params=params, opt_state=opt_state, batch_stats=batch_stats)


def end(
    settings: Settings, state: TrainState, sums: Sums, validation: Any
) -> tuple[TrainState, Sums]:
    """Validates after an epoch's steps, whose sums are [num_steps] each; see `train_epoch`."""
    sums, num_devices = dict(sums), settings.num_devices
    drift = sums.pop("drift", None)
    state, growth = state.replace(epoch=settings.epoch), settings.plan.growth
    if growth is not None:
        state = _with_prior(state, growing.tied(growth, state.params["prior"], state.epoch))
    train_sums = devices.sum_over(jax.tree.map(jnp.sum, sums), num_devices)
    validation_sums = _validate(settings, state.variables, validation)
    negative_elbo = validation_sums.pop("negative_elbo") / num_examples(validation)

    metrics = {"epoch": settings.epoch, "beta": settings.beta}
    if drift is not None:
        metrics["component_drift"] = jnp.mean(drift)
    metrics |= {f"train_{name}": value / settings.count for name, value in train_sums.items()}
    metrics |= {
        f"val_{name}": value / num_examples(validation) for name, value in validation_sums.items()
    }
    state = _keep_best(state, negative_elbo)
    if growth is not None:
        metrics["distinct_components"] = growing.num_distinct(growth, state.epoch)
        args = settings.plan.autoencoder, state.variables, state.epoch
        state = _with_prior(state, growing.parted(growth, *args))
    return state, metrics | {"best_epoch": state.best_epoch}


class Places(NamedTuple):
    """A device's rows in a batch, [rows] each."""

    index: Array  # of their examples; the last batch is filled up with the epoch's first ones
    weight: Array  # 1, or 0 for those that fill up
    filled: Array  # 1, or 0 where there are more rows on all devices than in a batch


def places(settings: Settings, order: Array, step: Array, device: Array) -> Places:
    """Tells which examples a device's rows in a batch are."""
    size, count = settings.plan.batch_size, settings.count
    rows = -(-size // settings.num_devices)  # the last ones may be too many
    position = device * rows + jnp.arange(rows)
    place = step * size + position
    filled = position < size
    weight = (filled & (place < count)).astype(jnp.float32)
    return Places(order[place % count], weight, filled.astype(jnp.float32))


def train_batch(
    settings: Settings, order: Array, step: Array, fetch: Callable[[Array], Any]
) -> Batch:
    """This device's rows of a batch; `fetch` gives examples as stored, by their numbers [rows]."""
    binarise_key, noise_key = settings.keys
    index, weight, filled = places(settings, order, step, jax.lax.axis_index(AXIS))
    x = settings.plan.inputs.drawn(fetch(index), binarise_key, index)
    return Batch(x, index, weight, filled, _noise(settings.plan, noise_key, index))


def _noise(plan: Plan, key: Array, index: Array) -> dict[str, Array]:
    """Draws noise [M, B, *shape] for each layer; M = 1 has the stream of a single draw."""
    shapes, num_samples = plan.autoencoder.network.latent_shapes, plan.objective.num_samples
    if num_samples == 1:
        return jax.tree.map(lambda noise: noise[None], latent_noise(key, index, shapes))
    return sample_noise(key, index, num_samples, shapes)


def _encoder(settings: Settings, variables: Variables) -> Callable:
    """The encoder of pseudo-inputs, its work shared among the devices."""
    encode = functools.partial(settings.plan.autoencoder.encode_components, variables)
    return devices.share_out(encode, settings.num_devices)


def _first_cache(settings: Settings, state: TrainState) -> Any:
    """What steps keep of components as last encoded; None where each encodes all that it needs.

    The turns of pseudo-inputs, or the means of all training examples [N, D].
    """
    plan, variables = settings.plan, state.variables
    if plan.autoencoder.prior.num_neighbours:
        encode = _encoder(settings, variables)
        return exemplars.encoded_means(plan.autoencoder, variables, encode)
    if not plan.components_per_step:
        return None
    rng, encode = stream(plan.seed, TURNS, settings.epoch), _encoder(settings, variables)
    return turns.start(plan.autoencoder, variables, rng, encode)


def train_step(settings: Settings, carry, batch: Batch, index: Array):
    """One step of the optimiser: the new carry, and sums of metrics."""
    plan, num_devices = settings.plan, settings.num_devices
    params, opt_state, batch_stats, cache = carry
    true_count = jnp.minimum(plan.batch_size, settings.count - index * plan.batch_size)

    def loss(params, batch):
        variables = {
            "params": params,
            "batch_stats": batch_stats,
            "constants": settings.constants,
        }
        kwargs = {"train": True, "row_weight": batch.weight} if batch_stats else {}
        if plan.autoencoder.collects_statistics:
            # Of this batch, for all that follows; gradients go through them. A smaller last batch
            # is filled up: the statistics of few rows are too far off for pseudo-inputs.
            args = variables, batch.x, batch.noise, batch.filled
            encoded, found = plan.autoencoder.collected(*args)
            variables, kwargs = variables | {"batch_stats": found}, {}
        else:
            encoded = plan.autoencoder.encode(variables, batch.x)
        prior, new_cache, drift = _train_prior(settings, variables, cache, batch, index)
        sums, new_stats = bounds.sums(
            plan, variables, prior, encoded, batch, settings.beta, **kwargs
        )
        sums.pop("negative_elbo")
        # The mean over the whole batch, this device's part of it: the parts add up.
        return sums["loss"] / true_count, (sums | drift, new_stats, new_cache)

    def gradients(x):
        return jax.grad(loss, has_aux=True)(params, batch._replace(x=x))

    grads, (sums, batch_stats, cache) = lengths.cut(gradients, batch.x, plan.cuts, num_devices)
    updates, opt_state = plan.optimizer.update(
        devices.sum_over(grads, num_devices), opt_state, params
    )
    return (optax.apply_updates(params, updates), opt_state, batch_stats, cache), sums


def _train_prior(settings: Settings, variables: Variables, cache, batch: Batch, index: Array):
    """Builds p(z) of a step; also returns the cache after it, and the drift of turns."""
    plan, encode = settings.plan, _encoder(settings, variables)
    autoencoder = plan.autoencoder
    if autoencoder.prior.of_all_examples:
        query = autoencoder.encode(variables, batch.x).top.base.mean
        args = cache, query, batch.index, encode
        return exemplars.density(autoencoder, variables, *args), cache, {}
    if cache is None:
        return autoencoder.prior_density(variables, encode), None, {}
    rows = turns.rows_of(cache, index, plan.components_per_step)
    prior, turn, drift = turns.density(autoencoder, variables, cache, rows, encode)
    return prior, turn, {"drift": drift}


def _phase(settings: Settings, state: TrainState, train: Any) -> tuple[TrainState, Sums]:
    """The pseudo-inputs' own phase, if the plan has one: the new state, and metrics."""
    plan, num_devices, count = settings.plan, settings.num_devices, settings.count
    if plan.phase is None:
        return state, {}
    shuffle, *keys = (stream(plan.seed, PHASE, settings.epoch, i) for i in range(3))
    order = jax.random.permutation(shuffle, count)
    own = settings._replace(keys=tuple(keys))
    share = phases.Share(
        autoencoder=plan.autoencoder,
        encode=functools.partial(_encoder, settings),
        sum_over=functools.partial(devices.sum_over, num_devices=num_devices),
        batch_at=lambda step: train_batch(own, order, step, lambda rows: rows_of(train, rows)),
        num_steps=-(-count // plan.batch_size),
        count=count,
    )
    num_components = num_examples(state.params["prior"]["pseudo_inputs"])
    rows = order[jnp.arange(num_components) % count]
    fresh = as_pseudo_inputs(plan.autoencoder, plan.inputs, rows_of(train, rows))
    prior, metrics = phases.run(plan.phase, share, state.variables, fresh)
    return _with_prior(state, prior), metrics


def _with_prior(state: TrainState, prior: dict[str, Any]) -> TrainState:
    return state.replace(params=state.params | {"prior": prior})


def _validate(settings: Settings, variables: Variables, validation: Any) -> Sums:
    """The terms with beta = 1, summed over the validation split."""
    plan, num_devices, count = settings.plan, settings.num_devices, num_examples(validation)
    key = stream(plan.seed, VALIDATION_NOISE, settings.epoch)
    prior = plan.autoencoder.prior_density(variables, _encoder(settings, variables))
    chunk = max(1, plan.eval_batch_size // plan.objective.num_samples)
    chunk = min(chunk, -(-count // num_devices))
    by_length = jnp.argsort(validation["length"]) if plan.cuts else None

    def sums_of(step):
        place = (step * num_devices + jax.lax.axis_index(AXIS)) * chunk + jnp.arange(chunk)
        weight = (place < count).astype(jnp.float32)
        index = jnp.minimum(place, count - 1)
        index = index if by_length is None else by_length[index]
        x = plan.inputs.of(rows_of(validation, index))
        batch = Batch(x, index, weight, weight, _noise(plan, key, index))

        def sums(x):
            encoded = plan.autoencoder.encode(variables, x)
            return bounds.sums(plan, variables, prior, encoded, batch, 1.0)[0]

        return lengths.cut(sums, x, plan.cuts)

    def add(total, step):
        return jax.tree.map(jnp.add, total, sums_of(step)), None

    steps = -(-count // (chunk * num_devices))
    zeros = jax.tree.map(lambda part: jnp.zeros(part.shape), jax.eval_shape(sums_of, 0))
    sums, _ = jax.lax.scan(add, zeros, jnp.arange(steps))
    return devices.sum_over(sums, num_devices)


def _keep_best(state: TrainState, negative_elbo: Array) -> TrainState:
    """Keeps the parameters as the best ones if the validation ELBO is a new best."""
    better = negative_elbo < state.best_loss

    def choose(new, old):
        return jax.tree.map(lambda a, b: jnp.where(better, a, b), new, old)

    return state.replace(
        best_params=choose(state.params, state.best_params),
        best_batch_stats=choose(state.batch_stats, state.best_batch_stats),
        best_epoch=choose(state.epoch, state.best_epoch),
        best_loss=choose(negative_elbo, state.best_loss),
    )
