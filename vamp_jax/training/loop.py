"""The training loop: epochs, early stopping, checkpoints, logs. Device code is in epoch.py."""

import contextlib
import math
import time

import jax
import jax.numpy as jnp
import ml_collections

from vamp_jax import choices
from vamp_jax.datasets import Dataset
from vamp_jax.errors import NonFiniteLossError, Stopped
from vamp_jax.process import hosts
from vamp_jax.process.progress import Progress
from vamp_jax.process.signals import SignalFlag
from vamp_jax.run.metrics_log import MetricsLog, read_metrics
from vamp_jax.run.provenance import note_commit
from vamp_jax.run.stopping import should_stop
from vamp_jax.sequences import is_sequences, trimmed
from vamp_jax.training import devices
from vamp_jax.training.checkpoints import Checkpoints
from vamp_jax.training.epoch import Plan
from vamp_jax.training.state import TrainState, arranged_state, initial_state

MAX_DRIFT = 10.0  # nats that a component changes between its turns; a healthy run has about 1


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    dataset: Dataset,
    plan: Plan,
    checkpoints: Checkpoints | None,
    checkpoint_seconds: float,
) -> TrainState:
    """Runs epochs until the run is finished, from the newest checkpoint; returns the last state.

    Of several hosts process 0 alone has `checkpoints`, writes the folder and shows progress.
    """
    state = _start(workdir, dataset, plan, checkpoints)
    done, best_epoch = int(state.epoch), int(state.best_epoch)
    if done:
        print(f"Going on after epoch {done} of {workdir}.", flush=True)
        if should_stop(done, best_epoch, config):
            print(f"Training is finished: {done} epochs, the best was {best_epoch}.", flush=True)
            return state

    state = jax.device_put(state, devices.replicated())
    splits = trimmed(dataset.train), trimmed(dataset.validation)
    run_epoch = choices.placement(config)(plan, *splits)
    saved = time.monotonic()
    with SignalFlag() as flag, contextlib.ExitStack() as stack:
        if checkpoints:
            note_commit(workdir, done)
            log = stack.enter_context(MetricsLog(workdir, done))
            what = f"{config.model}, {config.prior} prior"
            progress = stack.enter_context(Progress(what, config.num_epochs, done))
        apart = False
        while not should_stop(done, best_epoch, config):
            start = time.monotonic()
            state, metrics = run_epoch(state)
            metrics = _plain(metrics, plan, dataset)
            done, best_epoch = metrics["epoch"], metrics.pop("best_epoch")
            stop = hosts.largest(flag.number)
            _check_finite(metrics, workdir, checkpoints)
            finished = should_stop(done, best_epoch, config)
            apart = apart or _comes_apart(metrics, config)
            if checkpoints:
                log.write(metrics | {"seconds": time.monotonic() - start})
                progress.show(
                    done,
                    f"train loss {metrics['train_loss']:.2f}  validation loss "
                    f"{metrics['val_loss']:.2f} (best: epoch {best_epoch})",
                    last=finished,
                )
                overdue = time.monotonic() - saved >= checkpoint_seconds
                if finished or overdue or stop:
                    checkpoints.save(state)
                    saved = time.monotonic()
            if stop:
                if checkpoints:
                    checkpoints.wait()
                raise Stopped(stop, done)
        if checkpoints:
            checkpoints.wait()
    return state


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


def _plain(metrics: dict[str, jax.Array], plan: Plan, dataset: Dataset) -> dict[str, float]:
    """The metrics of an epoch as plain numbers, with bits per dimension or nats a step
    where those are told."""
    numbers = {name: value.item() for name, value in jax.device_get(metrics).items()}
    if plan.autoencoder.likelihood.in_bits:
        size = math.prod(dataset.shape)
        numbers["val_bits_per_dim"] = numbers["val_loss"] / (size * math.log(2.0))
    if is_sequences(dataset.validation):
        lengths = dataset.validation["length"]
        numbers["val_nats_per_step"] = numbers["val_loss"] / float(lengths.mean())
    return numbers


def _comes_apart(metrics: dict[str, float], config: ml_collections.ConfigDict) -> bool:
    """Whether components change too much between their turns (training/turns.py); says so."""
    if metrics.get("component_drift", 0.0) <= MAX_DRIFT:
        return False
    print(
        f"Note: in epoch {metrics['epoch']} components of the prior changed by "
        f"{metrics['component_drift']:.3g} nats on average between their turns, so that the prior "
        f"comes apart: raise components_per_step, which is {config.components_per_step}.",
        flush=True,
    )
    return True


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
