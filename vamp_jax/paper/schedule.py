"""Which runs of the paper's tables are done, what the others should take, and which comes next."""

import math
import os
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from vamp_jax import disk
from vamp_jax.datasets.protocols import SPECS
from vamp_jax.paper import records
from vamp_jax.paper.markdown import table
from vamp_jax.paper.numbers import NUM_SAMPLES, Cell
from vamp_jax.paper.records import PaperConfig, Record
from vamp_jax.run.folder import LOCK
from vamp_jax.run.metrics_log import read_metrics

Run = tuple[str, str, int]  # config, data set, seed
Share = TypeVar("Share")

DONE, RUNNING, BEGUN, LEFT = "done", "running", "begun", "left"
SECONDS_TO_SAVE = 10.0


class Expected(NamedTuple):
    """How long a run should take, training and evaluation."""

    hours: float | None  # None: not known
    source: str  # from which runs that is


class Status(NamedTuple):
    """How far a run is."""

    run: Run
    state: str  # done: it is recorded; running: its folder is locked; begun; left
    epoch: int  # the last one of its log, or record
    val_loss: float | None  # of that epoch, in nats
    epoch_seconds: float
    spent: float  # hours of training, by its log
    expected: Expected

    @property
    def hours_left(self) -> float | None:
        """None: not known."""
        if self.state == DONE or self.expected.hours is None:
            return 0.0 if self.state == DONE else None
        return max(self.expected.hours - self.spent, 0.0)


def title(run: Run) -> str:
    """A run in words."""
    name, dataset, seed = run
    return f"{name} on {dataset}, seed {seed}"


def workdir_of(run: Run, runs_folder: str) -> str:
    """The folder of a run."""
    name, dataset, seed = run
    return os.path.join(runs_folder, f"{name}-{dataset}-seed{seed}")


def read(
    runs: Sequence[Run],
    runs_folder: str,
    results_folder: str,
    paper_config: PaperConfig,
    here: Collection[Run] = (),
) -> list[Status]:
    """The status of each run, by the records and by its folder.

    Args:
      here: runs that are running, though their folder may not be locked yet.
    """
    held = records.read(results_folder)
    recorded = records.full_runs(held, paper_config)
    taken = hours_taken(held.values()) | hours_taken(
        record for seeds in recorded.values() for record in seeds.values()
    )
    sizes = {name: spec.sizes[0] for name, spec in SPECS.items()}
    result = []
    for run in runs:
        name, dataset, seed = run
        record = recorded.get((name, dataset), {}).get(seed)
        if record is not None:
            expected = Expected(_hours(record), "its record")
            result.append(Status(run, DONE, record["epochs"], None, 0.0, 0.0, expected))
            continue
        workdir = workdir_of(run, runs_folder)
        rows = read_metrics(workdir)
        locked = run in here or disk.is_locked(os.path.join(workdir, LOCK))
        last = rows[-1] if rows else {"epoch": 0, "val_loss": None, "seconds": 0.0}
        spent = math.fsum(row["seconds"] for row in rows) / 3600
        state = RUNNING if locked else BEGUN if rows else LEFT
        expected = expected_hours((name, dataset), taken, sizes)
        columns = last["epoch"], last["val_loss"], last["seconds"]
        result.append(Status(run, state, *columns, spent, expected))
    return result


def _hours(record: Record) -> float:
    return (record["seconds"]["training"] + record["seconds"]["evaluation"]) / 3600


def hours_taken(held: Iterable[Record]) -> dict[Cell, list[float]]:
    """The hours of each finished run that was evaluated on the whole test set with S = 5000."""
    taken: dict[Cell, list[float]] = {}
    for record in held:
        whole = record["num_examples"] == record["num_examples_in_split"]
        usual = (record["split"], record["num_samples"]) == ("test", NUM_SAMPLES)
        if record["finished"] and whole and usual:
            taken.setdefault(records.cell_of(record), []).append(_hours(record))
    return taken


def expected_hours(
    cell: Cell, taken: Mapping[Cell, Sequence[float]], sizes: Mapping[str, int]
) -> Expected:
    """The median of the cell's runs; else that of the same config on the data set nearest in size,
    times the ratio of the numbers of training examples; else it is not known.

    Args:
      taken: hours of runs, by cell.
      sizes: the number of training examples of each data set.
    """
    name, dataset = cell
    if cell in taken:
        count = len(taken[cell])
        return Expected(
            statistics.median(taken[cell]), f"{count} run{'s' * (count > 1)} of the cell"
        )
    ratios = {
        other: sizes[dataset] / sizes[other]
        for config, other in taken
        if config == name and other in sizes and dataset in sizes
    }
    if not ratios:
        return Expected(None, "not known")
    nearest = min(ratios, key=lambda other: abs(math.log(ratios[other])))
    return Expected(
        statistics.median(taken[name, nearest]) * ratios[nearest], f"{nearest}, by size"
    )


def by_hours(statuses: Sequence[Status]) -> list[Run]:
    """The runs by the hours that are left of them, shortest first; those not known come last."""

    def hours(status: Status) -> float:
        return math.inf if status.hours_left is None else status.hours_left

    return [status.run for status in sorted(statuses, key=hours)]


def starts(
    statuses: Sequence[Status], over: Collection[Run], free: Sequence[Share]
) -> list[tuple[Run, Share]]:
    """The runs that should start now, in the order given, each with a free share of the cores.

    Neither those that are over (they failed, or ended otherwise) nor those that a process is at.
    """
    waiting = [s.run for s in statuses if s.state in (BEGUN, LEFT) and s.run not in over]
    return list(zip(waiting, free, strict=False))


def seconds_before_stop(
    minutes: float | None, elapsed: float, epoch_seconds: Collection[float]
) -> float:
    """How long the runs may go on, so that all of them have saved their state in time.

    A run that is told to stop ends its epoch: two of the longest epoch are kept for that, and some
    seconds, but at most half of the time.

    Args:
      minutes: the time that was given; None: for ever.
      elapsed: seconds of it that are over.
      epoch_seconds: the last epoch of each run that is running.
    """
    if minutes is None:
        return math.inf
    saving = 2 * max(epoch_seconds, default=0.0) + SECONDS_TO_SAVE
    return 60 * minutes - elapsed - min(saving, 30 * minutes)


def summary(statuses: Sequence[Status]) -> str:
    """A line a run, how many are in each state, and the hours that are left."""
    header = ["config", "data", "seed", "state", "epoch", "validation loss", "hours", "hours left"]
    rows = []
    for status in statuses:
        name, dataset, seed = status.run
        hours, left = status.expected.hours, status.hours_left
        row = [f"`{name}`", dataset, str(seed), status.state, str(status.epoch or "")]
        row += ["" if status.val_loss is None else f"{status.val_loss:.2f}"]
        row += ["" if value is None else f"{value:.2f}" for value in (hours, left)]
        rows.append([*row, status.expected.source])
    states = [status.state for status in statuses]
    counts = ", ".join(f"{states.count(state)} {state}" for state in (DONE, RUNNING, BEGUN, LEFT))
    known = [left for status in statuses if (left := status.hours_left) is not None]
    total = f"{counts}; {math.fsum(known):.2f} hours are left"
    if unknown := len(statuses) - len(known):
        total += f", and {unknown} run{'s' * (unknown > 1)} of which nothing is known"
    return "\n\n".join([table([*header, "hours from"], rows), f"{total}."])


def progress(statuses: Sequence[Status]) -> str:
    """One line on what is running."""
    shown = []
    for status in statuses:
        if status.state == RUNNING:
            loss = "" if status.val_loss is None else f" (validation loss {status.val_loss:.2f})"
            shown.append(f"{title(status.run)}: epoch {status.epoch}{loss}")
    return "Running: " + "; ".join(shown)
