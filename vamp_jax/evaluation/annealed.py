"""The log-likelihood of a run by annealed importance sampling: `eval.py --ais`."""

import contextlib
import functools
import os
from typing import Any, NamedTuple

import jax
import numpy as np

from vamp_jax import annealed_likelihood, choices, disk
from vamp_jax.annealed_likelihood import Annealed
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError, check_choice
from vamp_jax.evaluation import partial
from vamp_jax.evaluation.evaluate import chosen, made_of, split_x
from vamp_jax.evaluation.record import (
    REMOVE,
    UNFINISHED,
    check,
    mean_and_error,
    read_log_likelihood,
    record_path,
)
from vamp_jax.evaluation.summary_text import annealed_table
from vamp_jax.random_streams import EVALUATION, stream
from vamp_jax.run.folder import load_config, locked
from vamp_jax.sequences import num_examples as count_of
from vamp_jax.sequences import rows_of, values_of
from vamp_jax.training import best as best_parameters
from vamp_jax.training.best import Best

MOST_EXAMPLES = 500  # unless more are asked for
SIMULATED = 1 << 30  # indices of simulated examples, beyond those of any split


class Settings(NamedTuple):
    """How the chains run."""

    start: str = "posterior"  # of choices.AIS_STARTS
    num_distributions: int = 500  # T
    num_chains: int = 8  # C of each example
    num_simulated: int = 50  # examples of the gap; 0: no gap

    def check(self, posterior: str) -> None:
        """Raises a UsageError for an invalid setting, given the name of the model's posterior."""
        check_choice("ais_start", self.start, tuple(choices.AIS_STARTS))
        for name, value, least in (
            ("ais_distributions", self.num_distributions, 1),
            ("ais_chains", self.num_chains, 2),  # the error comes from their spread
            ("ais_simulated", self.num_simulated, 0),
        ):
            if not least <= value < 2**31:
                raise UsageError(f"{name} is {value}; it must be from {least} to 2^31 - 1.")
        backward = self.num_simulated and self.start in choices.AIS_STARTS_WITH_INVERSE
        if backward and posterior not in choices.WITH_DENSITY:
            raise UsageError(
                f"The gap on simulated data needs the inverse of posterior {posterior!r}, which is "
                "not known: pass --ais_simulated=0, or --ais_start=prior."
            )


def evaluate_annealed(
    workdir: str,
    dataset: Dataset,
    settings: Settings,
    *,
    split: str = "test",
    num_examples: int | None = None,
) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run by annealed chains, writes eval/ais-*.json and *.npz.

    Args:
      workdir, dataset: the folder of the run, and the data of its config.
      settings: how the chains run.
      split: train, validation or test.
      num_examples: so many, evenly spaced; None takes 500, or all if they are fewer.
    Returns:
      What the JSON file holds, in nats.
    Raises:
      UsageError: for anything that a sentence explains, before any work where possible.
    """
    config = load_config(workdir)
    check(split, config.num_samples, num_examples)
    settings.check(config.posterior)
    count = count_of(getattr(dataset, split))
    index = chosen(dataset, split, num_examples or min(count, MOST_EXAMPLES))
    path = _path(workdir, split, settings, len(index))
    with locked(os.path.dirname(path), "evaluate a copy of the run's folder"):
        best = best_parameters.load(workdir, config, dataset)
        start = made_of(config, dataset, best) | settings._asdict() | {"split": split}
        if settings.num_simulated:
            annealed_likelihood.check_draws("ais_simulated", best.autoencoder)
        run = _Run(best, settings, stream(config.seed, EVALUATION), path, start)
        sampled = _sampled(workdir, split, config.num_samples, best.epochs)
        x = rows_of(split_x(best, dataset, split, config.seed), index)
        found, seconds = _estimate(run, "AIS", x, index)
        record = start | {
            "num_examples": len(index),
            "num_examples_in_split": count,
            "best_epoch": best.epoch,
            **_summary(found),
            "importance_sampled": _beside(sampled, config.num_samples, index, found),
            "simulated": _gap(run),
            "seconds": seconds,
        }
        with disk.whole_file(path + ".npz", "wb") as file:
            np.savez_compressed(file, example=index, **found._asdict())
        disk.write_json(path + ".json", record)
        for part in PARTS.values():
            with contextlib.suppress(FileNotFoundError):
                os.remove(path + part + UNFINISHED)
    print(annealed_table(record))
    print(f"Written: {path}.json, {path}.npz", flush=True)
    return record


# What is estimated, with what tells its unfinished file from the others'.
PARTS = {"AIS": "", "AIS, simulated data": ".forward", "AIS, backward": ".backward"}


class _Run(NamedTuple):
    """What all estimates of an evaluation share."""

    best: Best
    settings: Settings
    rng: jax.Array
    path: str
    start: dict[str, Any]  # of the record


def _path(workdir: str, split: str, settings: Settings, count: int) -> str:
    """Where the result goes, without its extension."""
    size = f"T{settings.num_distributions}-C{settings.num_chains}"
    name = f"ais-{split}-{settings.start}-{size}-{count}examples"
    return os.path.join(workdir, "eval", name)


def _estimate(run: _Run, what: str, x: Any, index: np.ndarray, **more) -> tuple[Annealed, float]:
    """Runs the chains, resumed from a partial file if there is one; also the time taken."""
    autoencoder, settings = run.best.autoencoder, run.settings
    rows = 20 if autoencoder.network.convolutional and jax.default_backend() == "cpu" else 160
    estimate = functools.partial(
        annealed_likelihood.estimate,
        autoencoder,
        run.best.variables,
        x,
        start=choices.ais_start(settings.start),
        num_distributions=settings.num_distributions,
        num_chains=settings.num_chains,
        rng=run.rng,
        index=index,
        rows=rows,
        **more,
    )
    path, identity = run.path + PARTS[what] + UNFINISHED, run.start | {"what": what}
    identity |= {"index": index.tolist()}
    return partial.resumed(path, identity, Annealed, what, len(index), estimate)


def _summary(found: Annealed) -> dict[str, Any]:
    """Means over the examples in nats, with two standard errors."""
    mean, error = mean_and_error(found.log_likelihood)
    return {
        "log_likelihood": mean,
        "log_likelihood_standard_error": error,
        "chains_standard_error": _error_of_chains(found),
        "effective_chains": {
            "mean": float(found.effective_chains.mean(dtype=np.float64)),
            "smallest": float(found.effective_chains.min()),
        },
        "acceptance": float(found.acceptance.mean(dtype=np.float64)),
    }


def _error_of_chains(found: Annealed) -> float:
    """The standard error of the mean that comes from the chains, not from the examples."""
    errors = found.standard_error.astype(np.float64)
    return float(np.sqrt(np.sum(errors**2))) / len(errors)


def _sampled(workdir: str, split: str, num_samples: int, epochs: int) -> np.ndarray | None:
    """The importance-sampled estimates of a whole split, if the run has been evaluated so."""
    path = record_path(workdir, split, num_samples, None)
    if not os.path.exists(path + ".json"):
        return None
    if disk.read_json(path + ".json", REMOVE).get("epochs") != epochs:
        return None
    return read_log_likelihood(path + ".npz", workdir)


def _beside(
    sampled: np.ndarray | None, num_samples: int, index: np.ndarray, found: Annealed
) -> dict[str, Any] | None:
    """The importance-sampled estimate of the same examples, if the run has been evaluated."""
    if sampled is None:
        return None
    values = sampled[index].astype(np.float64)
    difference, error = mean_and_error(found.log_likelihood - values)
    return {
        "num_samples": num_samples,
        "log_likelihood": float(values.mean()),
        "difference": difference,
        "difference_standard_error": error,
    }


def _gap(run: _Run) -> dict[str, Any] | None:
    """The bounds below and above of ln p(x) on data that the model simulates; None without any."""
    count = run.settings.num_simulated
    if not count:
        return None
    model = run.best.autoencoder, run.best.variables
    x, latents = annealed_likelihood.simulate(*model, jax.random.fold_in(run.rng, SIMULATED), count)
    index = SIMULATED + 1 + np.arange(count)  # none of which has the key that x was drawn by
    below, _ = _estimate(run, "AIS, simulated data", x, index)
    above, _ = _estimate(run, "AIS, backward", x, index, latents=latents)
    gap, error = mean_and_error(above.log_likelihood - below.log_likelihood)
    return {
        "num_examples": len(values_of(x)),
        "lower_bound": mean_and_error(below.log_likelihood)[0],
        "upper_bound": mean_and_error(above.log_likelihood)[0],
        "gap": gap,
        "gap_standard_error": error,
    }
