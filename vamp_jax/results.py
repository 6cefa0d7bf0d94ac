"""Results: one JSON a finished run, and the paper's Tables 1 to 4 made from them as markdown.

`python eval.py --record` writes the JSON files, `python run_table.py` the tables. A configuration
goes by the name of its file in configs/ (`vamp_hvae`). Nats; bits/dim where the paper has them.
"""

import json
import math
import os
import re
import statistics
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_collections

from vamp_jax import workdir as workdirs
from vamp_jax.errors import UsageError

Record = dict[str, Any]
Cell = tuple[str, str]  # configuration, data set
PaperConfig = Callable[[str, str], dict[str, Any] | None]  # of a cell; None where there is none


# What the paper reports, and what others got from the authors' code.

DATASETS = {
    "static_mnist": "static MNIST",
    "dynamic_mnist": "dynamic MNIST",
    "omniglot": "OMNIGLOT",
    "caltech101_silhouettes": "Caltech 101",
    "freyfaces": "Frey Faces",
    "histopathology": "Histopathology",
}
IN_BITS = ("freyfaces", "histopathology")  # bits/dim, lower is better; the others: nats

# Table 1, test log-likelihood: a column each, and a row each.
COLUMNS = {
    "vae": "VAE standard",
    "vamp_vae": "VAE Vamp",
    "hvae": "HVAE standard",
    "vamp_hvae": "HVAE Vamp",
    "conv_hvae": "ConvHVAE standard",
    "vamp_conv_hvae": "ConvHVAE Vamp",
    "pixel_hvae": "PixelHVAE standard",
    "vamp_pixel_hvae": "PixelHVAE Vamp",
}
TABLE_1 = {
    "static_mnist": (-88.56, -85.57, -86.05, -83.19, -82.41, -81.09, -80.58, -79.78),
    "dynamic_mnist": (-84.50, -82.38, -82.42, -81.24, -80.40, -79.75, -79.70, -78.45),
    "omniglot": (-108.5, -104.75, -103.52, -101.18, -97.65, -97.56, -90.11, -89.76),
    "caltech101_silhouettes": (
        *(-123.43, -114.55, -112.08, -108.28),
        *(-106.35, -104.22, -85.51, -86.22),
    ),
    "freyfaces": (4.63, 4.57, 4.61, 4.51, 4.49, 4.45, 4.43, 4.38),
    "histopathology": (6.07, 6.04, 5.82, 5.75, 5.59, 5.58, 4.84, 4.82),
}


class Line(NamedTuple):
    """A line of Tables 2 to 4."""

    method: str
    paper: float
    name: str | None = None  # the configuration; None for methods of other papers


TABLES_2_TO_4 = {
    (2, "static_mnist"): (
        Line("VAE (L=1) + NF", -85.10),
        Line("VAE (L=2)", -87.86),
        Line("IWAE (L=2)", -85.32),
        Line("HVAE + SG", -85.89, "hvae"),
        Line("HVAE + MoG", -85.07, "mog_hvae"),
        Line("HVAE + VampPrior data", -85.71, "vamp_data_hvae"),
        Line("HVAE + VampPrior", -83.19, "vamp_hvae"),
        Line("AVB + AC (L=1)", -80.20),
        Line("VLAE", -79.03),
        Line("VAE + IAF", -79.88),
        Line("ConvHVAE + VampPrior", -81.09, "vamp_conv_hvae"),
        Line("PixelHVAE + VampPrior", -79.78, "vamp_pixel_hvae"),
    ),
    (3, "dynamic_mnist"): (
        Line("VAE (L=2) + VGP", -81.32),
        Line("CaGeM-0 (L=2)", -81.60),
        Line("LVAE (L=5)", -81.74),
        Line("HVAE + VampPrior data", -81.71, "vamp_data_hvae"),
        Line("HVAE + VampPrior", -81.24, "vamp_hvae"),
        Line("VLAE", -78.53),
        Line("VAE + IAF", -79.10),
        Line("PixelVAE", -78.96),
        Line("ConvHVAE + VampPrior", -79.78, "vamp_conv_hvae"),
        Line("PixelHVAE + VampPrior", -78.45, "vamp_pixel_hvae"),
    ),
    (4, "omniglot"): (
        Line("VR-max (L=2)", -103.72),
        Line("IWAE (L=2)", -103.38),
        Line("LVAE (L=5)", -102.11),
        Line("HVAE + VampPrior", -101.18, "vamp_hvae"),
        Line("VLAE", -89.83),
        Line("ConvHVAE + VampPrior", -97.56, "vamp_conv_hvae"),
        Line("PixelHVAE + VampPrior", -89.76, "vamp_pixel_hvae"),
    ),
    (4, "caltech101_silhouettes"): (
        Line("IWAE (L=1)", -117.21),
        Line("VR-max (L=1)", -117.10),
        Line("HVAE + VampPrior", -108.28, "vamp_hvae"),
    ),
}


class Figure(NamedTuple):
    """A mean over runs; where one run is all there is, or it is not said, less than that."""

    mean: float
    deviation: float | None = None  # standard deviation over the runs
    runs: int | None = None


# Public reruns of the authors' code, S = 5000, by who ran them.
RERUN_SOURCES = {
    "A": "one group (number of seeds in brackets)",
    "B": "another group (number of seeds not said)",
    "C": "whose, and with how many seeds, is not said",
}
RERUN_BY = {"static_mnist": "A", "dynamic_mnist": "B", "omniglot": "B", "freyfaces": "C"}
RERUNS = {
    ("vae", "static_mnist"): Figure(-88.39, 0.14, 3),
    ("vamp_vae", "static_mnist"): Figure(-85.81, 0.05, 3),
    ("hvae", "static_mnist"): Figure(-85.99, 0.09, 3),
    ("vamp_hvae", "static_mnist"): Figure(-84.88, 0.06, 3),
    ("conv_hvae", "static_mnist"): Figure(-82.66, None, 1),
    ("vamp_conv_hvae", "static_mnist"): Figure(-81.70, None, 1),
    ("pixel_hvae", "static_mnist"): Figure(-80.84, None, 1),
    ("vamp_pixel_hvae", "static_mnist"): Figure(-80.15, None, 1),
    ("vae", "dynamic_mnist"): Figure(-84.45),
    ("vamp_vae", "dynamic_mnist"): Figure(-82.43),
    ("hvae", "dynamic_mnist"): Figure(-82.39),
    ("vamp_hvae", "dynamic_mnist"): Figure(-81.56),
    ("conv_hvae", "dynamic_mnist"): Figure(-80.52),
    ("vamp_conv_hvae", "dynamic_mnist"): Figure(-79.67),
    ("vae", "omniglot"): Figure(-108.34),
    ("vamp_vae", "omniglot"): Figure(-106.78),
    ("hvae", "omniglot"): Figure(-104.92),
    ("vamp_hvae", "omniglot"): Figure(-103.30),
    ("conv_hvae", "omniglot"): Figure(-98.12),
    ("vamp_conv_hvae", "omniglot"): Figure(-97.30),
    ("vae", "freyfaces"): Figure(4.635),
    ("vamp_vae", "freyfaces"): Figure(4.536),
}


def cells(table: int) -> list[Cell]:
    """The cells of one of the paper's tables that a configuration of ours can fill."""
    if table == 1:
        return [(name, dataset) for dataset in TABLE_1 for name in COLUMNS]
    return [
        (line.name, dataset)
        for (number, dataset), lines in TABLES_2_TO_4.items()
        for line in lines
        if number == table and line.name is not None
    ]


# Records.

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
    """The file of configs/ that has this model and prior, without .py."""
    prefix = "" if config["prior"] == "standard" else f"{config['prior']}_"
    return prefix + config["model"]


def record(workdir: str, evaluated: Record, folder: str = "results") -> str:
    """Writes the result of a run, whole or not at all; another evaluation of it is another file.

    Args:
      workdir: the folder of the run.
      evaluated: what evaluation.evaluate_run returned, or wrote to eval/*.json.
      folder: where results go.
    Returns:
      The path of the file.
    Raises:
      UsageError: when the run has been trained further since, the evaluation lacks a field, the
        file holds a finished run and this one is not, or the folder cannot be written.
    """
    from vamp_jax.training import loop  # late: the rest of this module does without JAX

    rows = workdirs.read_metrics(workdir)
    made_here = {"finished", "active_units", "diagnostics", "commit"}
    if lacking := sorted(FIELDS.keys() - evaluated.keys() - made_here):
        raise UsageError(
            f"The evaluation in {workdir}/eval lacks {', '.join(lacking)}: remove it and evaluate "
            f"again with eval.py --workdir={workdir}."
        )
    if len(rows) != evaluated["epochs"]:
        raise UsageError(
            f"{workdir} was evaluated after {evaluated['epochs']} epochs and has {len(rows)} now: "
            f"evaluate it again with eval.py --workdir={workdir}."
        )
    config = ml_collections.ConfigDict(evaluated["config"])
    finished = loop.should_stop(evaluated["epochs"], evaluated["best_epoch"], config)
    diagnostics = _without_lists(evaluated.get("diagnostics", {}))
    result = evaluated | {
        "finished": bool(finished),
        "active_units": diagnostics.get(evaluated["split"], {}).get("active_units", {}),
        "diagnostics": diagnostics,
        "seconds": {
            "training": math.fsum(row["seconds"] for row in rows),
            "evaluation": evaluated["seconds"],
        },
        "commit": " then ".join(workdirs.commits(workdir)) or None,
    }
    key = workdirs.digest(
        [result[name] for name in ("config", "split", "num_samples", "num_examples")]
    )
    name = f"{config_name(config)}-{config.dataset}-seed{config.seed}-{key}.json"
    path = os.path.join(folder, name)
    if not finished and os.path.exists(path) and _read(path)["finished"]:
        raise UsageError(
            f"{path} holds a finished run of this config, and {workdir} stopped after "
            f"{result['epochs']} epochs: go on with it (train.py), or remove that file."
        )
    try:
        os.makedirs(folder, exist_ok=True)
        workdirs.write_json(path, result)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _without_lists(values: dict[str, Any]) -> dict[str, Any]:
    """Without the figures a unit or a component each, which stay in the run's folder."""
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
    try:
        with open(path, encoding="utf-8") as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}): restore or remove it.") from None
    problem = _problem(values)
    if problem:
        raise UsageError(f"{path} is not the record of a run ({problem}): restore or remove it.")
    return values


def _problem(values: Any) -> str | None:
    """What keeps a JSON value from being a record."""
    if not isinstance(values, dict):
        return "it is no JSON object"
    fields = [(values, name, kind) for name, kind in FIELDS.items()]
    fields += [(values.get("config"), name, str) for name in ("model", "prior", "dataset")]
    fields += [(values.get("config"), "seed", int)]
    fields += [(values.get("seconds"), name, _NUMBER) for name in ("training", "evaluation")]
    if isinstance(values.get("config"), dict) and values["config"].get("dataset") in IN_BITS:
        fields += [(values, "bits_per_dim", _NUMBER)]
    for where, name, kind in fields:
        if name not in where:
            return f"{name} is missing"
        value = where[name]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            return f"{name} is {json.dumps(value)[:40]}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}"
    return None


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
        held, absent = record["config"], "absent"
        found += [
            f"{field} {held.get(field, absent)} instead of {paper_config.get(field, absent)}"
            for field in workdirs.differing(held, paper_config)
            if field not in ("seed", "num_samples")
        ]
        if record["num_samples"] != paper_config["num_samples"]:
            found.append(f"S {record['num_samples']} instead of {paper_config['num_samples']}")
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


def summarise(records: Iterable[Record]) -> Figure:
    """Mean and standard deviation over runs, in the unit of the paper's tables."""
    values = [
        values["bits_per_dim" if values["config"]["dataset"] in IN_BITS else "log_likelihood"]
        for values in records
    ]
    deviation = statistics.stdev(values) if len(values) > 1 else None
    return Figure(statistics.fmean(values), deviation, len(values))


# Markdown.

WORDS = "data source method config hardware commit".split() + ["active units", "what differs"]

HEAD = """\
# Results

Made by `python run_table.py` from the JSON files in this folder, one a run; not to be edited.

Test log-likelihood in nats (higher is better), for Frey Faces and Histopathology in bits per
dimension (lower is better), by importance sampling with S = 5000 on the whole test set.

* **paper**: Tomczak & Welling, AISTATS 2018.
* **reruns**: public reruns of the authors' code, S = 5000.
{reruns}
* **ours**: full runs of the paper's settings: `configs/` as they stand, trained until they stop by
  themselves, with the best validation epoch. Nothing else is in these cells.

`-85.81 ± 0.05 (3)` is the mean and the standard deviation over 3 seeds. How exact one run's figure
is for so many test examples is its standard error, in the list of runs below. The commit there is
that of the code that trained the run; of runs older than that note (`code.json` in their folders),
of the code that recorded them. The mutual information in records older than it is a noisier
estimate than that of today, which never exceeds ln N.
"""


def report(records: dict[str, Record], paper_config: PaperConfig) -> str:
    """The markdown of everything: the paper's tables, the runs in them, and the other runs."""
    full = full_runs(records, paper_config)
    ours = {cell: summarise(seeds.values()) for cell, seeds in full.items()}
    others = [
        (values, "; ".join(found))
        for values in records.values()
        if (found := differences(values, paper_config(*cell_of(values))))
    ]
    reruns = "\n".join(f"  {letter}: {source}." for letter, source in RERUN_SOURCES.items())
    parts = [HEAD.format(reruns=reruns), "## Table 1: models and priors", _table_1(ours)]
    for (number, dataset), lines in TABLES_2_TO_4.items():
        parts += [
            f"## Table {number}: {DATASETS[dataset]}, with other methods",
            _table_of_methods(dataset, lines, ours),
        ]
    parts += ["## To be explained", _worse(ours)]
    parts += [
        "## Runs in the tables",
        _runs([(values, None) for seeds in full.values() for values in seeds.values()]),
        "## Short or changed runs",
        "These are in no cell above; the last column says why.\n\n" + _runs(others),
    ]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def write_report(folder: str, paper_config: PaperConfig) -> str:
    """Makes README.md of a folder of records anew; returns its path."""
    text = report(read(folder), paper_config)
    path = os.path.join(folder, "README.md")
    try:
        os.makedirs(folder, exist_ok=True)
        partial = f"{path}.{os.getpid()}.partial"  # another process may be making the same
        with open(partial, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        os.replace(partial, path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _table_1(ours: dict[Cell, Figure]) -> str:
    rows = []
    for dataset, paper in TABLE_1.items():
        title = DATASETS[dataset] + (" (bits/dim)" if dataset in IN_BITS else "")
        reruns = f"reruns {RERUN_BY.get(dataset, '')}".strip()
        rows += [
            [title, "paper", *(f"{value:.2f}" for value in paper)],
            ["", reruns, *(_shown(RERUNS.get((name, dataset)), dataset) for name in COLUMNS)],
            ["", "**ours**", *(_shown(ours.get((name, dataset)), dataset) for name in COLUMNS)],
        ]
    return _markdown(["data", "source", *COLUMNS.values()], rows)


def _table_of_methods(dataset: str, lines: tuple[Line, ...], ours: dict[Cell, Figure]) -> str:
    rows = [
        [
            line.method,
            f"{line.paper:.2f}",
            _shown(RERUNS.get((line.name, dataset)), dataset),
            _shown(ours.get((line.name, dataset)), dataset),
        ]
        for line in lines
    ]
    reruns = f"reruns {RERUN_BY.get(dataset, '')}".strip()
    return _markdown(["method", "paper", reruns, "**ours**"], rows)


def _worse(ours: dict[Cell, Figure]) -> str:
    """The cells that are worse than both the paper's figure and the reruns', by more than noise."""
    paper: dict[Cell, list[float]] = {}
    for dataset, values in TABLE_1.items():
        for name, value in zip(COLUMNS, values, strict=True):
            paper[name, dataset] = [value]
    for (_, dataset), lines in TABLES_2_TO_4.items():
        for line in lines:
            if line.name is not None:
                paper.setdefault((line.name, dataset), []).append(line.paper)
    found = []
    for (name, dataset), figure in ours.items():
        others = paper[name, dataset] + [
            rerun.mean for cell, rerun in RERUNS.items() if cell == (name, dataset)
        ]
        in_bits = dataset in IN_BITS
        behind = figure.mean - max(others) if in_bits else min(others) - figure.mean
        if behind > (0.05 if in_bits else 0.5):
            unit = "bits/dim" if in_bits else "nats"
            found.append(f"* `{name}` on {DATASETS[dataset]}: by {behind:.2f} {unit}.")
    says = "Cells of ours more than 0.5 nats or 0.05 bits/dim worse than the paper and all reruns: "
    if not found:
        return says + "none."
    known = "What is known of them is in [README.md](../README.md#numbers-to-expect)."
    return "\n\n".join([says, "\n".join(sorted(found)), known])


def _runs(runs: list[tuple[Record, str | None]]) -> str:
    """A line a run; the last column, where given, says what differs from the paper's run."""
    if not runs:
        return "None."
    with_differences = any(differing is not None for _, differing in runs)
    header = ["config", "data", "seed", "log-likelihood ± standard error", "bits/dim", "ELBO"]
    header += ["epochs (best)", "active units", "hours", "hardware", "commit"]
    rows = []
    for values, differing in runs:
        name, dataset = cell_of(values)
        error = values["log_likelihood_standard_error"]
        bits = values.get("bits_per_dim")
        row = [
            f"`{name}`",
            dataset,
            str(values["config"]["seed"]),
            f"{values['log_likelihood']:.2f}" + ("" if error is None else f" ± {error:.2f}"),
            "" if bits is None else f"{bits:.3f}",
            f"{values['elbo']:.2f}",
            f"{values['epochs']} ({values['best_epoch']})",
            ", ".join(
                f"{layer}: {count}" for layer, count in sorted(values["active_units"].items())
            ),
            f"{(values['seconds']['training'] + values['seconds']['evaluation']) / 3600:.2f}",
            values["hardware"],
            re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", values["commit"] or ""),
        ]
        rows.append((row + [differing or ""]) if with_differences else row)
    if with_differences:
        header.append("what differs")
    rows.sort(key=lambda row: (list(DATASETS).index(row[1]) if row[1] in DATASETS else 9, row[0]))
    return _markdown(header, rows)


def _shown(figure: Figure | None, dataset: str) -> str:
    if figure is None:
        return ""
    digits = 3 if dataset in IN_BITS else 2
    deviation = "" if figure.deviation is None else f" ± {figure.deviation:.{digits}f}"
    runs = "" if figure.runs is None else f" ({figure.runs})"
    return f"{figure.mean:.{digits}f}{deviation}{runs}"


def _markdown(header: list[str], rows: list[list[str]]) -> str:
    """A table; columns of words are set to the left, the others to the right."""
    rows = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: list[str]) -> str:
        padded = [
            cell.ljust(width) if header[i] in WORDS else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join(padded) + " |"

    rule = [
        "-" * width if header[i] in WORDS else "-" * (width - 1) + ":"
        for i, width in enumerate(widths)
    ]
    return "\n".join([line(header), line(rule), *map(line, rows)])
