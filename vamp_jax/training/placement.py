"""Where the training set lies: on every device, in parts, or beside them; the same epoch in each.

`replicated`: every device holds all examples (epoch.py). `sharded`: each of n devices holds N/n of
them, and in every step each sends the others what they are to see. `streamed`: the examples stay on
the host, in memory or in a file that is mapped (datasets/mapped.py), and go to the devices a chunk
of steps at a time, the next chunk being fetched while one runs. The validation set lies on every
device. The order is the same function of (seed, epoch) in all three, so the trajectory is, too: on
one device to the bit, on several but for the rounding of sums.

Each function here takes a plan and the two splits as stored, and returns an epoch:
state -> (state, metrics), which donates the state.
"""

import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vamp_jax import lengths
from vamp_jax.datasets import mapped
from vamp_jax.parallel import AXIS, over_devices
from vamp_jax.sequences import num_examples
from vamp_jax.training import devices
from vamp_jax.training import epoch as epochs
from vamp_jax.training.epoch import Plan, Settings, Sums
from vamp_jax.training.state import TrainState

Array = jax.Array
Epoch = Callable[[TrainState], tuple[TrainState, Sums]]

CHUNK_BYTES = 8 << 20  # of examples that go to a device at a time


def replicated(plan: Plan, train: Any, validation: Any) -> Epoch:
    """Every device holds the training set."""
    splits = jax.device_put((train, validation), devices.replicated())
    run = epochs.make_epoch(plan)
    return lambda state: run(state, *splits)


# Parts of it on each device.


def sharded(plan: Plan, train: Any, validation: Any) -> Epoch:
    """Each device holds its part of the training set."""
    num_devices, count = jax.device_count(), num_examples(train)
    if num_devices == 1:
        return replicated(plan, train, validation)
    of_all = plan, count, num_devices, lengths.classes(train, plan.cuts)
    share = -(-count // num_devices)
    rows = _local_devices()[:, None] * share + np.arange(share)
    rows = np.minimum(rows, count - 1)  # the last part may be smaller
    parts = jax.device_put(jax.tree.map(lambda leaf: leaf[rows], train), devices.split())
    validation = jax.device_put(validation, devices.replicated())

    def epoch(state, part, validation):
        settings, order = epochs.begin(state.epoch, state.constants, *of_all)

        def step(carry, index):
            fetch = functools.partial(_from_parts, settings, order, index, part)
            batch = epochs.train_batch(settings, order, index, fetch)
            return epochs.train_step(settings, carry, batch, index)

        carry = epochs.first_carry(settings, state)
        carry, sums = jax.lax.scan(step, carry, jnp.arange(settings.num_steps))
        return epochs.end(settings, epochs.with_carry(state, carry), sums, validation)

    run = over_devices(epoch, (None, 0, None), out_axes=None, donate=(0,))
    return lambda state: run(state, parts, validation)


def _from_parts(settings: Settings, order: Array, step: Array, part: Any, mine: Array) -> Any:
    """The examples `mine` [rows], from the devices that hold them; all devices call it together."""
    numbers = jnp.arange(settings.num_devices)
    wanted = jax.vmap(lambda device: epochs.places(settings, order, step, device).index)(numbers)
    share = jax.tree.leaves(part)[0].shape[0]
    # What is not here is sent as some other row, which the receiver does not look at.
    here = jnp.clip(wanted - jax.lax.axis_index(AXIS) * share, 0, share - 1)

    def exchange(leaf):
        received = jax.lax.all_to_all(leaf[here], AXIS, split_axis=0, concat_axis=0)
        return received[mine // share, jnp.arange(len(mine))]

    return jax.tree.map(exchange, part)


# None of it.


def streamed(plan: Plan, train: Any, validation: Any) -> Epoch:
    """The training set stays on the host and goes to the devices in chunks of steps."""
    num_devices, count = jax.device_count(), num_examples(train)
    num_steps = -(-count // plan.batch_size)
    rows = -(-plan.batch_size // num_devices)
    bytes_per_step = sum(rows * leaf.nbytes // count for leaf in jax.tree.leaves(train))
    chunk_steps = min(num_steps, max(1, CHUNK_BYTES // max(1, bytes_per_step)))
    validation = jax.device_put(validation, devices.replicated())
    of_all = plan, count, num_devices, lengths.classes(train, plan.cuts)
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), train)
    begin = over_devices(
        functools.partial(_begin, of_all, like), in_axes=(None,), out_axes=(None, None, 0)
    )
    run = over_devices(
        functools.partial(_steps, of_all),
        in_axes=(None, 0, *[None] * 5, 0),
        out_axes=(None, 0),
        donate=(0, 1),
    )
    end = over_devices(
        functools.partial(_end, of_all), in_axes=(None, 0, None), out_axes=None, donate=(0,)
    )
    files = mapped.as_they_are(train)

    def fetch(order, steps):
        mapped.check_unchanged(files)
        return _fetch(train, order, plan.batch_size, rows, steps)

    def epoch(state):
        order, cache, sums = begin(state)
        carry = state.params, state.opt_state, state.batch_stats, cache
        of_steps = functools.partial(fetch, np.asarray(order))
        for first, chunk in _ahead(of_steps, num_steps, chunk_steps):
            stop = min(first + chunk_steps, num_steps)
            same = state.constants, state.epoch, order, np.int32(first), np.int32(stop)
            # Waits for the chunk before: no more than two are on the devices.
            carry, sums = run(carry, jax.block_until_ready(sums), *same, chunk)
        return end(epochs.with_carry(state, carry), sums, validation)

    return epoch


def _begin(of_all: tuple, like: Any, state: TrainState):
    """The order of an epoch, what it keeps of components, zeros for the sums of its steps."""
    settings, order = epochs.begin(state.epoch, state.constants, *of_all)
    carry = epochs.first_carry(settings, state)

    def fetch(index):
        return jax.tree.map(lambda one: jnp.zeros((*index.shape, *one.shape), one.dtype), like)

    def step():
        batch = epochs.train_batch(settings, order, 0, fetch)
        return epochs.train_step(settings, carry, batch, 0)[1]

    shapes = jax.eval_shape(step)
    sums = jax.tree.map(lambda one: jnp.zeros((settings.num_steps, *one.shape), one.dtype), shapes)
    return order, carry[-1], sums


def _steps(of_all: tuple, carry, sums, constants, epochs_done, order, first, stop, chunk):
    """The steps of a chunk on one device, whose rows they are: [steps, rows, ...]."""
    settings, _ = epochs.begin(epochs_done, constants, *of_all)

    def step(index, carry_and_sums):
        carry, sums = carry_and_sums

        def fetch(_):
            return jax.tree.map(lambda leaf: leaf[index - first], chunk)

        batch = epochs.train_batch(settings, order, index, fetch)
        carry, new = epochs.train_step(settings, carry, batch, index)
        return carry, jax.tree.map(lambda all, one: all.at[index].set(one), sums, new)

    return jax.lax.fori_loop(first, stop, step, (carry, sums))


def _end(of_all: tuple, state: TrainState, sums: Sums, validation: Any):
    settings, _ = epochs.begin(state.epoch, state.constants, *of_all)
    return epochs.end(settings, state, sums, validation)


def _fetch(
    train: Any, order: np.ndarray, batch_size: int, rows: int, steps: np.ndarray
) -> dict | Array:
    """The examples of some steps, on the devices of this process: [devices, steps, rows, ...]."""
    position = _local_devices()[:, None, None] * rows + np.arange(rows)
    place = steps[:, None] * batch_size + position  # as `epochs.places` has it
    index = order[place % len(order)]
    chunk = jax.tree.map(lambda leaf: mapped.rows(leaf, index), train)
    return jax.block_until_ready(jax.device_put(chunk, devices.split()))


def _ahead(
    fetch: Callable[[np.ndarray], Any], num_steps: int, chunk_steps: int
) -> Iterator[tuple[int, Any]]:
    """Yields the first step of each chunk and its examples, fetching the next one meanwhile."""
    firsts = range(0, num_steps, chunk_steps)
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(fetch, firsts[0] + np.arange(chunk_steps))
        for first in firsts:
            chunk = coming.result()
            if first + chunk_steps < num_steps:
                coming = pool.submit(fetch, first + chunk_steps + np.arange(chunk_steps))
            yield first, chunk


def _local_devices() -> np.ndarray:
    """The numbers of this process's devices among those of all."""
    count = jax.local_device_count()
    return jax.process_index() * count + np.arange(count)
