"""Runs of the paper's tables that were never trained: evaluations and logs as they are on disk."""

import json
import os
from pathlib import Path

from vamp_jax.paper import numbers, records, sweep
from vamp_jax.paper.tables import report
from vamp_jax.run.metrics_log import METRICS


def evaluated(name="vamp_hvae", dataset="static_mnist", seed=0, value=-84.0, **changes):
    """What evaluation.evaluate_run returns of a full run: 60 epochs after its best."""
    config = sweep.paper_config(name, dataset) | {"seed": seed}
    config |= changes.pop("config", {})
    result = {
        "config": config,
        "data_files": {"file": "0123"},
        "split": "test",
        "num_examples": 10000,
        "num_examples_in_split": 10000,
        "num_samples": 5000,
        "best_epoch": 150,
        "epochs": 200,
        "log_likelihood": value,
        "log_likelihood_standard_error": 0.23,
        "elbo": value - 3,
        "diagnostics": {
            "train": {"active_units": {"z1": 1, "z2": 2}},
            "test": {"active_units": {"z1": 40, "z2": 21}, "unit_kl": {"z1": [1.0], "z2": [2.0]}},
        },
        "seconds": 1800.0,
        "hardware": "1 x TPU",
        "versions": {"jax": "0.10.2"},
    }
    if dataset in numbers.IN_BITS:
        result["bits_per_dim"] = value
    return result | changes


def write_metrics(workdir, epochs=200):
    os.makedirs(workdir, exist_ok=True)
    row = dict.fromkeys(METRICS, 9.0)
    rows = [json.dumps({"epoch": i + 1} | row) + "\n" for i in range(epochs)]
    Path(workdir, "metrics.jsonl").write_text("".join(rows))


def add(folder, *arguments, **settings):
    """Records a run in folder/results; returns the path."""
    result = evaluated(*arguments, **settings)
    write_metrics(folder / "run", result["epochs"])
    return records.save_record(str(folder / "run"), result, str(folder / "results"))


def report_of(folder):
    return report(records.read(str(folder / "results")), sweep.paper_config)


def section(text, title):
    return next(part for part in text.split("\n## ") if part.startswith(title))


def row_of(text, *beginnings):
    """The cells of the row that follows the row(s) that begin so."""
    lines = iter(text.splitlines())
    for beginning in beginnings:
        line = next(line for line in lines if line.replace(" ", "").startswith(beginning))
    return [cell.strip() for cell in line.strip("|").split("|")]
