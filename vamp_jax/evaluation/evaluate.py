"""Evaluation of a run's best parameters: numbers as JSON, and its pictures."""

import contextlib
import json
import os
import time
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from vamp_jax import disk, epoch, log_likelihood
from vamp_jax.checkpoints import Checkpoints
from vamp_jax.datasets import Dataset, spaced
from vamp_jax.errors import UsageError
from vamp_jax.evaluation import diagnose, partial, pictures
from vamp_jax.evaluation.record import check, record_path, summary, write_npz
from vamp_jax.evaluation.summary_text import table
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.objectives import Objective
from vamp_jax.process.progress import Progress
from vamp_jax.run import provenance
from vamp_jax.run.folder import load_config, locked

UNFINISHED = ".unfinished.npz"  # after record_path


def evaluate_run(
    workdir: str,
    dataset: Dataset,
    objective: Objective,
    *,
    split: str = "test",
    num_samples: int | None = None,
    num_examples: int | None = None,
    diagnostics: bool = True,
) -> dict[str, Any]:
    """Evaluates the best checkpoint of a run, writes eval/*.json, *.npz and figures/*.png.

    Args:
      workdir: the folder of the run.
      dataset, objective: of the run's config.
      split: train, validation or test.
      num_samples: S; None takes the config's.
      num_examples: only so many, evenly spaced (some files are sorted by class); None takes all.
      diagnostics: also those of diagnostics.py, over the training split and this one.
    Returns:
      What the JSON file holds. Nats, unless the name says bits.
    Raises:
      UsageError: for anything that a sentence explains, before any work where possible.
    """
    config = load_config(workdir)
    num_samples = config.num_samples if num_samples is None else num_samples
    check(split, num_samples, num_examples)
    images = _images(dataset, split, config.seed)
    if num_examples is not None and num_examples > len(images):
        raise UsageError(
            f"num_examples is {num_examples}, but the {split} split has {len(images)} examples."
        )
    index = spaced(len(images), num_examples)
    path = record_path(workdir, split, num_samples, num_examples)
    # Two at once would write the same files.
    with locked(os.path.dirname(path), "evaluate a copy of the run's folder"):
        disk.make_folder(os.path.join(workdir, "figures"))
        like = jax.eval_shape(lambda: epoch.init_variables(config, dataset, objective))
        with Checkpoints(workdir, read_only=True) as checkpoints:
            variables, best_epoch, epochs = checkpoints.restore_best(like)
        start = {
            "config": config.to_dict(),
            "data_files": dict(dataset.file_hashes),
            "epochs": epochs,
            "hardware": provenance.hardware(),
            "versions": provenance.versions(),
        }
        rng = epoch.stream(config.seed, epoch.EVALUATION)
        sampled, seconds = _sample(
            objective, variables, images, index, num_samples, rng, path, start
        )
        inspected = {}
        for name in dict.fromkeys(("train", split)) if diagnostics else ():
            chosen = _images(dataset, name, config.seed)
            chosen = chosen[spaced(len(chosen), num_examples)]
            what = f"diagnostics, {name} split"
            with Progress(what, 2 * len(chosen), unit="step") as progress:
                inspected[name] = diagnose.inspect(objective, variables, chosen, rng, progress.show)
        if diagnostics and config.prior == "vamp":
            start_of_prior = epoch.init_prior(config, dataset)["pseudo_inputs"]
            inspected["pseudo_inputs"] = diagnose.pseudo_inputs(variables, start_of_prior)

        record = start | {
            "split": split,
            "num_examples": len(index),
            "num_examples_in_split": len(getattr(dataset, split)),
            "num_samples": num_samples,
            "best_epoch": best_epoch,
            **summary(sampled, dataset),
            "diagnostics": inspected,
            "seconds": seconds,
        }
        write_npz(path + ".npz", index, sampled)
        pictures.draw(workdir, split, objective, variables, images, sampled, rng)
        disk.write_json(path + ".json", record)  # last: its presence says that all is done
        with contextlib.suppress(FileNotFoundError):
            os.remove(path + UNFINISHED)
    print(table(record))
    print(f"Written: {path}.json, {path}.npz, {os.path.join(workdir, 'figures')}/*.png")
    return record


def _sample(
    objective: Objective,
    variables: dict[str, Any],
    images: np.ndarray,
    index: np.ndarray,
    num_samples: int,
    rng: jax.Array,
    path: str,
    start: dict[str, Any],
) -> tuple[ImportanceSampled, float]:
    """Estimates, resumed from a partial file if there is one, and the seconds they took."""
    begun = time.monotonic()
    # A partial evaluation is resumed only by the same code.
    identity = json.dumps(start | {"code": provenance.code_digest()}, sort_keys=True)
    done, seconds = partial.read(path + UNFINISHED, identity)
    keep = partial.writer(path + UNFINISHED, identity, seconds)
    count = len(done.log_likelihood) if done else 0
    if done:
        print(f"An interrupted evaluation goes on after {count} of {len(index)} images.")
    what = f"log-likelihood, S = {num_samples}"
    with Progress(what, len(index), done=count, unit="image") as progress:

        def report(done: ImportanceSampled) -> None:
            keep(done)
            progress.show(len(done.log_likelihood))

        sampled = log_likelihood.estimate(
            objective,
            variables,
            images[index],
            num_samples=num_samples,
            rng=rng,
            numbers=index,
            **batch_sizes(objective.model),
            done=done,
            report=report,
        )
    return sampled, seconds + time.monotonic() - begun


def batch_sizes(model: nn.Module) -> dict[str, int]:
    """Batch sizes for `log_likelihood.estimate`, chosen for speed.

    By convolutions on a CPU, few rows stay in its cache (1.4 times as fast), and ten images are a
    minute: more would show no progress.
    """
    if not model.convolutional:
        return {"rows_per_chunk": 1000, "batches_per_dispatch": 10}
    rows = 20 if jax.default_backend() == "cpu" else 1000
    return {"rows_per_chunk": rows, "batches_per_dispatch": 1}


def _images(dataset: Dataset, split: str, seed: int) -> np.ndarray:
    """A split's images in [0, 1]; training images that are means are drawn once, by the seed."""
    images = np.asarray(epoch.unit_images(getattr(dataset, split), dataset))
    if dataset.dynamic and split == "train":
        images = (np.random.RandomState(seed).uniform(size=images.shape) < images).astype(
            np.float32
        )
    return images
