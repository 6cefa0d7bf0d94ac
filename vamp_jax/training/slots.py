"""Where runs are trained: one on all devices, or several at once, each in a slot of its own.

A slot holds a run's state. `OneRun` has one, on all devices together; `RunADevice` has one on each
device, and an epoch of all of them is one dispatch of one program. In it the numbers in which runs
may differ (`numbers_of`) are arguments, so it is compiled once, whichever runs come; a slot whose
run is over is passed by. A run's bits are those of the run alone on one device.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from vamp_jax import choices, parallel
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError, first_line
from vamp_jax.sequences import trimmed
from vamp_jax.training import devices, plans
from vamp_jax.training.epoch import Plan, Sums, train_epoch
from vamp_jax.training.state import TrainState

Config = ml_collections.ConfigDict
UNKNOWN = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)

# Of the fields that runs of one program may differ in, those that the program uses. (Not
# warmup_epochs: it divides, and a compiler multiplies by the inverse of what it knows.)
NUMBERS = {"seed": np.uint32, "learning_rate": np.float32}


def numbers_of(config: Config) -> dict[str, np.ndarray]:
    """Returns the numbers of a run that the program of several takes as arguments."""
    return {name: np.asarray(config[name], dtype) for name, dtype in NUMBERS.items()}


def check(config: Config, dataset: Dataset) -> None:
    """Raises a UsageError where a plan needs to know its numbers before the program is compiled."""

    def made(numbers):
        _plan_with(config, numbers, dataset)

    try:
        jax.eval_shape(made, numbers_of(config))
    except UNKNOWN as error:
        raise UsageError(
            f"A part of this config asks for one of {', '.join(NUMBERS)} when it is made "
            f"({first_line(error)}), which runs at once do not have in common: give each run a "
            "command of its own."
        ) from None


def _plan_with(config: Config, numbers: dict[str, Any], dataset: Dataset) -> Plan:
    """The plan of a run whose numbers may be known only to the program."""
    return plans.make(Config(config.to_dict() | numbers), dataset)


class OneRun:
    """One run on all devices; the only slot is number 0."""

    def __init__(self, config: Config, plan: Plan, dataset: Dataset, state: TrainState):
        splits = trimmed(dataset.train), trimmed(dataset.validation)
        self._state = jax.device_put(state, devices.replicated())
        self._epoch = choices.placement(config)(plan, *splits)

    def run(self, active: Sequence[bool]) -> list[Sums]:
        """Trains an epoch; returns its metrics."""
        self._state, metrics = self._epoch(self._state)
        return [jax.device_get(metrics)]

    def state(self, slot: int) -> TrainState:
        """Returns the state there, until the next epoch."""
        return self._state


class RunADevice:
    """Several runs, each on a device of its own."""

    def __init__(
        self,
        configs: Sequence[Config],
        dataset: Dataset,
        states: Sequence[TrainState],
        on: Sequence[jax.Device] | None = None,
    ):
        """Puts a run in each slot.

        Args:
          configs: of the runs; they differ in what `several_runs.py` lets them.
          dataset: of all.
          states: of the runs, as many.
          on: the devices; None: the first of this process.
        """
        self._on = list(on or jax.local_devices()[: len(states)])
        splits = trimmed(dataset.train), trimmed(dataset.validation)
        self._splits = jax.device_put(splits, parallel.of_all_runs(self._on))
        self._epoch = make_epoch(configs[0], dataset, self._on)
        self._rows = [
            self._on_device(slot, (state, numbers_of(config)))
            for slot, (state, config) in enumerate(zip(states, configs, strict=True))
        ]
        self._assemble()

    def _on_device(self, slot: int, tree: Any) -> Any:
        return jax.tree.map(
            lambda leaf: jax.device_put(jnp.asarray(leaf)[None], self._on[slot]), tree
        )

    def _assemble(self) -> None:
        """Makes arrays with a row for each run out of those that lie on the devices."""
        sharding = parallel.of_runs(self._on)

        def joined(*parts):
            shape = (len(parts), *parts[0].shape[1:])
            return jax.make_array_from_single_device_arrays(shape, sharding, list(parts))

        self._state, self._numbers = jax.tree.map(joined, *self._rows)
        self._rows = []  # the state's buffers are donated

    def put(self, slot: int, config: Config, state: TrainState) -> None:
        """Puts another run into a slot."""
        self._rows = [
            jax.tree.map(lambda leaf, i=i: _part(leaf, i), (self._state, self._numbers))
            for i in range(len(self._on))
        ]
        self._rows[slot] = self._on_device(slot, (state, numbers_of(config)))
        self._assemble()

    def run(self, active: Sequence[bool]) -> list[Sums]:
        """Trains an epoch of the runs that are active; returns the metrics of each."""
        flags = jax.device_put(np.asarray(active), parallel.of_runs(self._on))
        self._state, metrics = self._epoch(self._state, self._numbers, flags, *self._splits)
        metrics = jax.device_get(metrics)
        return [jax.tree.map(lambda leaf, i=i: leaf[i], metrics) for i in range(len(active))]

    def state(self, slot: int) -> TrainState:
        """Returns the state there, until the next epoch."""
        return jax.tree.map(lambda leaf: _part(leaf, slot)[0], self._state)


def _part(array: jax.Array, slot: int) -> jax.Array:
    """The row of a slot, [1, ...], on its device."""
    (part,) = (s.data for s in array.addressable_shards if (s.index[0].start or 0) == slot)
    return part


def make_epoch(config: Config, dataset: Dataset, on: Sequence[jax.Device]):
    """Returns an epoch of a run on each of the devices: (state, numbers, active, train, validation)
    -> (state, metrics), all but the splits with a row for each run; the state is donated."""

    def one(state, numbers, active, train, validation):
        plan = _plan_with(config, numbers, dataset)

        def trained(state):
            return train_epoch(state, train, validation, plan=plan, num_devices=1)

        shapes = jax.eval_shape(trained, state)[1]

        def passed_by(state):
            return state, jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)

        # Of a lone slot, too: it keeps the compiler from joining the epoch with what is around it,
        # which would change bits.
        return jax.lax.cond(active, trained, passed_by, state)

    return parallel.a_run_a_device(one, 3, 2, on)
