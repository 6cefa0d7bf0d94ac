"""Runs the cells of the paper's tables, and makes results/README.md from what is recorded.

python run_table.py                                   # only makes results/README.md anew
python run_table.py --table=1 --rows=static_mnist     # a row: its eight models, one after another
python run_table.py --table=1 --columns=vae,vamp_vae --seeds=0,1,2

A run that is recorded in results/ is skipped, one that is under way goes on: interrupt this
command whenever you like, and give it again.
"""

import importlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from absl import flags

from vamp_jax import command_line, config_checks, results
from vamp_jax import workdir as workdirs
from vamp_jax.errors import UsageError

ROOT = os.path.dirname(os.path.abspath(__file__))

TABLE = flags.DEFINE_integer("table", None, "Run the cells of this table of the paper: 1 to 4.")
ROWS = flags.DEFINE_list("rows", None, "Only these data sets. Default: all of the table.")
COLUMNS = flags.DEFINE_list("columns", None, "Only these configs. Default: all of the table.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds of each cell: 0,1,2.")
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs' folders.")
RESULTS = flags.DEFINE_string("results", "results", "Folder of the records and their tables.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)

Run = tuple[str, str, int]  # config, data set, seed


def paper_config(name: str, dataset: str) -> dict[str, Any] | None:
    """The fields of configs/NAME.py for a data set; None if there is no such file."""
    if f"{name}.py" not in os.listdir(os.path.join(ROOT, "configs")):
        return None
    return importlib.import_module(f"configs.{name}").get_config(dataset).to_dict()


def select(
    table: int, rows: list[str] | None, columns: list[str] | None, seeds: list[str]
) -> list[Run]:
    """The runs that the flags name; the first seed of all cells comes first.

    Raises:
      UsageError: for a table, row, column or seed that is not there.
    """
    if table not in (1, 2, 3, 4):
        raise UsageError(f"table is {table}; it must be 1, 2, 3 or 4.")
    cells = results.cells(table)
    for flag, given, position in (("columns", columns, 0), ("rows", rows, 1)):
        for value in given or ():
            choices = tuple(dict.fromkeys(cell[position] for cell in cells))
            config_checks.check_choice(flag, value, choices)
    for seed in seeds:
        if not (seed.isdecimal() and seed.isascii() and int(seed) < 2**32):
            raise UsageError(
                f"seeds has {seed!r}; seeds are whole numbers, not negative, and below 2^32."
            )
    return [
        (name, dataset, seed)
        for seed in dict.fromkeys(map(int, seeds))
        for name, dataset in cells
        if (columns is None or name in columns) and (rows is None or dataset in rows)
    ]


def call(command: list[str]) -> int:
    """Runs a command; on a signal, lets it save its state, then leaves as the signal asks."""
    received: list[int] = []
    processes: list[subprocess.Popen] = []

    def pass_on(number: int, frame) -> None:
        received.append(number)
        if number == signal.SIGTERM:  # Ctrl-C goes to both processes by itself
            for process in processes:
                process.terminate()

    old = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        processes.append(subprocess.Popen(command))
        code = processes[0].wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    if received:
        print("Stopped; the same command goes on from there.", file=sys.stderr, flush=True)
        sys.exit(128 + received[0])
    return code


def run_all(
    runs: list[Run],
    runs_folder: str,
    results_folder: str,
    data_dir: str | None,
    call: Callable[[list[str]], int] = call,
) -> list[Run]:
    """Trains, evaluates and records what is not recorded; returns the runs that failed."""
    from vamp_jax import evaluation  # late, as above

    failed = []
    for i, (name, dataset, seed) in enumerate(runs):
        which = f"Run {i + 1} of {len(runs)}: {name} on {dataset}, seed {seed}"
        recorded = results.full_runs(results.read(results_folder), paper_config)
        if seed in recorded.get((name, dataset), {}):
            print(f"{which}: recorded.", flush=True)
            continue
        workdir = os.path.join(runs_folder, f"{name}-{dataset}-seed{seed}")
        config = os.path.join(ROOT, "configs", f"{name}.py")
        command = [sys.executable, os.path.join(ROOT, "train.py"), f"--config={config}:{dataset}"]
        command += [f"--config.seed={seed}", f"--workdir={workdir}"]
        command += [] if data_dir is None else [f"--data_dir={data_dir}"]
        print(f"{which}: {shlex.join(command)}", flush=True)
        try:
            if (code := call(command)) != 0:
                raise UsageError(f"train.py ended with exit code {code}.")
            num_samples = paper_config(name, dataset)["num_samples"]
            evaluated = evaluation.record_path(workdir, "test", num_samples, None) + ".json"
            path = results.record(workdir, workdirs.read_json(evaluated), results_folder)
            results.write_report(results_folder, paper_config)
        except UsageError as error:  # the other runs are still worth having
            print(f"{which}: {error}", file=sys.stderr, flush=True)
            failed.append((name, dataset, seed))
            continue
        print(f"Recorded: {path}", flush=True)
    return failed


def main() -> None:
    failed = []
    if TABLE.value is not None:
        runs = select(TABLE.value, ROWS.value, COLUMNS.value, SEEDS.value)
        if not runs:
            raise UsageError(f"Table {TABLE.value} has no such cell: see --rows and --columns.")
        failed = run_all(runs, RUNS.value, RESULTS.value, DATA_DIR.value)
    elif any(flags.FLAGS[name].present for name in ("rows", "columns", "seeds")):
        raise UsageError("No table is named: pass --table=1, 2, 3 or 4.")
    print(f"Written: {results.write_report(RESULTS.value, paper_config)}")
    if failed:
        listed = "; ".join(f"{name} on {dataset}, seed {seed}" for name, dataset, seed in failed)
        print(f"{len(failed)} of {len(runs)} runs failed: {listed}.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main)
