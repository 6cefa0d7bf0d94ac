"""The training loop: epochs, early stopping, checkpoints, logs. Its device code is in epoch.py."""

import contextlib
import json
import math
import time

import jax
import jax.numpy as jnp
import ml_collections
import optax

from vamp_jax import datasets, epoch, models, optimizers, settings
from vamp_jax.checkpoints import Checkpoints
from vamp_jax.datasets import Dataset
from vamp_jax.epoch import TrainState
from vamp_jax.errors import NonFiniteLossError, Stopped
from vamp_jax.evaluation import evaluate, record
from vamp_jax.objectives import Objective
from vamp_jax.process import hosts
from vamp_jax.process.progress import Progress
from vamp_jax.process.signals import SignalFlag
from vamp_jax.run.folder import claim, locked
from vamp_jax.run.metrics_log import MetricsLog
from vamp_jax.run.provenance import note_commit
from vamp_jax.run.stopping import should_stop


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    data_dir: str | None = None,
    checkpoint_seconds: float = 15.0,
) -> None:
    """Trains (or goes on training) the run of this config in a folder, then evaluates its best.

    Raises:
      UsageError: for anything that a sentence explains, before any work where possible.
      Stopped: after SIGTERM or SIGINT, with the state saved.
    """
    with contextlib.ExitStack() as stack:
        with hosts.together():
            settings.check(config)
            _warn_of_short_run(config)
            if hosts.is_first():
                stack.enter_context(locked(workdir))
            dataset = datasets.load(config.dataset, data_dir)
            settings.check_with_data(config, dataset)
            if hosts.is_first():
                claim(workdir, config, dataset)
        _check_hosts_agree(config, dataset)
        stack.enter_context(jax.default_matmul_precision(config.matmul_precision))
        objective, optimizer = set_up(config, dataset)
        with Checkpoints(workdir) if hosts.is_first() else contextlib.nullcontext() as checkpoints:
            state = train(
                config, workdir, dataset, objective, optimizer, checkpoints, checkpoint_seconds
            )
        if not hosts.is_first():
            return
        if record.is_recorded(workdir, int(state.epoch), "test", config.num_samples, None):
            print(f"This run is finished and evaluated; see {workdir}/eval and {workdir}/figures.")
            return
        evaluate.evaluate_run(workdir, dataset, objective)


def _warn_of_short_run(config: ml_collections.ConfigDict) -> None:
    if config.warmup_epochs > config.num_epochs:  # of use to look at the start of a long run
        last = config.num_epochs / config.warmup_epochs
        print(
            f"Note: warmup_epochs is {config.warmup_epochs} and num_epochs {config.num_epochs}: "
            f"beta ends at {last:.2f}, not at 1.",
            flush=True,
        )


def _check_hosts_agree(config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Raises a UsageError when the hosts of a run differ in what makes its result."""
    if not hosts.several():
        return
    hosts.check_same(
        The_config=json.dumps(config.to_dict(), sort_keys=True).encode(),
        The_data_set=dataset.train.tobytes() + dataset.validation.tobytes(),
        The_version_of_JAX=jax.__version__.encode(),
    )


def set_up(
    config: ml_collections.ConfigDict, dataset: Dataset
) -> tuple[Objective, optax.GradientTransformation]:
    """The objective (model and prior) and the optimiser that a config names."""
    model = models.create(config, dataset)
    objective = Objective(model, config.prior, config.proper_logistic)
    return objective, optimizers.normalized_adam(config.learning_rate)


def initial_state(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    objective: Objective,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """`epoch.init_state` as one program."""
    # It runs once: on a CPU optimising it costs more time than it saves, seconds before step 1.
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    init = jax.jit(
        lambda: epoch.init_state(config, dataset, objective, optimizer), compiler_options=options
    )
    return init()


def train(
    config: ml_collections.ConfigDict,
    workdir: str,
    dataset: Dataset,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints | None,
    checkpoint_seconds: float,
) -> TrainState:
    """Runs epochs until the run is finished, from the newest checkpoint; returns the last state.

    Of several hosts process 0 alone has `checkpoints`, writes the folder and shows progress.
    """
    state = initial_state(config, dataset, objective, optimizer)
    with hosts.together():
        restored = checkpoints.restore_latest(like=state) if checkpoints else None
    if hosts.several():
        restored = hosts.from_first(state if restored is None else restored)
    if restored is not None:
        # Copied by a program of ours: its buffers must be JAX's own, since they will be donated.
        state = jax.tree.map(jnp.copy, restored)
    done, best_epoch = int(state.epoch), int(state.best_epoch)
    if done:
        print(f"Going on after epoch {done} of {workdir}.", flush=True)
    if done and should_stop(done, best_epoch, config):
        print(f"Training is finished: {done} epochs, the best was {best_epoch}.", flush=True)
        return state

    sharding = epoch.replicated()
    state = jax.device_put(state, sharding)
    train_images = jax.device_put(dataset.train, sharding)
    validation_images = jax.device_put(dataset.validation, sharding)
    run_epoch = epoch.make_epoch(objective, optimizer, config, dataset)
    saved = time.monotonic()
    with SignalFlag() as flag, contextlib.ExitStack() as stack:
        if checkpoints:
            note_commit(workdir, done)
            log = stack.enter_context(MetricsLog(workdir, done))
            what = f"{config.model}, {config.prior} prior"
            progress = stack.enter_context(Progress(what, config.num_epochs, done))
        while not should_stop(done, best_epoch, config):
            start = time.monotonic()
            state, metrics = run_epoch(state, train_images, validation_images)
            metrics = {name: value.item() for name, value in jax.device_get(metrics).items()}
            done, best_epoch = metrics["epoch"], metrics.pop("best_epoch")
            stop = hosts.largest(flag.number)
            _check_finite(metrics, workdir, checkpoints)
            if dataset.likelihood == "discretised_logistic":
                size = math.prod(dataset.shape)
                metrics["val_bits_per_dim"] = metrics["val_loss"] / (size * math.log(2.0))
            finished = should_stop(done, best_epoch, config)
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
