"""Records: one JSON file for each evaluated run, and which of them belong in the paper's tables."""

import glob
import json
import math
import os
import statistics
from collections.abc import Callable, Iterable
from typing import Any

import ml_collections

from vamp_jax import datasets, disk
from vamp_jax.config_fields import as_of_today
from vamp_jax.errors import UsageError
from vamp_jax.paper.numbers import IN_BITS, LATER_CHOICES, PREFIXES, Cell, Estimate, cells
from vamp_jax.run.folder import differing
from vamp_jax.run.metrics_log import last_epoch, read_metrics
from vamp_jax.run.provenance import commits
from vamp_jax.run.stopping import should_stop

Record = dict[str, Any]
PaperConfig = Callable[[str, str], dict[str, Any] | None]  # of a cell; None where there is none


# What a record keeps of each evaluation by annealed importance sampling.
OF_ANNEALED = (
    *("start", "num_distributions", "num_chains", "num_examples", "log_likelihood"),
    *("log_likelihood_standard_error", "chains_standard_error", "importance_sampled", "simulated"),
)

_NUMBER = (int, float)
_MAYBE = (*_NUMBER, type(None))
FIELDS: dict[str, Any] = {
    "config": dict,
    "data_files": dict,
    "split": str,
    "num_examples": int,
    "num_examples_in_split": int,
    "num_samples": int,
    "epochs": int,
    "best_epoch": int,
    "finished": bool,
    "elbo": _NUMBER,
    "log_likelihood": _NUMBER,
    "log_likelihood_standard_error": _MAYBE,
    "active_units": dict,
    "diagnostics": dict,
    "seconds": dict,
    "hardware": str,
    "versions": dict,
    "commit": (str, type(None)),
}


def config_name(config: dict[str, Any]) -> str:
    """Names a configuration as its file in configs/ is named, without .py.

    By prior and model, and by those of the later choices that are not the paper's.
    """
    prior = PREFIXES.get(config["prior"], f"{config['prior']}_")
    later = [
        config[field]
        for field, papers in LATER_CHOICES.items()
        if config.get(field, papers) != papers
    ]
    return "-".join([prior + config["model"], *later])


def save_record(workdir: str, evaluated: Record, folder: str = "results") -> str:
    """Writes the result of a run, whole or not at all; another evaluation of it is another file.

    What `eval.py --ais` found after as many epochs on the same split goes with it, as `annealed`.

    Args:
      workdir: the folder of the run.
      evaluated: what evaluate.evaluate_run returned, or wrote to eval/*.json.
      folder: where results go.
    Returns:
      The path of the file.
    Raises:
      UsageError: when the run has been trained further since, the evaluation lacks a field, the
        file holds a finished run and this one is not, or the folder cannot be written.
    """
    rows = read_metrics(workdir)
    made_here = {"finished", "active_units", "diagnostics", "commit"}
    if lacking := sorted(FIELDS.keys() - evaluated.keys() - made_here):
        raise UsageError(
            f"The evaluation in {workdir}/eval lacks {', '.join(lacking)}: remove it and evaluate "
            f"again with eval.py --workdir={workdir}."
        )
    if (done := last_epoch(rows)) != evaluated["epochs"]:
        raise UsageError(
            f"{workdir} was evaluated after {evaluated['epochs']} epochs and has {done} now: "
            f"evaluate it again with eval.py --workdir={workdir}."
        )
    config = ml_collections.ConfigDict(evaluated["config"])
    finished = should_stop(evaluated["epochs"], evaluated["best_epoch"], config)
    diagnostics = _without_lists(evaluated.get("diagnostics", {}))
    result = evaluated | {
        "finished": bool(finished),
        "active_units": diagnostics.get(evaluated["split"], {}).get("active_units", {}),
        "diagnostics": diagnostics,
        "seconds": {
            "training": math.fsum(row["seconds"] for row in rows),
            "evaluation": evaluated["seconds"],
        },
        "commit": " then ".join(commits(workdir)) or None,
    }
    if annealed := _annealed(workdir, evaluated):
        result["annealed"] = annealed
    key = disk.digest_of_values(
        [result[name] for name in ("config", "split", "num_samples", "num_examples")]
    )
    of_data = datasets.short_name(config.dataset)
    named = config_name(config).replace(":", ".")  # of parts of one's own; not every disk takes it
    name = f"{named}-{of_data}-seed{config.seed}-{key}.json"
    path = os.path.join(folder, name)
    if not finished and os.path.exists(path) and _read(path)["finished"]:
        raise UsageError(
            f"{path} holds a finished run of this config, and {workdir} stopped after "
            f"{result['epochs']} epochs: go on with it (train.py), or remove that file."
        )
    try:
        os.makedirs(folder, exist_ok=True)
        disk.write_json(path, result)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _annealed(workdir: str, evaluated: Record) -> list[Record]:
    """The evaluations by annealed importance sampling of the same split and number of epochs."""
    pattern = os.path.join(glob.escape(workdir), "eval", f"ais-{evaluated['split']}-*.json")
    found = [disk.read_json(path) for path in sorted(glob.glob(pattern))]
    return [
        {name: values.get(name) for name in OF_ANNEALED}
        for values in found
        if values.get("epochs") == evaluated["epochs"]
    ]


def _without_lists(values: dict[str, Any]) -> dict[str, Any]:
    """Drops the lists (a value for each unit or component), which stay in the run's folder."""
    kept = {}
    for name, value in values.items():
        value = _without_lists(value) if isinstance(value, dict) else value
        if value != {} and not isinstance(value, list):
            kept[name] = value
    return kept


def read(folder: str) -> dict[str, Record]:
    """All records of a folder, by file name in alphabetical order; none if there is no folder.

    Raises:
      UsageError: naming the first file that is not a record.
    """
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"{folder} cannot be read: {reason}.") from None
    return {name: _read(os.path.join(folder, name)) for name in names if name.endswith(".json")}


def _read(path: str) -> Record:
    values = disk.read_json(path, "restore or remove it")
    problem = _problem(values)
    if problem:
        raise UsageError(f"{path} is not the record of a run ({problem}): restore or remove it.")
    return values


def _problem(values: Any) -> str | None:
    """What keeps a JSON value from being a record."""
    fields = [(values, name, kind) for name, kind in FIELDS.items()]
    fields += [(values.get("config"), name, str) for name in ("model", "prior", "dataset")]
    fields += [(values.get("config"), "seed", int)]
    fields += [(values.get("seconds"), name, _NUMBER) for name in ("training", "evaluation")]
    if isinstance(values.get("config"), dict) and values["config"].get("dataset") in IN_BITS:
        fields += [(values, "bits_per_dim", _NUMBER)]
    annealed = values.get("annealed", [])
    if not isinstance(annealed, list) or not all(isinstance(one, dict) for one in annealed):
        return "annealed is no list of evaluations"
    for one in annealed:
        fields += [(one, "num_examples", int), (one, "importance_sampled", (dict, type(None)))]
        if isinstance(beside := one.get("importance_sampled"), dict):
            fields += [(beside, "difference", _NUMBER)]
            fields += [(beside, "difference_standard_error", _MAYBE)]
    for where, name, kind in fields:
        if name not in where:
            return f"{name} is missing"
        value = where[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"{name} is {json.dumps(value)[:40]}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}"
    return None


def of_images(runs: dict[str, Record]) -> dict[str, Record]:
    """The runs but for those of sequences, which have a table of their own."""
    return {file: record for file, record in runs.items() if "per_step" not in record}


def cell_of(record: Record) -> Cell:
    """The configuration and the data set of a record."""
    return config_name(record["config"]), record["config"]["dataset"]


def differences(record: Record, paper_config: dict[str, Any] | None) -> list[str]:
    """What keeps a run out of the paper's tables: nothing, if it followed the paper in full."""
    name, dataset = cell_of(record)
    found = []
    if all((name, dataset) not in cells(table) for table in (1, 2, 3, 4)):
        found.append("no cell in the paper's tables")
    if paper_config is not None:
        # num_samples of the config is only what evaluation takes if not told otherwise.
        held, absent = as_of_today(record["config"]), "absent"
        found += [
            f"{field} {held.get(field, absent)} instead of {paper_config.get(field, absent)}"
            for field in differing(held, paper_config)
            if field not in ("seed", "num_samples")
        ]
        if record["num_samples"] != paper_config["num_samples"]:
            found.append(f"S {record['num_samples']} instead of {paper_config['num_samples']}")
    return found + shortfalls(record)


def shortfalls(record: Record) -> list[str]:
    """What keeps a run from being a full one: trained to its end, evaluated on the test set."""
    found = []
    if record["split"] != "test":
        found.append(f"{record['split']} split")
    if record["num_examples"] != record["num_examples_in_split"]:
        found.append(f"{record['num_examples']} of {record['num_examples_in_split']} examples")
    if not record["finished"]:
        found.append("training not finished")
    return found


def full_runs(
    records: dict[str, Record], paper_config: PaperConfig
) -> dict[Cell, dict[int, Record]]:
    """The runs that belong in the paper's tables: by cell, then by seed.

    Raises:
      UsageError: when two are the same run.
    """
    files: dict[tuple[Cell, int], str] = {}
    result: dict[Cell, dict[int, Record]] = {}
    for file, values in records.items():
        cell, seed = cell_of(values), values["config"]["seed"]
        if differences(values, paper_config(*cell)):
            continue
        other = files.setdefault((cell, seed), file)
        if other != file:
            raise UsageError(f"{other} and {file} are results of the same run: remove one.")
        result.setdefault(cell, {})[seed] = values
    return {cell: dict(sorted(seeds.items())) for cell, seeds in result.items()}


def summarise(records: Iterable[Record]) -> Estimate:
    """Mean and standard deviation over runs, in the unit of the paper's tables."""
    values = [
        values["bits_per_dim" if values["config"]["dataset"] in IN_BITS else "log_likelihood"]
        for values in records
    ]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Estimate(statistics.fmean(values), deviation, len(values))
