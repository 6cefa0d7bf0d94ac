"""The training loop: epochs, early stopping, checkpoints, logs. Device code is in epoch.py."""

import collections
import contextlib
import math
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from vamp_jax.datasets import Dataset
from vamp_jax.errors import NonFiniteLossError, Stopped, UsageError
from vamp_jax.process import hosts
from vamp_jax.process.progress import Progress
from vamp_jax.process.signals import SignalFlag
from vamp_jax.run.metrics_log import MetricsLog, read_metrics
from vamp_jax.run.provenance import note_commit
from vamp_jax.run.stopping import should_stop
from vamp_jax.sequences import is_sequences
from vamp_jax.training.checkpoints import Checkpoints
from vamp_jax.training.epoch import Plan
from vamp_jax.training.slots import Slot
from vamp_jax.training.state import TrainState, arranged_state, initial_state

MAX_DRIFT = 10.0  # nats that a component changes between its turns; a healthy run has about 1
APART = 2  # epochs in a row above it: one alone may be the chance of a batch's normalisation


class Run:
    """A run that is to be trained: what it is, and how far.

    Of several hosts process 0 alone has `checkpoints`, writes the folder and shows progress.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        workdir: str,
        plan: Plan,
        checkpoints: Checkpoints | None,
    ):
        self.config, self.workdir, self.plan = config, workdir, plan
        self.checkpoints = checkpoints
        self.done, self.best_epoch = 0, 0
        self.failure: NonFiniteLossError | UsageError | None = None
        self._drifting = 0  # epochs in a row
        self._open = contextlib.ExitStack()

    @property
    def is_over(self) -> bool:
        """Whether its last epoch is done, or it has failed."""
        return self.failure is not None or should_stop(self.done, self.best_epoch, self.config)

    def fail(self, error: NonFiniteLossError | UsageError) -> None:
        """Ends it, one of several, and says why."""
        self.failure = error
        print(f"{error} The other runs go on.", file=sys.stderr, flush=True)

    def start(self, dataset: Dataset) -> TrainState:
        """Returns the state that it goes on from; says so where that is not the first."""
        state = _start(self.workdir, dataset, self.plan, self.checkpoints)
        self.done, self.best_epoch = int(state.epoch), int(state.best_epoch)
        if self.done:
            print(f"Going on after epoch {self.done} of {self.workdir}.", flush=True)
            if self.is_over:
                said = f"{self.done} epochs, the best was {self.best_epoch}"
                print(f"Training is finished: {said}.", flush=True)
        return state

    def open(self, what: str) -> None:
        """Opens its log and shows its progress, under this name."""
        self._saved = time.monotonic()
        if self.checkpoints:
            note_commit(self.workdir, self.done)
            self._log = self._open.enter_context(MetricsLog(self.workdir, self.done))
            progress = Progress(what, self.config.num_epochs, self.done)
            self._progress = self._open.enter_context(progress)

    def close(self) -> None:
        """Closes its log."""
        self._open.close()

    def after_epoch(self, metrics: dict[str, float], seconds: float) -> None:
        """Notes an epoch in the log and shows it."""
        self.done, self.best_epoch = metrics["epoch"], metrics.pop("best_epoch")
        _check_finite(metrics, self.workdir, self.checkpoints)
        drifts = metrics.get("component_drift", 0.0) > MAX_DRIFT
        self._drifting = self._drifting + 1 if drifts else 0
        if self.checkpoints:
            if self._drifting == APART:
                _say_that_it_comes_apart(metrics, self.workdir, self.config)
            self._log.write(metrics | {"seconds": seconds})
            self._progress.show(
                self.done,
                f"train loss {metrics['train_loss']:.2f}  validation loss "
                f"{metrics['val_loss']:.2f} (best: epoch {self.best_epoch})",
                last=self.is_over,
            )

    def is_overdue(self, checkpoint_seconds: float) -> bool:
        """Whether its state has to be saved."""
        return self.is_over or time.monotonic() - self._saved >= checkpoint_seconds

    def save(self, state: TrainState) -> None:
        """Begins to save its state."""
        if self.checkpoints:
            self.checkpoints.save(state)
            self._saved = time.monotonic()

    def wait(self) -> None:
        """Returns when all that was to be saved is."""
        if self.checkpoints:
            self.checkpoints.wait()


def train(
    runs: Sequence[Run], dataset: Dataset, checkpoint_seconds: float
) -> NonFiniteLossError | UsageError | None:
    """Trains runs until all are over, each from its newest checkpoint.

    One run is on all devices. Of several each is on one device, as many at a time as there are
    devices; where one is over, the next one begins.

    Returns:
      The first failure of several: a loss that was not finite, or a run that could not be begun or
      gone on with. The other runs go on.
    Raises:
      NonFiniteLossError: that of a run alone.
      Stopped: after SIGTERM or SIGINT, with the states saved.
    """
    waiting, of_several = collections.deque(runs), len(runs) > 1
    places = jax.local_devices()[: len(runs)] if of_several else [None]
    with SignalFlag() as flag, contextlib.ExitStack() as stack:
        for run in runs:
            stack.callback(run.close)
        held = [_next(waiting, dataset, device, of_several) for device in places]
        while any(held):
            start = time.monotonic()
            at_work = [each for each in held if each]
            for _, slot in at_work:
                slot.begin()
            metrics = [slot.metrics() for _, slot in at_work]
            stop = hosts.largest(flag.number)
            for (run, slot), numbers in zip(at_work, metrics, strict=True):
                try:
                    seconds = time.monotonic() - start
                    run.after_epoch(_plain(numbers, run.plan, dataset), seconds)
                except NonFiniteLossError as error:
                    if not of_several:
                        raise
                    run.fail(error)
                    continue
                if stop or run.is_overdue(checkpoint_seconds):
                    run.save(slot.state)
            if stop:
                for run, _ in at_work:
                    run.wait()
                raise Stopped(stop, [run.done for run, _ in at_work])
            for i, each in enumerate(held):
                if each and each[0].is_over:
                    each[0].wait()
                    each[0].close()
                    each[1].release()  # before the next one takes its place
                    held[i] = _next(waiting, dataset, places[i], of_several)
    return next((run.failure for run in runs if run.failure), None)


def _next(
    waiting: collections.deque[Run], dataset: Dataset, device: jax.Device | None, of_several: bool
) -> tuple[Run, Slot] | None:
    """The next run that is not over, at its place; None if there is none."""
    while waiting:
        run = waiting.popleft()
        try:
            state = run.start(dataset)
            if not run.is_over:
                run.open(_title(run, of_several))
        except UsageError as error:  # a damaged checkpoint, for instance
            if not of_several:
                raise
            run.fail(error)
        if not run.is_over:
            return run, Slot(run.config, run.plan, dataset, state, device)
    return None


def _title(run: Run, of_several: bool) -> str:
    if of_several:
        return os.path.basename(os.path.normpath(run.workdir))
    return f"{run.config.model}, {run.config.prior} prior"


def _start(
    workdir: str, dataset: Dataset, plan: Plan, checkpoints: Checkpoints | None
) -> TrainState:
    """The state before the first epoch, or the newest that has been saved."""
    state = initial_state(plan.autoencoder, plan.optimizer, dataset, plan.inputs, plan.seed)
    with hosts.together():
        restored = _restore(checkpoints, state, plan, workdir) if checkpoints else None
        if checkpoints and restored is None:
            state = arranged_state(state, plan.autoencoder, dataset, plan.inputs, plan.seed)
    if hosts.several():
        restored = hosts.from_first(state if restored is None else restored)
    if restored is None:
        return state
    # Copied by a program of ours: its buffers must be JAX's own, since they will be donated.
    return jax.tree.map(jnp.copy, restored)


def _plain(metrics: dict[str, Any], plan: Plan, dataset: Dataset) -> dict[str, float]:
    """The metrics of an epoch as plain numbers, with bits per dimension or nats a step
    where those are told."""
    numbers = {name: value.item() for name, value in metrics.items()}
    if plan.autoencoder.likelihood.in_bits:
        size = math.prod(dataset.shape)
        numbers["val_bits_per_dim"] = numbers["val_loss"] / (size * math.log(2.0))
    if is_sequences(dataset.validation):
        lengths = dataset.validation["length"]
        numbers["val_nats_per_step"] = numbers["val_loss"] / float(lengths.mean())
    return numbers


def _say_that_it_comes_apart(
    metrics: dict[str, float], workdir: str, config: ml_collections.ConfigDict
) -> None:
    """Says that components change too much between their turns (training/turns.py)."""
    print(
        f"Note: until epoch {metrics['epoch']} of {workdir}, {APART} in a row, components of the "
        f"prior changed by {metrics['component_drift']:.3g} nats on average between their turns, "
        "so that the prior comes apart: raise components_per_step, which is "
        f"{config.components_per_step}.",
        flush=True,
    )


def _restore(
    checkpoints: Checkpoints, like: TrainState, plan: Plan, workdir: str
) -> TrainState | None:
    """The newest state that can be read."""
    state, format = checkpoints.restore_latest(like)
    if state is not None and format == 1 and plan.objective.num_samples > 1:
        # Its best loss is the bound's at the best epoch; from here on the ELBO is compared.
        for row in read_metrics(workdir):
            if row["epoch"] == int(state.best_epoch):
                loss = jnp.asarray(row["val_kl"] - row["val_reconstruction"], jnp.float32)
                state = state.replace(best_loss=jax.device_put(loss, state.best_loss.sharding))
    return state


def _check_finite(metrics: dict[str, float], workdir: str, checkpoints: Checkpoints | None) -> None:
    for name in ("train_loss", "val_loss"):
        if not math.isfinite(metrics[name]):
            last = None
            if checkpoints:
                checkpoints.wait()
                last = checkpoints.latest_step()
            good = f"the checkpoint after epoch {last} is good" if last else "none is saved yet"
            raise NonFiniteLossError(
                f"{name} is {metrics[name]} in epoch {metrics['epoch']} of {workdir}; {good}. "
                "Lower --config.learning_rate, or look at the data."
            )
