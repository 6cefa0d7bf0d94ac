"""The study of how pseudo-inputs are learned: its runs, their records, and their tables.

A method is a way to keep pseudo-inputs in range, a place where they start and a way in which they
learn. All runs of one data set, K, seed and protocol differ in the method alone, so each is
compared with the paper's method (`PAPER`) image by image.
"""

import itertools
import math
import os
import shlex
import statistics
import sys
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from vamp_jax import choices, config_checks, config_fields, disk
from vamp_jax.errors import PicturesError, UsageError, check_choice
from vamp_jax.evaluation.record import read_log_likelihood, record_path
from vamp_jax.paper import records, sweep
from vamp_jax.paper.markdown import table
from vamp_jax.paper.numbers import DATASETS as PAPERS
from vamp_jax.run.folder import differing
from vamp_jax.run.metrics_log import read_metrics

CONFIG = "vamp_vae"
DATASETS = {"digits": "digits"} | PAPERS
# Minutes a run on one core; the full protocol is that of configs/.
SHORT = {"num_epochs": 200, "warmup_epochs": 50, "num_samples": 500}
NEAR = 1.0  # nats below the best ELBO of the paper's method, the value that epochs are counted to
BEGIN, END = "<!-- made by run_study.py -->", "<!-- end -->"


class Method(NamedTuple):
    """Three choices of choices.py."""

    squash: str
    start: str
    update: str

    @property
    def fields(self) -> dict[str, str]:
        """As fields of a config."""
        return {f"pseudo_input_{name}": value for name, value in self._asdict().items()}

    @classmethod
    def of(cls, config: dict[str, Any]) -> "Method":
        """That of a config."""
        return cls(*(config[f"pseudo_input_{name}"] for name in cls._fields))


CHOICES = (choices.SQUASHES, choices.STARTS, choices.UPDATES)
PAPER = Method("clip", "noise", "joint")
EVERY = tuple(itertools.starmap(Method, itertools.product(*CHOICES)))
# Each choice by itself, and what may go well together.
ALONE = tuple(m for m in EVERY if sum(a != b for a, b in zip(m, PAPER, strict=True)) <= 1)
CHOSEN = (
    *ALONE,
    Method("straight_through", "kmeans", "em"),
    Method("straight_through", "kmeans", "joint"),
    Method("sigmoid", "kmeans", "joint"),
    Method("straight_through", "examples", "joint"),
    Method("straight_through", "kmedoids", "joint"),
    Method("straight_through", "noise", "em"),
)


class Job(NamedTuple):
    """A run of the study."""

    method: Method
    dataset: str
    components: int
    seed: int
    workdir: str
    command: list[str]
    config: dict[str, Any]

    @property
    def title(self) -> str:
        """In words."""
        where = f"{self.dataset}, K = {self.components}, seed {self.seed}"
        return f"{', '.join(self.method)} ({where})"


def methods(names: list[str]) -> list[Method]:
    """The methods that a flag lists, the paper's first: 'chosen', 'all', or SQUASH-START-UPDATE.

    Raises:
      UsageError: for one that there is not.
    """
    found: dict[Method, None] = {PAPER: None}
    for name in names:
        if name in ("chosen", "all"):
            found |= dict.fromkeys(CHOSEN if name == "chosen" else EVERY)
            continue
        parts = name.split("-")
        if len(parts) != len(PAPER):
            raise UsageError(
                f"methods is {name!r}; it must be chosen, all or SQUASH-START-UPDATE, as "
                f"{'-'.join(PAPER)} is."
            )
        method = Method(*parts)
        for offered, (field, value) in zip(CHOICES, method.fields.items(), strict=True):
            check_choice(f"{field} of {name}", value, tuple(offered))
        found[method] = None
    return list(found)


def jobs(
    names: list[str],
    datasets: list[str],
    components: list[str],
    seeds: list[str],
    protocol: dict[str, Any],
    runs_folder: str,
    data_dir: str | None,
) -> list[Job]:
    """The runs that the flags of run_study.py name; the first seed of all comes first.

    Args:
      protocol: fields of all runs that differ from those of configs/: `SHORT`, or none.
    Raises:
      UsageError: for an invalid value.
    """
    for dataset in datasets:
        check_choice("datasets", dataset, tuple(DATASETS))
    counts = sweep.whole_numbers("components", components, least=1)
    return [
        _job(method, dataset, count, seed, protocol, runs_folder, data_dir)
        for seed in sweep.whole_numbers("seeds", seeds)
        for dataset in datasets
        for count in counts
        for method in methods(names)
    ]


def _job(method, dataset, count, seed, protocol, runs_folder, data_dir) -> Job:
    fields = {"seed": seed, "num_components": count} | method.fields | protocol
    config = ml_collections.ConfigDict(sweep.paper_config(CONFIG, dataset) | fields)
    config_checks.check(config)
    folder = "-".join([CONFIG, dataset, f"K{count}", *method, f"seed{seed}"])
    folder += f"-{disk.digest_of_values(protocol)}" if protocol else ""
    workdir = os.path.join(runs_folder, folder)
    command = sweep.train_command(CONFIG, dataset, fields, workdir, data_dir)
    return Job(method, dataset, count, seed, workdir, command, config.to_dict())


def run_all(
    wanted: list[Job], results_folder: str, call: Callable[[list[str]], int] = sweep.call
) -> list[Job]:
    """Trains, evaluates and records what is not recorded; returns the runs that failed."""
    failed = []
    for i, job in enumerate(wanted):
        which = f"Run {i + 1} of {len(wanted)}: {job.title}"
        if _is_recorded(job, results_folder) and not _is_missed(job, wanted, results_folder):
            print(f"{which}: recorded.", flush=True)
            continue
        print(f"{which}: {shlex.join(job.command)}", flush=True)
        try:
            if (code := call(job.command)) not in (0, PicturesError.exit_code):
                raise UsageError(f"train.py ended with exit code {code}.")
            evaluated = disk.read_json(_evaluation(job) + ".json")
            evaluated |= {"against_paper": _against_paper(job, wanted)}
            print(f"Recorded: {records.save_record(job.workdir, evaluated, results_folder)}")
        except UsageError as error:  # the other runs are still worth having
            print(f"{which}: {error}", file=sys.stderr, flush=True)
            failed.append(job)
    return failed


def _is_missed(job: Job, wanted: list[Job], results_folder: str) -> bool:
    """Whether its images' values are gone, with which runs still to be made are compared."""
    if job.method != PAPER or os.path.exists(_evaluation(job) + ".npz"):
        return False
    others = [other for other in wanted if other[1:4] == job[1:4] and other != job]
    return not all(_is_recorded(other, results_folder) for other in others)


def _evaluation(job: Job) -> str:
    return record_path(job.workdir, "test", job.config["num_samples"], None)


def _is_recorded(job: Job, results_folder: str) -> bool:
    return any(
        record["finished"]
        and not differing(config_fields.as_of_today(record["config"]), job.config)
        for record in records.read(results_folder).values()
    )


def _against_paper(job: Job, wanted: list[Job]) -> dict[str, Any]:
    """The run beside that of the paper's method with the same data, K and seed.

    Returns:
      The mean difference of the test images' log-likelihoods with its standard error, and the first
      epoch whose validation ELBO is at most 1 nat below the best of the paper's method, or None.
    """
    (paper,) = [other for other in wanted if other.method == PAPER and other[1:4] == job[1:4]]
    values = []
    for each in (job, paper):
        path = _evaluation(each) + ".npz"
        if not os.path.exists(path) or not read_metrics(each.workdir):
            raise UsageError(f"{path} is missing, to which this run is compared: run it again.")
        values.append(np.float64(read_log_likelihood(path, each.workdir)))
    difference = values[0] - values[1]
    elbos = [
        [row["val_reconstruction"] - row["val_kl"] for row in read_metrics(each.workdir)]
        for each in (job, paper)
    ]
    value = max(elbos[1]) - NEAR
    return {
        "difference": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / math.sqrt(len(difference))),
        "epochs_to_near_its_best": next(
            (i + 1 for i, elbo in enumerate(elbos[0]) if elbo >= value), None
        ),
    }


# ---------------------------------------------------------------------------------------------
# Tables.


def tables(folder: str) -> str:
    """A table in markdown for each data set, K and protocol of the records in a folder."""
    groups: dict[tuple, dict[Method, list[records.Record]]] = {}
    for record in records.read(folder).values():
        config = record["config"]
        where = (
            config["dataset"],
            config["num_components"],
            config["num_epochs"],
            record["num_samples"],
            config["latent_dim"],
            config["dense_init"],
        )
        groups.setdefault(where, {}).setdefault(Method.of(config), []).append(record)
    parts = []
    for (dataset, count, epochs, samples, units, init), found in sorted(groups.items()):
        title = f"**{DATASETS[dataset]}, K = {count}**: at most {epochs} epochs, S = {samples}, "
        title += f"{units} latent units, {init} weights"
        parts += [title, _table(found)]
    return "\n\n".join(parts)


HEADER = (
    *("range", "start", "learns", "log-likelihood", "against the paper's", "epochs to near"),
    *("dead components", "use", "dead pixels", "moved"),
)


def _table(found: dict[Method, list[records.Record]]) -> str:
    """The methods of one table, the best first."""
    order = sorted(
        found, key=lambda method: -statistics.fmean(r["log_likelihood"] for r in found[method])
    )
    return table(list(HEADER), [_row(method, found[method]) for method in order])


def _row(method: Method, runs: list[records.Record]) -> list[str]:
    against = [run["against_paper"] for run in runs]
    use = [run["diagnostics"]["train"]["prior_use"] for run in runs]
    moved = [run["diagnostics"]["pseudo_inputs"] for run in runs]
    mean = statistics.fmean
    values = [run["log_likelihood"] for run in runs]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    # All seeds are evaluated on the same images, so that more seeds make this error no smaller.
    error = mean(each["standard_error"] for each in against)
    gains = [each["difference"] for each in against]
    difference = f"{mean(gains):+.2f} ± {error:.2f}"
    if len(runs) > 1:
        difference += f" ({min(gains):+.2f} to {max(gains):+.2f})"
    return [
        *method,
        f"{mean(values):.2f}{spread} ({len(values)})",
        "" if method == PAPER else difference,
        _epochs(each["epochs_to_near_its_best"] for each in against),
        f"{mean(each['dead_components'] for each in use):.1f}",
        f"{mean(each['entropy'] / each['entropy_of_equal_use'] for each in use):.2f}",
        f"{100 * mean(each['dead_values'] for each in moved):.0f} %",
        f"{mean(each['mean_distance'] for each in moved):.3f}",
    ]


def _epochs(values: Iterable[int | None]) -> str:
    found = list(values)
    if None in found:
        return "not reached" if len(found) == 1 else f"not in {found.count(None)}"
    return f"{statistics.fmean(found):.0f}"


def check_page(page: str) -> None:
    """Raises a UsageError unless `write_page` can put tables into this page."""
    _around_tables(page)


def _around_tables(page: str) -> tuple[str, str]:
    """What stands before and after the tables of a page."""
    try:
        with open(page, encoding="utf-8") as file:
            before, _, rest = file.read().partition(BEGIN)
    except OSError as error:
        raise UsageError(
            f"{page} cannot be read ({error.strerror}): name a page for the tables, --page=FILE, "
            f"that has {BEGIN} and {END}."
        ) from None
    _, mark, after = rest.partition(END)
    if not mark:
        raise UsageError(f"{page} lacks {BEGIN} or {END}, between which the tables go.")
    return before, after


def write_page(folder: str, page: str) -> None:
    """Puts the tables of the records into a page, between its two marks.

    Raises:
      UsageError: when the page cannot be read or lacks a mark.
    """
    before, after = _around_tables(page)
    with disk.whole_file(page, shared=True) as file:
        file.write(f"{before}{BEGIN}\n\n{tables(folder)}\n\n{END}{after}")
