"""Where runs are trained: one on all devices, or several at once, each on a device of its own.

Among others a run has the program that it has alone on one device, so it has the same bits. All
that are at work are sent their epochs before the first is waited for.
"""

import jax
import ml_collections

from vamp_jax import choices
from vamp_jax.datasets import Dataset
from vamp_jax.parallel import wait_for
from vamp_jax.sequences import trimmed
from vamp_jax.training import devices
from vamp_jax.training.epoch import Plan, Sums, make_epoch
from vamp_jax.training.state import TrainState


class Slot:
    """Holds the state of a run on its devices."""

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        plan: Plan,
        dataset: Dataset,
        state: TrainState,
        device: jax.Device | None = None,
    ):
        """Puts a run there.

        Args:
          config, plan: of the run.
          dataset: what it is trained on.
          state: where it goes on from.
          device: that of the run alone; None: all devices are.
        """
        splits = trimmed(dataset.train), trimmed(dataset.validation)
        if device is None:
            self.state = jax.device_put(state, devices.replicated())
            self._epoch = choices.placement(config)(plan, *splits)
        else:
            self.state, splits = jax.device_put((state, splits), device)
            run = make_epoch(plan, [device])
            self._epoch = lambda state: run(state, *splits)

    def begin(self) -> None:
        """Sends an epoch to the devices; `state` is the one after it."""
        self.state, self._metrics = self._epoch(self.state)

    def release(self) -> None:
        """Lets go of all that it holds on its devices."""
        vars(self).clear()

    def metrics(self) -> Sums:
        """Waits for the epoch's end; returns its metrics."""
        wait_for(self._metrics)
        return jax.device_get(self._metrics)
