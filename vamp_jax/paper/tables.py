"""The report of all records as markdown: the paper's Tables 1 to 4 beside ours, and every run."""

import os
import re
import statistics

from vamp_jax import disk
from vamp_jax.errors import UsageError
from vamp_jax.paper import beyond, cheaper, records
from vamp_jax.paper.markdown import shown, table
from vamp_jax.paper.numbers import (
    COLUMNS,
    DATASETS,
    IN_BITS,
    RERUN_BY,
    RERUN_SOURCES,
    RERUNS,
    TABLE_1,
    TABLES_2_TO_4,
    Cell,
    Estimate,
    Line,
)
from vamp_jax.paper.records import (
    PaperConfig,
    Record,
    cell_of,
    differences,
    full_runs,
    summarise,
)

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


BEYOND = """\
Full runs of what the paper does not have, evaluated as its own; *reruns* are those above, or what
the same groups give for models of their own (`flow_*` has a RealNVP prior, `exemplar_*` 25,000
exemplars). S = 100 and 1000, the ELBO and the standard error are those of the first seed, *AIS less
this* is what annealed importance sampling finds more than S = 5000 does on the same images (their
number), with the standard error over them. *In minutes*: trained as `configs/fast_*.py` are, which
the paper's models beside are, too; the paper's figures and the reruns' are of its training. Beside
a posterior `iaf`, `planar` or `sylvester` a VampPrior is the mixture of the bases, without flow."""


def report(runs: dict[str, Record], paper_config: PaperConfig) -> str:
    """The markdown of everything: the paper's tables, the runs in them, and the other runs."""
    of_sequences = [values for values in runs.values() if "per_step" in values]
    runs = records.of_images(runs)
    full = full_runs(runs, paper_config)
    ours = {cell: summarise(seeds.values()) for cell, seeds in full.items()}
    others = [
        (values, "; ".join(found))
        for values in runs.values()
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
    if of_shares := cheaper.shares(runs, paper_config):
        says = (
            "With `components_per_step`; all else is the paper's. In the tables above are those of "
            "`all`. What a step costs is in [docs/speed.md](../docs/speed.md)."
        )
        parts += ["## Pseudo-inputs that take turns", says, _shares(of_shares)]
    if of_fast := cheaper.fast(runs, paper_config):
        says = (
            "Those of `configs/fast_*.py`, trained in another way than the paper's. How long they "
            "take is in [docs/speed.md](../docs/speed.md)."
        )
        parts += ["## In minutes", says, _fast(of_fast, full)]
    if of_others := beyond.runs_beyond(runs):
        parts += ["## Beyond the paper", BEYOND, beyond.beyond_table(of_others)]
    if of_sequences:
        says = (
            "The paper has none. Nats a step are the sum over the split, divided by all its steps."
        )
        parts += ["## Sequences", says, _sequences(of_sequences)]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def write_report(folder: str, paper_config: PaperConfig) -> str:
    """Makes README.md of a folder of records anew; returns its path."""
    text = report(records.read(folder), paper_config)
    path = os.path.join(folder, "README.md")
    try:
        os.makedirs(folder, exist_ok=True)
        with disk.whole_file(path, shared=True) as file:
            file.write(text.encode(errors="replace").decode())
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}.") from None
    return path


def _table_1(ours: dict[Cell, Estimate]) -> str:
    rows = []
    for dataset, paper in TABLE_1.items():
        title = DATASETS[dataset] + (" (bits/dim)" if dataset in IN_BITS else "")
        reruns = f"reruns {RERUN_BY.get(dataset, '')}".strip()
        rows += [
            [title, "paper", *(f"{value:.2f}" for value in paper)],
            ["", reruns, *(shown(RERUNS.get((name, dataset)), dataset) for name in COLUMNS)],
            ["", "**ours**", *(shown(ours.get((name, dataset)), dataset) for name in COLUMNS)],
        ]
    return table(["data", "source", *COLUMNS.values()], rows)


def _table_of_methods(dataset: str, lines: tuple[Line, ...], ours: dict[Cell, Estimate]) -> str:
    notes = list(dict.fromkeys(line.note for line in lines if line.note))

    def method(line):
        return line.method + (f" [{notes.index(line.note) + 1}]" if line.note else "")

    rows = [
        [
            method(line),
            f"{line.paper:.2f}",
            shown(RERUNS.get((line.name, dataset)), dataset),
            shown(ours.get((line.name, dataset)), dataset),
        ]
        for line in lines
    ]
    reruns = f"reruns {RERUN_BY.get(dataset, '')}".strip()
    footnotes = [f"[{number}] {note}" for number, note in enumerate(notes, 1)]
    return "\n\n".join([table(["method", "paper", reruns, "**ours**"], rows), *footnotes])


def _worse(ours: dict[Cell, Estimate]) -> str:
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
    known = "What is known of them is in [docs/caltech.md](../docs/caltech.md)."
    return "\n\n".join([says.rstrip(), "\n".join(sorted(found)), known])


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
    return table(header, rows)


def _shares(found: cheaper.Shares) -> str:
    """A line a cell, a column for each number of pseudo-inputs a step."""
    counts = sorted({count for by_count in found.values() for count in by_count if count})[::-1]
    rows = [
        [f"`{name}`", dataset]
        + [
            shown(summarise(by_count[count]) if count in by_count else None, dataset)
            for count in (0, *counts)
        ]
        for (name, dataset), by_count in found.items()
    ]
    return table(["config", "data", "all", *(f"{count} a step" for count in counts)], rows)


def _fast(found: dict[Cell, list[Record]], full: dict[Cell, dict[int, Record]]) -> str:
    """A line a cell, beside the paper's way."""

    def both(runs, dataset):
        epochs = f"{statistics.fmean(run['epochs'] for run in runs):.0f}" if runs else ""
        return [shown(summarise(runs) if runs else None, dataset), epochs]

    rows = [
        [f"`{cheaper.FAST}{name}`", dataset]
        + both(runs, dataset)
        + both(list(full.get((name, dataset), {}).values()), dataset)
        for (name, dataset), runs in found.items()
    ]
    header = ["config", "data", "log-likelihood", "epochs", "the paper's way", "its epochs"]
    return table(header, rows)


def _sequences(runs: list[Record]) -> str:
    """A line a run on sequences, the units named."""
    header = ["config", "data", "seed", "nats a step ± standard error", "ELBO, nats a step"]
    header += [
        "FIVO, nats a step",
        "nats a sequence",
        "KL a sequence",
        "S",
        "epochs (best)",
        "hours",
        "commit",
    ]
    rows = []
    for values in runs:
        name, dataset = cell_of(values)
        step = values["per_step"]
        hours = (values["seconds"]["training"] + values["seconds"]["evaluation"]) / 3600
        rows.append(
            [
                f"`{name}`",
                dataset,
                str(values["config"]["seed"]),
                _a_step(step),
                f"{step['elbo']:.3f}",
                _a_step(values.get("particle_filter", {}).get("per_step")),
                f"{values['log_likelihood']:.2f}",
                f"{sum(values['kl'].values()):.2f}",
                str(values["num_samples"]),
                f"{values['epochs']} ({values['best_epoch']})",
                f"{hours:.2f}",
                re.sub(r"\b([0-9a-f]{7})[0-9a-f]{33}\b", r"\1", values["commit"] or ""),
            ]
        )
    return table(header, sorted(rows, key=lambda row: (row[1], row[0], row[2])))


def _a_step(step: Record | None) -> str:
    """Nats a step with their standard error, where there are any."""
    if step is None:
        return ""
    error = step["log_likelihood_standard_error"]
    return f"{step['log_likelihood']:.3f}" + ("" if error is None else f" ± {error:.3f}")
