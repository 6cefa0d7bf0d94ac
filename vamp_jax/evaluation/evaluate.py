"""Evaluation of a run's best parameters: numbers as JSON, and its pictures."""

import contextlib
import functools
import os
from typing import Any

import jax
import numpy as np

from vamp_jax import disk, log_likelihood, model_file, particle_filter, trained
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import MOST, Dataset, at_most, spaced
from vamp_jax.errors import PicturesError, UsageError, first_line
from vamp_jax.evaluation import diagnose, partial, pictures, report
from vamp_jax.evaluation.record import (
    UNFINISHED,
    check,
    filter_summary,
    record_path,
    summary,
    write_npz,
)
from vamp_jax.evaluation.summary_text import table
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.particle_filter import Filtered
from vamp_jax.process.progress import Progress
from vamp_jax.random_streams import EVALUATION, stream
from vamp_jax.run import provenance
from vamp_jax.run.folder import load_config, locked
from vamp_jax.sequences import is_sequences, rows_of, values_of
from vamp_jax.sequences import num_examples as count_of
from vamp_jax.training import best as best_parameters
from vamp_jax.training.state import prior_at_start

FILTER = ".filter"  # in the name of its unfinished file
FEWEST = 100  # examples of the diagnostics: fewer do not tell which units are active


def evaluate_run(
    workdir: str,
    dataset: Dataset,
    *,
    split: str = "test",
    num_samples: int | None = None,
    num_examples: int | None = None,
    diagnostics: bool = True,
) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run, writes eval/*.json, *.npz and figures/*.png.

    Args:
      workdir, dataset: the folder of the run, and the data of its config.
      split: train, validation or test.
      num_samples: S; None takes the config's.
      num_examples: only so many, evenly spaced (some files are sorted by class); None takes all.
      diagnostics: also those of diagnostics.py, over the training split and this one.
    Returns:
      What the JSON file holds. Nats, unless the name says bits.
    Raises:
      UsageError: for anything that a sentence explains, before any work where possible.
      PicturesError: when a picture cannot be drawn, once all else is written.
    """
    config = load_config(workdir)
    num_samples = config.num_samples if num_samples is None else num_samples
    check(split, num_samples, num_examples)
    index = chosen(dataset, split, num_examples)
    path = record_path(workdir, split, num_samples, num_examples)
    # Two at once would write the same files.
    with locked(os.path.dirname(path), "evaluate a copy of the run's folder"):
        disk.make_folder(os.path.join(workdir, "figures"))
        best = best_parameters.load(workdir, config, dataset)
        autoencoder, variables = best.autoencoder, best.variables
        x = split_x(best, dataset, split, config.seed)
        start = made_of(config, dataset, best)
        rng = stream(config.seed, EVALUATION)
        of, draws = (autoencoder, variables, rows_of(x, index)), {"rng": rng, "index": index}
        args = of, draws, num_samples, path, start
        sampled, seconds = _sample(*args)
        filtered, more_seconds = _filter(*args)
        of_run = best, dataset, split, num_examples, config.seed
        inspected = _inspect(*of_run) if diagnostics else {}
        record = start | {
            "split": split,
            "num_examples": len(index),
            "num_examples_in_split": len(values_of(getattr(dataset, split))),
            "num_samples": num_samples,
            "best_epoch": best.epoch,
            **summary(sampled, autoencoder.likelihood, dataset.shape, _lengths(x, index)),
            **filter_summary(filtered, num_samples, _lengths(x, index)),
            "diagnostics": inspected,
            "seconds": seconds + more_seconds,
        }
        write_npz(path + ".npz", index, sampled, filtered)
        model = trained.from_best(config, dataset, best)
        model_file.export(model, os.path.join(workdir, model_file.MODEL_FILE))
        disk.write_json(path + ".json", record)  # last: its presence says that all is evaluated
        print(table(record))
        print(f"Written: {path}.json, {path}.npz", flush=True)
        _draw(workdir, record, best, dataset, x, sampled, rng)
        for unfinished in (path + FILTER + UNFINISHED, path + UNFINISHED):
            with contextlib.suppress(FileNotFoundError):
                os.remove(unfinished)
    print(f"Written: {os.path.join(workdir, 'figures')}/*.png, report.html")
    return record


def made_of(config, dataset: Dataset, best: best_parameters.Best) -> dict[str, Any]:
    """What a record says of how it was made."""
    return {
        "config": config.to_dict(),
        "data_files": dict(dataset.file_hashes),
        "epochs": best.epochs,
        "hardware": provenance.hardware(),
        "versions": provenance.versions(),
    }


def _draw(
    workdir: str,
    record: dict[str, Any],
    best: best_parameters.Best,
    dataset: Dataset,
    x: Any,
    sampled: ImportanceSampled,
    rng: jax.Array,
) -> None:
    """Draws the pictures and the page of them, or raises a PicturesError that names what failed."""
    split = record["split"]
    of_model = best.autoencoder, best.variables
    undrawn = pictures.draw(workdir, split, *of_model, x, sampled, rng, dataset.alphabet)
    try:
        if split == "test":
            run = report.of_best(workdir, best, dataset, x, record)
        else:
            test = split_x(best, dataset, "test", 0)
            run = report.of_best(workdir, best, dataset, test, report.full_record(workdir))
        report.write([run], os.path.join(workdir, "figures", "report.html"))
    except Exception as error:  # of a library, as in pictures.draw
        undrawn.append(f"report ({first_line(error)})")
    if undrawn:
        raise PicturesError(
            f"The evaluation is written, but not these pictures: {'; '.join(undrawn)}. "
            f"eval.py --workdir={workdir} draws them once the cause is gone."
        )


def chosen(dataset: Dataset, split: str, num_examples: int | None) -> np.ndarray:
    """The indices of the examples that are evaluated."""
    count = len(values_of(getattr(dataset, split)))
    if num_examples is not None and num_examples > count:
        raise UsageError(
            f"num_examples is {num_examples}, but the {split} split has {count} examples."
        )
    return spaced(count, num_examples)


def _lengths(x: Any, index: np.ndarray) -> np.ndarray | None:
    """The lengths of the sequences that are evaluated; None of other data."""
    return x["length"][index] if is_sequences(x) else None


def _inspect(
    best: best_parameters.Best, dataset: Dataset, split: str, num_examples: int | None, seed: int
) -> dict[str, Any]:
    """The diagnostics over the training split and this one, and of the pseudo-inputs."""
    inspected, rng = {}, stream(seed, EVALUATION)
    for name in dict.fromkeys(("train", split)):
        stored, of = at_most(getattr(dataset, name)), best.inputs.of
        if name == "train" and dataset.dynamic:
            stored, of = best.inputs.drawn_once(stored, seed), _as_it_is
        stored = at_most(stored, max(num_examples or MOST, FEWEST))
        count = 2 * count_of(stored)
        with Progress(f"diagnostics, {name} split", count, unit="step") as progress:
            inspected[name] = diagnose.inspect(
                best.autoencoder, best.variables, stored, rng, progress.show, of
            )
    learned = best.variables["params"]["prior"].get("pseudo_inputs")
    if learned is not None:
        start = prior_at_start(best.autoencoder, dataset, best.inputs, seed)
        inspected["pseudo_inputs"] = diagnose.pseudo_inputs(
            best.autoencoder, best.variables, start["pseudo_inputs"]
        )
    return inspected


def _as_it_is(x: Any) -> Any:
    return x


def _sample(
    of: tuple[Autoencoder, Variables, Any],
    draws: dict[str, Any],
    num_samples: int,
    path: str,
    start,
) -> tuple[ImportanceSampled, float]:
    """Estimates, resumed from a partial file if there is one, and the time taken.

    Args:
      of: what is estimated.
      draws: `rng` and `index` of the random numbers.
    """
    sizes = log_likelihood.batch_sizes(of[0].network, jax.default_backend())
    estimate = functools.partial(
        log_likelihood.estimate, *of, num_samples=num_samples, **draws, **sizes
    )
    what, unfinished = f"log-likelihood, S = {num_samples}", path + UNFINISHED
    count = len(draws["index"])
    return partial.resumed(unfinished, start, ImportanceSampled, what, count, estimate)


def _filter(
    of: tuple[Autoencoder, Variables, Any],
    draws: dict[str, Any],
    num_samples: int,
    path: str,
    start,
) -> tuple[Filtered | None, float]:
    """Estimates by a particle filter, resumed likewise; None of a network without steps."""
    if not particle_filter.has_steps(of[0]):
        return None, 0.0
    estimate = functools.partial(particle_filter.estimate, *of, num_particles=num_samples, **draws)
    what, unfinished = f"particle filter, N = {num_samples}", path + FILTER + UNFINISHED
    return partial.resumed(unfinished, start, Filtered, what, len(draws["index"]), estimate)


def split_x(best: best_parameters.Best, dataset: Dataset, split: str, seed: int) -> Any:
    """A split's x; training examples that are means are drawn once, by the seed."""
    stored = getattr(dataset, split)
    if split == "train":
        return best.inputs.drawn_once(stored, seed)
    return jax.tree.map(np.asarray, best.inputs.of(stored))
