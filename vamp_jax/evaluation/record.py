"""The record of an evaluation on disk: where it lies, and what is in it. Without JAX."""

from __future__ import annotations

import math
import os
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np

from vamp_jax import disk
from vamp_jax.errors import UsageError, check_choice

if TYPE_CHECKING:
    from vamp_jax.likelihoods import Likelihood
    from vamp_jax.log_likelihood import ImportanceSampled
    from vamp_jax.particle_filter import Filtered

# What to do about a record that cannot be read: nothing is lost but an evaluation.
REMOVE = "remove it, and give the same command again: the checkpoints are good"
UNFINISHED = ".unfinished.npz"  # after record_path; there until the pictures are drawn
SPLITS = ("train", "validation", "test")


def record_path(workdir: str, split: str, num_samples: int, num_examples: int | None) -> str:
    """Where the result of an evaluation goes, without its extension."""
    some = "" if num_examples is None else f"-{num_examples}examples"
    return os.path.join(workdir, "eval", f"{split}-S{num_samples}{some}")


def is_recorded(
    workdir: str, epochs: int, split: str, num_samples: int, num_examples: int | None
) -> bool:
    """Whether the run has been evaluated so after this number of epochs, with its pictures."""
    path = record_path(workdir, split, num_samples, num_examples)
    if not os.path.exists(path + ".json") or os.path.exists(path + UNFINISHED):
        return False
    return disk.read_json(path + ".json", REMOVE).get("epochs") == epochs


def check(split: str, num_samples: int, num_examples: int | None) -> None:
    """Raises a UsageError for an invalid setting."""
    check_choice("split", split, SPLITS)
    if num_samples < 1:
        raise UsageError(f"num_samples is {num_samples}; it must be at least 1.")
    if num_samples >= 2**31:  # they are counted in 32 bits on the devices
        raise UsageError(f"num_samples is {num_samples}; it must be below 2^31.")
    if num_examples is not None and num_examples < 1:
        raise UsageError(f"num_examples is {num_examples}; it must be at least 1.")


def summary(
    sampled: ImportanceSampled,
    likelihood: Likelihood,
    x_shape: tuple[int, ...],
    lengths: np.ndarray | None = None,
) -> dict[str, Any]:
    """Means over the examples in nats, with the standard error of the log-likelihood.

    Of sequences of these lengths, [N], also `per_step`: sums over all examples, divided by the sum
    of the lengths.
    """
    mean, error = mean_and_error(sampled.log_likelihood)
    result = {
        "log_likelihood": mean,
        "log_likelihood_standard_error": error,
        "log_likelihood_with_fewer_samples": {
            str(size): dict(zip(("mean", "standard_error"), mean_and_error(values), strict=True))
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
    if lengths is not None:
        result["per_step"] = _per_step(sampled, lengths)
    return result


def _per_step(sampled: ImportanceSampled, lengths: np.ndarray) -> dict[str, Any]:
    """Nats a step, sum_n L_n / sum_n T_n, and the standard error of that ratio over examples."""
    steps = lengths.astype(np.float64)
    ratio, error = _ratio_and_error(sampled.log_likelihood, steps)
    return {
        "num_steps": int(lengths.sum()),
        "log_likelihood": ratio,
        "log_likelihood_standard_error": error,
        "log_likelihood_with_fewer_samples": {
            str(size): float(few.sum(dtype=np.float64) / steps.sum())
            for size, few in sampled.with_fewer_samples.items()
        },
        "elbo": float(sampled.elbo.sum(dtype=np.float64) / steps.sum()),
    }


def filter_summary(
    filtered: Filtered | None, num_particles: int, lengths: np.ndarray | None
) -> dict[str, Any]:
    """What a record says of a particle filter, nats a sequence and a step; nothing without one."""
    if filtered is None or lengths is None:
        return {}
    mean, error = mean_and_error(filtered.log_likelihood)
    of_step, of_step_error = _ratio_and_error(filtered.log_likelihood, lengths.astype(np.float64))
    return {
        "particle_filter": {
            "num_particles": num_particles,
            "log_likelihood": mean,
            "log_likelihood_standard_error": error,
            "per_step": {
                "log_likelihood": of_step,
                "log_likelihood_standard_error": of_step_error,
            },
            "resamplings": float(filtered.resamplings.mean(dtype=np.float64)),
        }
    }


def _ratio_and_error(values: np.ndarray, steps: np.ndarray) -> tuple[float, float | None]:
    """sum_n L_n / sum_n T_n, and the standard error of that ratio; None of one example."""
    values = values.astype(np.float64)
    ratio = values.sum() / steps.sum()
    if len(values) == 1:
        return float(ratio), None
    spread = (values - ratio * steps).std(ddof=1)
    return float(ratio), float(spread / math.sqrt(len(values)) / steps.mean())


def mean_and_error(values: np.ndarray) -> tuple[float, float | None]:
    """The mean over the examples [N], and its standard error; None of one example."""
    values = values.astype(np.float64)
    # One example has no spread to estimate an error from.
    error = float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None
    return float(values.mean()), error


def read_log_likelihood(path: str, workdir: str) -> np.ndarray:
    """The log-likelihood of each example, [N], as `write_npz` has written it for a run.

    Raises:
      UsageError: when the file is not there, or damaged.
    """
    try:
        with disk.open_file(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = arrays["log_likelihood"]
        if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
            raise ValueError("log_likelihood is not a finite number for each example")
    # Not what they say, which may be advice to unpickle it.
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        raise UsageError(
            f"{path} cannot be read: remove it and its .json, and run eval.py --workdir={workdir} "
            "again."
        ) from None
    return found


def write_npz(
    path: str, index: np.ndarray, sampled: ImportanceSampled, filtered: Filtered | None = None
) -> None:
    """Writes the values of each example, and its index in the split, as an .npz file."""
    by_filter = {} if filtered is None else {"filtered_log_likelihood": filtered.log_likelihood}
    with disk.whole_file(path, "wb") as file:
        np.savez_compressed(
            file,
            example=index,
            log_likelihood=sampled.log_likelihood,
            elbo=sampled.elbo,
            reconstruction=sampled.reconstruction,
            effective_sample_size=sampled.effective_sample_size,
            **{f"kl_{name}": value for name, value in sampled.kl.items()},
            **by_filter,
        )
