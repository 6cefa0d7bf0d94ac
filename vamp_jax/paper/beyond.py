"""Full runs of what the paper does not have: other priors, posteriors, networks and objectives.

A full run ends by itself and is evaluated with S = 5000 on the whole test set of one of the paper's
data sets. How it was trained is told beside it: as the paper says, as configs/fast_*.py do, or by
the fields that differ from the paper's. The paper's own models stand there, too, where they are
trained as configs/fast_*.py are.
"""

from typing import Any

from vamp_jax import config_fields, default_config
from vamp_jax.paper.markdown import shown, table
from vamp_jax.paper.numbers import DATASETS, IN_BITS, NUM_SAMPLES, cells
from vamp_jax.paper.records import Record, cell_of, shortfalls, summarise

OBJECTIVE = ("objective", "num_importance_samples", "renyi_alpha", "importance_gradient")
TRAINING = (
    *("dense_init", "batch_size", "learning_rate", "learning_rate_schedule"),
    *("final_learning_rate", "num_epochs", "warmup_epochs", "free_nats"),
)
IN_MINUTES = "in minutes"

Line = tuple[str, str, str, str]  # data, config, objective, how it was trained


def runs_beyond(runs: dict[str, Record]) -> dict[Line, list[Record]]:
    """The runs of each line, in the order of the paper's data sets."""
    defaults = config_fields.defaults().to_dict()
    in_the_paper = {cell for number in (1, 2, 3, 4) for cell in cells(number)}
    found: dict[Line, list[Record]] = {}
    for record in runs.values():
        name, dataset = cell_of(record)
        short = shortfalls(record) or record["num_samples"] != NUM_SAMPLES
        if short or dataset not in DATASETS:
            continue
        config = record["config"]
        objective, trained = _changed(config, defaults, OBJECTIVE), _trained(config)
        if (name, dataset) not in in_the_paper or objective or trained == IN_MINUTES:
            line = dataset, name, objective or "ELBO", trained
            found.setdefault(line, []).append(record)
    order = list(DATASETS)
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0][0]), *item[0][1:])))


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


def beyond_table(found: dict[Line, list[Record]]) -> str:
    """A line of the table for each of `runs_beyond`, the first run's curve and errors beside."""
    header = ["data", "config", "objective", "log-likelihood", "standard error", "S = 100"]
    header += ["S = 1000", "ELBO", "AIS less this", "trained"]
    return table(header, [_row(line, runs) for line, runs in found.items()])


def _row(line: Line, runs: list[Record]) -> list[str]:
    dataset, name, objective, trained = line
    first = runs[0]
    error = first["log_likelihood_standard_error"]
    in_bits = dataset in IN_BITS
    return [
        DATASETS[dataset],
        f"`{name}`",
        objective,
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
