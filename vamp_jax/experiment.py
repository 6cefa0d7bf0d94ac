"""A run from its config, or several at once: checks, data, training, evaluation."""

import contextlib
import json
from collections.abc import Sequence

import jax
import ml_collections

from vamp_jax import choices, config_checks, memory, several_runs
from vamp_jax.datasets import Dataset, arrays
from vamp_jax.errors import PicturesError, UsageError
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
    train_and_evaluate_all([(config, workdir)], data_dir, checkpoint_seconds)


def train_and_evaluate_all(
    runs: Sequence[tuple[ml_collections.ConfigDict, str]],
    data_dir: str | None = None,
    checkpoint_seconds: float = 15.0,
) -> None:
    """Trains several runs at once, as `train_and_evaluate` does one, and evaluates them in turn.

    Args:
      runs: the config of each, of the same data (several_runs.py), and its folder.
    Raises:
      UsageError, Stopped: as there.
      NonFiniteLossError, PicturesError: of a run; of several, when the others are done.
    """
    first, at_once = runs[0][0], 1
    with contextlib.ExitStack() as stack:
        with hosts.together():
            for config, _ in runs:
                config_checks.check(config)
            runs = [
                (config, _at_work(workdir, checkpoint_seconds, stack)) for config, workdir in runs
            ]
            _warn_of_short_run(first)
            dataset = choices.dataset(first, data_dir)
            if len(runs) > 1:
                _check_several(first)
                at_once = min(len(runs), jax.local_device_count())
            for config in several_runs.but_for_the_seed(config for config, _ in runs):
                config_checks.check_with_data(config, dataset)
                memory.check(config, dataset, at_once)
            # May refuse what the folders should not have.
            planned = [plans.make(config, dataset) for config, _ in runs]
            if hosts.is_first():
                for config, workdir in runs:
                    claim(workdir, config, dataset)
        _check_hosts_agree(first, dataset)
        stack.enter_context(jax.default_matmul_precision(first.matmul_precision))
        with contextlib.ExitStack() as saving:
            under_way = [
                loop.Run(config, workdir, plan, _checkpoints(workdir, saving))
                for (config, workdir), plan in zip(runs, planned, strict=True)
            ]
            failure = loop.train(under_way, dataset, checkpoint_seconds)
        if hosts.is_first():
            for run in under_way:
                if run.failure is None:
                    failure = _evaluate(run, dataset, len(runs) > 1) or failure
        if failure:
            raise failure


def _at_work(workdir: str, checkpoint_seconds: float, stack: contextlib.ExitStack) -> str:
    """The folder of a run on this machine, locked while the stack lasts."""
    if hosts.is_first():
        workdir = stack.enter_context(at_hand(workdir, seconds=checkpoint_seconds))
        stack.enter_context(locked(workdir))
    return workdir


def _check_several(config: ml_collections.ConfigDict) -> None:
    """Raises a UsageError where several runs cannot be trained at once."""
    if hosts.several():
        raise UsageError(
            "Several runs at once (--seeds, --vary) go on the devices of one host, and this is one "
            "of several: give each run a command of its own, on all hosts."
        )
    if config.data_placement not in choices.WHOLE:
        raise UsageError(
            f"data_placement is {config.data_placement!r}, but of several runs at once each is on "
            "a device of its own, with all of the training set: take 'replicated'."
        )


def _checkpoints(workdir: str, stack: contextlib.ExitStack) -> Checkpoints | None:
    return stack.enter_context(Checkpoints(workdir)) if hosts.is_first() else None


def _evaluate(
    run: loop.Run, dataset: Dataset, of_several: bool
) -> PicturesError | UsageError | None:
    """Evaluates a run that is over; returns what its pictures, or one of several, failed by."""
    workdir = run.workdir
    try:
        if record.is_recorded(workdir, run.done, "test", run.config.num_samples, None):
            print(f"This run is finished and evaluated; see {workdir}/eval and {workdir}/figures.")
            return None
        evaluate.evaluate_run(workdir, dataset)
    except PicturesError as error:  # the evaluation is written, and the other runs have theirs
        return error
    except UsageError as error:  # a damaged file, for instance
        if not of_several:
            raise
        run.fail(error)
        return error
    return None


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
