"""The queue of run_table.py: runs of the tables, some at a time, each a process of train.py.

Interrupted at any moment it goes on where it was: what is recorded is skipped, and a run that is
under way goes on from its checkpoint.
"""

import math
import os
import shlex
import sys
import time
from typing import NamedTuple

from vamp_jax import disk
from vamp_jax.errors import PicturesError, TimeIsUp, UsageError
from vamp_jax.evaluation.record import record_path
from vamp_jax.paper import records, schedule, sweep, tables
from vamp_jax.paper.schedule import Run, title, workdir_of
from vamp_jax.process.children import Children, Cores, own_cores, shares
from vamp_jax.run.folder import LOCK

SECONDS_BETWEEN_LINES = 60.0


class Folders(NamedTuple):
    """Where things are."""

    runs: str
    results: str
    data_dir: str | None


def run_all(
    runs: list[Run], folders: Folders, parallel: int = 1, minutes: float | None = None
) -> list[Run]:
    """Trains, evaluates and records what is not recorded, in this order.

    Args:
      parallel: so many at a time, each on an equal share of the cores. What one alone prints is
        passed through; of several it goes to a file beside the folder of each.
      minutes: then all are stopped, with their state saved.
    Returns:
      The runs that failed.
    Raises:
      UsageError: for an impossible `parallel` or `minutes`.
      TimeIsUp: when runs are left after so many minutes.
    """
    if minutes is not None and not minutes > 0:
        raise UsageError(f"minutes is {minutes}; it must be positive.")
    queue = _Queue(runs, folders, parallel, minutes)
    with queue.children:
        queue.go()
    sweep.leave_if_stopped(queue.children.received)
    if queue.time_is_up and queue.next(queue.statuses(), [None]):
        raise TimeIsUp(f"{minutes:g} minutes are over, all is saved: the same command goes on.")
    return queue.failed


def _listed(values: Cores) -> str:
    return ", ".join(map(str, values))


class _Queue:
    """Runs under way, with what is known of them."""

    def __init__(self, runs: list[Run], folders: Folders, parallel: int, minutes: float | None):
        self.children = Children()
        self.failed: list[Run] = []
        self.time_is_up = False
        self._runs, self._folders, self._minutes = runs, folders, minutes
        self._began = time.monotonic()
        self._free = list(shares(own_cores(), parallel))
        self._apart = parallel > 1
        self._here: dict[Run, Cores | None] = {}
        self._over: list[Run] = []  # ended here, well or not: none is begun twice

    def statuses(self) -> list[schedule.Status]:
        """How far each run is."""
        folders, here = self._folders, self._here
        config = sweep.paper_config
        return schedule.read(self._runs, folders.runs, folders.results, config, here)

    def next(self, statuses: list[schedule.Status], free: list) -> list[tuple[Run, Cores | None]]:
        """The runs that should start, each with its share of the cores."""
        return schedule.starts(statuses, self._over, free)

    def go(self) -> None:
        """Starts runs and waits for them, until none is left or all have to stop."""
        while True:
            statuses = self.statuses()
            stopping = self._is_stopping(statuses)
            if not (stopping and self._here):
                print(schedule.summary(statuses), flush=True)
            if not stopping:
                for run, cores in self.next(statuses, self._free):
                    self._start(run, cores)
            if not self._here:
                return
            for run, code in self._wait(statuses).items():
                self._free.append(self._here.pop(run))
                self._end(run, code)

    def _start(self, run: Run, cores: Cores | None) -> None:
        workdir = workdir_of(run, self._folders.runs)
        fields, log = {"seed": run[-1]}, f"{workdir}.log" if self._apart else None
        command = sweep.train_command(*run[:2], fields, workdir, self._folders.data_dir)
        where = "" if cores is None else f" on core{'s' * (len(cores) > 1)} {_listed(cores)}"
        where += f", its output in {log}" if log else ""
        print(f"{self._which(run)}{where}: {shlex.join(command)}", flush=True)
        if log:
            disk.make_folder(self._folders.runs)
        self.children.start(run, command, cores, log)
        self._free.remove(cores)
        self._here[run] = cores

    def _which(self, run: Run) -> str:
        return f"Run {self._runs.index(run) + 1} of {len(self._runs)}: {title(run)}"

    def _wait(self, statuses: list[schedule.Status]) -> dict[Run, int]:
        """The exit codes of the runs that end first; stops all in time, shows them meanwhile."""
        stopping = self._is_stopping(statuses)
        while True:
            left = math.inf if stopping else self._seconds_left(statuses)
            if ended := self.children.wait(min(SECONDS_BETWEEN_LINES, left)):
                return ended
            statuses = self.statuses()
            stopping = self._is_stopping(statuses)
            if self._apart and not stopping:
                print(schedule.progress(statuses), flush=True)

    def _seconds_left(self, statuses: list[schedule.Status]) -> float:
        epochs = [status.epoch_seconds for status in statuses if status.run in self._here]
        elapsed = time.monotonic() - self._began
        return schedule.seconds_before_stop(self._minutes, elapsed, epochs)

    def _is_stopping(self, statuses: list[schedule.Status]) -> bool:
        """Whether a signal came or the time is up, of which all are then told."""
        if self.children.received or self.time_is_up:
            return True
        if self._seconds_left(statuses) > 0:
            return False
        self.time_is_up = True
        if self._here:
            print(f"{self._minutes:g} minutes are nearly over: stopping.", flush=True)
        self.children.terminate()
        return True

    def _end(self, run: Run, code: int) -> None:
        """Records a run that has ended."""
        workdir = workdir_of(run, self._folders.runs)
        which, done = self._which(run), code in (0, PicturesError.exit_code)
        if not done and (self.time_is_up or self.children.received):
            print(f"{which}: stopped.", flush=True)
            return
        if not done and disk.is_locked(os.path.join(workdir, LOCK)):  # it came in between
            print(f"{which}: another process is at it.", flush=True)
            return
        self._over.append(run)
        try:
            if not done:
                raise UsageError(f"train.py ended with exit code {code}.")
            num_samples = sweep.paper_config(*run[:2])["num_samples"]
            evaluated = record_path(workdir, "test", num_samples, None) + ".json"
            path = records.save_record(workdir, disk.read_json(evaluated), self._folders.results)
            tables.write_report(self._folders.results, sweep.paper_config)
        except UsageError as error:  # the other runs are still worth having
            print(f"{which}: {error}", file=sys.stderr, flush=True)
            self.failed.append(run)
            return
        print(f"{which}: recorded in {path}", flush=True)
