"""Evaluation of a run's best parameters: numbers as JSON, and its pictures."""

import contextlib
import hashlib
import importlib.metadata
import json
import math
import os
import pathlib
import platform
import time
from typing import Any

import jax
import numpy as np

from vamp_jax import (
    config_checks,
    inspection,
    log_likelihood,
    run_figures,
    trained,
    unfinished,
)
from vamp_jax import workdir as workdirs
from vamp_jax.autoencoder import Autoencoder, Variables
from vamp_jax.datasets import Dataset, spaced
from vamp_jax.errors import UsageError
from vamp_jax.evaluation_table import table
from vamp_jax.likelihoods import Likelihood
from vamp_jax.log_likelihood import ImportanceSampled
from vamp_jax.models import Network
from vamp_jax.progress import Progress
from vamp_jax.random_streams import EVALUATION, stream
from vamp_jax.training import best as best_parameters
from vamp_jax.training.state import init_prior

SPLITS = ("train", "validation", "test")
UNFINISHED = ".unfinished.npz"  # after record_path
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def record_path(workdir: str, split: str, num_samples: int, num_examples: int | None) -> str:
    """Where the result of an evaluation goes, without its extension."""
    some = "" if num_examples is None else f"-{num_examples}examples"
    return os.path.join(workdir, "eval", f"{split}-S{num_samples}{some}")


def is_recorded(
    workdir: str, epochs: int, split: str, num_samples: int, num_examples: int | None
) -> bool:
    """Whether this evaluation has been done of the run as it is after so many epochs."""
    path = record_path(workdir, split, num_samples, num_examples) + ".json"
    return os.path.exists(path) and workdirs.read_json(path).get("epochs") == epochs


def check(split: str, num_samples: int, num_examples: int | None) -> None:
    """Raises a UsageError for a setting that cannot be."""
    config_checks.check_choice("split", split, SPLITS)
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}; it must be at least 1.")
    if num_samples >= 2**31:  # they are counted in 32 bits on the devices
        raise UsageError(f"num_samples is {num_samples}; it must be below 2^31.")
    if num_examples is not None and num_examples < 1:
        raise UsageError(f"num_examples is {num_examples}; it must be at least 1.")


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
      workdir: the folder of the run.
      dataset: of the run's config.
      split: train, validation or test.
      num_samples: S; None takes the config's.
      num_examples: only so many, evenly spaced (some files are sorted by class); None takes all.
      diagnostics: also those of diagnostics.py, over the training split and this one.
    Returns:
      What the JSON file holds. Nats, unless the name says bits.
    Raises:
      UsageError: for anything that a sentence explains, before any work where possible.
    """
    config = workdirs.load_config(workdir)
    num_samples = config.num_samples if num_samples is None else num_samples
    check(split, num_samples, num_examples)
    in_split = len(getattr(dataset, split))
    if num_examples is not None and num_examples > in_split:
        raise UsageError(
            f"num_examples is {num_examples}, but the {split} split has {in_split} examples."
        )
    index = spaced(in_split, num_examples)
    path = record_path(workdir, split, num_samples, num_examples)
    # Two at once would write the same files.
    with workdirs.locked(os.path.dirname(path), "evaluate a copy of the run's folder"):
        _make_folder(os.path.join(workdir, "figures"))
        best = best_parameters.load(workdir, config, dataset)
        autoencoder, variables = best.autoencoder, best.variables
        x = _x(best, dataset, split, config.seed)
        start = {
            "config": config.to_dict(),
            "data_files": dict(dataset.file_hashes),
            "epochs": best.epochs,
            "hardware": hardware(),
            "versions": _versions(),
        }
        rng = stream(config.seed, EVALUATION)
        sampled, seconds = _sample(autoencoder, variables, x, index, num_samples, rng, path, start)
        inspected = {}
        for name in dict.fromkeys(("train", split)) if diagnostics else ():
            part = _x(best, dataset, name, config.seed)
            part = part[spaced(len(part), num_examples)]
            with Progress(f"diagnostics, {name} split", 2 * len(part), unit="step") as progress:
                inspected[name] = inspection.inspect(
                    autoencoder, variables, part, rng, progress.show
                )
        learned = variables["params"]["prior"].get("pseudo_inputs")
        if diagnostics and learned is not None:
            start_of_prior, _ = init_prior(autoencoder, dataset, best.inputs, config.seed)
            inspected["pseudo_inputs"] = inspection.pseudo_inputs(
                learned, start_of_prior["pseudo_inputs"], autoencoder.likelihood.support
            )

        record = start | {
            "split": split,
            "num_examples": len(index),
            "num_examples_in_split": in_split,
            "num_samples": num_samples,
            "best_epoch": best.epoch,
            **summary(sampled, autoencoder.likelihood, dataset.shape),
            "diagnostics": inspected,
            "seconds": seconds,
        }
        _write_npz(path + ".npz", index, sampled)
        model = trained.from_best(config, dataset, best)
        trained.export(model, os.path.join(workdir, trained.MODEL_FILE))
        run_figures.draw(workdir, split, autoencoder, variables, x, sampled, rng)
        workdirs.write_json(path + ".json", record)  # last: its presence says that all is done
        with contextlib.suppress(FileNotFoundError):
            os.remove(path + UNFINISHED)
    print(table(record))
    print(f"Written: {path}.json, {path}.npz, {os.path.join(workdir, 'figures')}/*.png")
    return record


def _sample(
    autoencoder: Autoencoder,
    variables: Variables,
    x: np.ndarray,
    index: np.ndarray,
    num_samples: int,
    rng: jax.Array,
    path: str,
    start: dict[str, Any],
) -> tuple[ImportanceSampled, float]:
    """Estimates, resumed from a partial file if there is one, and the time taken."""
    begun = time.monotonic()
    identity = json.dumps(start | {"code": _code()}, sort_keys=True)
    done, seconds = unfinished.read(path + UNFINISHED, identity)
    keep = unfinished.keeper(path + UNFINISHED, identity, seconds)
    count = len(done.log_likelihood) if done else 0
    if done:
        print(f"An interrupted evaluation goes on after {count} of {len(index)} examples.")
    what = f"log-likelihood, S = {num_samples}"
    with Progress(what, len(index), done=count, unit="example") as progress:

        def report(done: ImportanceSampled) -> None:
            keep(done)
            progress.show(len(done.log_likelihood))

        sampled = log_likelihood.estimate(
            autoencoder,
            variables,
            x[index],
            num_samples=num_samples,
            rng=rng,
            index=index,
            **batch_sizes(autoencoder.network),
            done=done,
            report=report,
        )
    return sampled, seconds + time.monotonic() - begun


def batch_sizes(network: Network) -> dict[str, int]:
    """Batch sizes for `log_likelihood.estimate`, chosen for speed.

    By convolutions on a CPU, few rows stay in its cache (1.4 times as fast), and ten images are a
    minute: more would show no progress.
    """
    if not network.convolutional:
        return {"rows_per_chunk": 1000, "batches_per_dispatch": 10}
    rows = 20 if jax.default_backend() == "cpu" else 1000
    return {"rows_per_chunk": rows, "batches_per_dispatch": 1}


def _x(best: best_parameters.Best, dataset: Dataset, split: str, seed: int) -> np.ndarray:
    """A split's x; training examples that are means are drawn once, by the seed."""
    stored = getattr(dataset, split)
    if split == "train":
        return best.inputs.drawn_once(stored, seed)
    return np.asarray(best.inputs.of(stored))


def summary(
    sampled: ImportanceSampled, likelihood: Likelihood, x_shape: tuple[int, ...]
) -> dict[str, Any]:
    """Means over the examples in nats, with the standard error of the log-likelihood."""
    mean, error = _mean_and_error(sampled.log_likelihood)
    result = {
        "log_likelihood": mean,
        "log_likelihood_standard_error": error,
        "log_likelihood_with_fewer_samples": {
            str(size): dict(zip(("mean", "standard_error"), _mean_and_error(values), strict=True))
            for size, values in sampled.with_fewer_samples.items()
        },
        "elbo": float(sampled.elbo.mean(dtype=np.float64)),
        "reconstruction": float(sampled.reconstruction.mean(dtype=np.float64)),
        "kl": {name: float(kl.mean(dtype=np.float64)) for name, kl in sampled.kl.items()},
        "effective_sample_size": {
            "mean": float(sampled.effective_sample_size.mean(dtype=np.float64)),
            "median": float(np.median(sampled.effective_sample_size)),
            "smallest": float(sampled.effective_sample_size.min()),
        },
    }
    if likelihood.in_bits:
        bits = math.prod(x_shape) * math.log(2.0)
        result["bits_per_dim"] = -result["log_likelihood"] / bits
        result["bits_per_dim_standard_error"] = error and error / bits
    return result


def _mean_and_error(values: np.ndarray) -> tuple[float, float | None]:
    values = values.astype(np.float64)
    # One example has no spread to estimate an error from.
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def _code() -> str:
    """SHA-256 of this package: half an evaluation by other code is not gone on from."""
    digest = hashlib.sha256()
    for path in sorted(pathlib.Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def hardware() -> str:
    """The devices in words: their kind, and how many of them or of cores."""
    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        # Not every system says which of its cores a process may use.
        usable = getattr(os, "sched_getaffinity", None)
        cores = len(usable(0)) if usable else os.cpu_count()
        return f"{platform.machine()} {kind}, {cores} cores"
    return f"{jax.local_device_count()} x {kind}"


def _make_folder(folder: str) -> None:
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be made ({error.strerror}).") from None


def _write_npz(path: str, index: np.ndarray, sampled: ImportanceSampled) -> None:
    partial = path + ".partial"
    with open(partial, "wb") as file:
        np.savez_compressed(
            file,
            example=index,
            log_likelihood=sampled.log_likelihood,
            elbo=sampled.elbo,
            reconstruction=sampled.reconstruction,
            effective_sample_size=sampled.effective_sample_size,
            **{f"kl_{name}": value for name, value in sampled.kl.items()},
        )
    os.replace(partial, path)
