"""Full runs of what the paper does not have: other priors, posteriors, networks and objectives.

A full run ends by itself and is evaluated with S = 5000 on the whole test set of one of the paper's
data sets. How it was trained is told beside it: as the paper says, as configs/fast_*.py do, or by
the fields that differ from the paper's. Runs of one line differ in nothing but the seed; where all
else that is shown would be alike, the other fields are told. The paper's own models stand there,
too, where they are trained as configs/fast_*.py are.
"""

from typing import Any

from vamp_jax import config_fields, default_config
from vamp_jax.paper.markdown import shown, table
from vamp_jax.paper.numbers import (
    COLUMNS,
    DATASETS,
    IN_BITS,
    NUM_SAMPLES,
    RERUN_BY,
    RERUNS,
    TABLE_1,
    Cell,
    Estimate,
    cells,
    of_paper,
)
from vamp_jax.paper.records import Record, cell_of, shortfalls, summarise

OBJECTIVE = ("objective", "num_importance_samples", "renyi_alpha", "importance_gradient")
TRAINING = (
    *("dense_init", "batch_size", "learning_rate", "learning_rate_schedule"),
    *("final_learning_rate", "num_epochs", "warmup_epochs", "free_nats"),
)
IN_MINUTES = "in minutes"
# Fields that tell nothing of the model: of repetitions, and of how it is evaluated.
UNTOLD = ("seed", "num_samples", "eval_batch_size")

Line = tuple[str, str, str, str]  # data, config, objective, how it was trained


def runs_beyond(runs: dict[str, Record]) -> dict[Line, list[Record]]:
    """The runs of each line, in the order of the paper's data sets."""
    defaults = config_fields.defaults().to_dict()
    in_the_paper = {cell for number in (1, 2, 3, 4) for cell in cells(number)}
    alike: dict[Line, list[Record]] = {}
    for record in runs.values():
        name, dataset = cell_of(record)
        short = shortfalls(record) or record["num_samples"] != NUM_SAMPLES
        if short or dataset not in DATASETS:
            continue
        config = record["config"]
        objective, trained = _changed(config, defaults, OBJECTIVE), _trained(config)
        if (name, dataset) not in in_the_paper or objective or trained == IN_MINUTES:
            line = dataset, name, objective or "ELBO", trained
            alike.setdefault(line, []).append(record)
    found = {}
    for line, records in alike.items():
        for settings, those in _by_settings(records, defaults).items():
            found[(*line[:3], ", ".join(filter(None, (line[3], settings))))] = those
    order = list(DATASETS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:])))


def _by_settings(records: list[Record], defaults: dict[str, Any]) -> dict[str, list[Record]]:
    """Parts runs by the fields in which their models differ; names those that are no defaults."""
    told = tuple(name for name in defaults if name not in UNTOLD)
    held = [config_fields.as_of_today(record["config"]) for record in records]
    differ = tuple(name for name in told if any(h.get(name) != held[0].get(name) for h in held))
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(_changed(record["config"], defaults, differ), []).append(record)
    return found


def _trained(config: dict[str, Any]) -> str:
    """How a run was trained, as the table says it."""
    dataset = config["dataset"]
    papers = default_config.get_config(dataset).to_dict()
    changed = _changed(config, papers, TRAINING)
    if not changed:
        return "as the paper's"
    if not _changed(config, default_config.in_minutes(dataset).to_dict(), TRAINING):
        return IN_MINUTES
    return changed


def _changed(config: dict[str, Any], papers: dict[str, Any], fields: tuple[str, ...]) -> str:
    """Says which of these fields of a config differ from the paper's, and what they are."""
    held = config_fields.as_of_today(config)
    values = ((name, held.get(name, "absent")) for name in fields)
    return ", ".join(f"{name} {value}" for name, value in values if value != papers[name])


HEADER = (
    *("data", "config", "objective", "paper", "reruns", "**ours**", "standard error", "S = 100"),
    *("S = 1000", "ELBO", "AIS less this", "trained"),
)


def beyond_table(found: dict[Line, list[Record]]) -> str:
    """A line of the table for each of `runs_beyond`, and one for each model that is only cited.

    The curve and the errors are those of the first run. The paper's figure, and that of reruns of
    its authors' code or of others', stand beside runs that maximise the ELBO.
    """
    held = {(name, dataset) for dataset, name, objective, _ in found if objective == "ELBO"}
    cited = RERUNS.keys() - held - {(name, dataset) for dataset in TABLE_1 for name in COLUMNS}
    rows = [(line[0], line[1], _row(line, runs)) for line, runs in found.items()]
    rows += [(cell[1], cell[0], _cited_row(cell)) for cell in sorted(cited)]
    order = list(DATASETS)
    rows.sort(key=lambda row: (order.index(row[0]), row[1]))  # stable: the order within a model
    return table(list(HEADER), [row for *_, row in rows])


def _elsewhere(cell: Cell) -> list[str]:
    """The paper's figure of a model, and that of reruns, with whose they are."""
    name, dataset = cell
    papers = of_paper(name, dataset)
    reruns = shown(RERUNS.get(cell), dataset)
    return [
        shown(None if papers is None else Estimate(papers), dataset),
        f"{RERUN_BY[dataset]}: {reruns}" if reruns else "",
    ]


def _cited_row(cell: Cell) -> list[str]:
    name, dataset = cell
    return [DATASETS[dataset], f"`{name}`", "ELBO", *_elsewhere(cell), *[""] * 7]


def _row(line: Line, runs: list[Record]) -> list[str]:
    dataset, name, objective, trained = line
    first = runs[0]
    error = first["log_likelihood_standard_error"]
    in_bits = dataset in IN_BITS
    return [
        DATASETS[dataset],
        f"`{name}`",
        objective,
        *(_elsewhere((name, dataset)) if objective == "ELBO" else ("", "")),
        shown(summarise(runs), dataset) + (" bits/dim" if in_bits else ""),
        "" if error is None else f"{error:.2f}",
        *(_of_fewer(first, count) for count in ("100", "1000")),
        f"{first['elbo']:.2f}",
        _annealed(first),
        trained,
    ]


def _of_fewer(record: Record, count: str) -> str:
    """The log-likelihood from so many samples."""
    found = record.get("log_likelihood_with_fewer_samples", {}).get(count)
    return "" if found is None else f"{found['mean']:.2f}"


def _annealed(record: Record) -> str:
    """AIS minus importance sampling on the same examples, with its error and their number."""
    for found in record.get("annealed", []):
        if beside := found["importance_sampled"]:
            error = beside["difference_standard_error"]
            plus_minus = "" if error is None else f" ± {error:.2f}"
            return f"{beside['difference']:+.2f}{plus_minus} ({found['num_examples']})"
    return ""
