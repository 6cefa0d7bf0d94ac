"""A run from its config: checks, data, training, evaluation."""

import contextlib
import json

import jax
import ml_collections

from vamp_jax import choices, config_checks, memory
from vamp_jax.datasets import Dataset, arrays
from vamp_jax.evaluation import evaluate, record
from vamp_jax.process import hosts
from vamp_jax.run.folder import claim, locked
from vamp_jax.run.mirror import at_hand
from vamp_jax.training import loop, plans
from vamp_jax.training.checkpoints import Checkpoints


def train_and_evaluate(
    config: ml_collections.ConfigDict,
    workdir: str,
    data_dir: str | None = None,
    checkpoint_seconds: float = 15.0,
) -> None:
    """Trains the run of this config in a folder, or resumes it, and evaluates its best epoch.

    The folder may be an address, gs://BUCKET/NAME.

    Raises:
      UsageError: for any mistake that a sentence explains, before any work if possible.
      Stopped: after SIGTERM or SIGINT, with the state saved.
    """
    with contextlib.ExitStack() as stack:
        with hosts.together():
            config_checks.check(config)
            _warn_of_short_run(config)
            if hosts.is_first():
                workdir = stack.enter_context(at_hand(workdir, seconds=checkpoint_seconds))
                stack.enter_context(locked(workdir))
            dataset = choices.dataset(config, data_dir)
            config_checks.check_with_data(config, dataset)
            memory.check(config, dataset)
            plan = plans.make(config, dataset)  # may refuse what the folder should not have
            if hosts.is_first():
                claim(workdir, config, dataset)
        _check_hosts_agree(config, dataset)
        stack.enter_context(jax.default_matmul_precision(config.matmul_precision))
        with Checkpoints(workdir) if hosts.is_first() else contextlib.nullcontext() as checkpoints:
            state = loop.train(config, workdir, dataset, plan, checkpoints, checkpoint_seconds)
        if not hosts.is_first():
            return
        if record.is_recorded(workdir, int(state.epoch), "test", config.num_samples, None):
            print(f"This run is finished and evaluated; see {workdir}/eval and {workdir}/figures.")
            return
        evaluate.evaluate_run(workdir, dataset)


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
        The_data_set="".join(map(arrays.digest, jax.tree.leaves(dataset[1:3]))).encode(),
        The_version_of_JAX=jax.__version__.encode(),
    )
