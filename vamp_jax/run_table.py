"""Runs the cells of the paper's tables, and makes results/README.md from what is recorded.

python run_table.py                                   # only makes results/README.md anew
python run_table.py --table=1 --rows=static_mnist     # a row: its eight models, one after another
python run_table.py --table=1,3 --columns=vae,vamp_vae --seeds=0,1,2 --order=hours --parallel=2
python run_table.py --table=1 --minutes=230           # stops in time, with all saved
python run_table.py --table=1 --show                  # only says what is done, running and left
python run_table.py --pack=runs/vae-static_mnist-seed0      # for another machine, as a .tar.gz

A run that is recorded in results/ is skipped, one that is under way goes on: interrupt this
command whenever you like, and give it again, here or where the folder of the runs is.
"""

import os
import sys

from absl import flags

from vamp_jax.disk import local_folder
from vamp_jax.errors import UsageError, check_listed
from vamp_jax.paper import schedule, sweep, table_queue, tables
from vamp_jax.process import command_line
from vamp_jax.run import packing

TABLE = flags.DEFINE_list("table", None, "Run the cells of these tables of the paper: 1 to 4.")
ROWS = flags.DEFINE_list("rows", None, "Only these data sets. Default: all of the tables.")
COLUMNS = flags.DEFINE_list("columns", None, "Only these configs. Default: all of the tables.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds of each cell: 0,1,2.")
ORDER = flags.DEFINE_enum(
    "order", "given", ["given", "hours"], "As they are named, or by expected hours, short first."
)
PARALLEL = flags.DEFINE_integer("parallel", 1, "So many runs at a time, each on its own cores.")
MINUTES = flags.DEFINE_float(
    "minutes", None, "Stop after so many minutes, with all saved; exit code 5 if runs are left."
)
SHOW = flags.DEFINE_bool("show", False, "Only print what is done, running, begun and left.")
PACK = flags.DEFINE_list(
    "pack", None, "Only pack these folders of runs for another machine, each as FOLDER.tar.gz."
)
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs' folders.")
RESULTS = flags.DEFINE_string("results", "results", "Folder of the records and their tables.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)
OF_TABLES = ("rows", "columns", "seeds", "order", "parallel", "minutes", "show")


def main() -> None:
    check_listed("table", TABLE.value, "1,2,3,4")
    check_listed("pack", PACK.value, "RUN,RUN")
    if PACK.value is not None:
        pack()
        return
    failed, runs, results = [], [], local_folder(RESULTS.value)
    if TABLE.value is not None:
        runs = wanted()
        if SHOW.value:
            print(schedule.summary(statuses(runs)))
            return
        folders = table_queue.Folders(local_folder(RUNS.value), results, DATA_DIR.value)
        failed = table_queue.run_all(runs, folders, PARALLEL.value, MINUTES.value)
    elif any(flags.FLAGS[name].present for name in OF_TABLES):
        raise UsageError("No table is named: pass --table=1, 2, 3 or 4.")
    print(f"Written: {tables.write_report(results, sweep.paper_config)}")
    if failed:
        listed = "; ".join(map(schedule.title, failed))
        print(f"{len(failed)} of {len(runs)} runs failed: {listed}.", file=sys.stderr)
        sys.exit(1)


def wanted() -> list[schedule.Run]:
    """The runs that the flags name, in their order."""
    runs = sweep.select(TABLE.value, ROWS.value, COLUMNS.value, SEEDS.value)
    if not runs:
        listed = ", ".join(TABLE.value)
        raise UsageError(f"Table {listed} has no such cell: see --rows and --columns.")
    return schedule.by_hours(statuses(runs)) if ORDER.value == "hours" else runs


def statuses(runs: list[schedule.Run]) -> list[schedule.Status]:
    """How far they are."""
    folders = local_folder(RUNS.value), local_folder(RESULTS.value)
    return schedule.read(runs, *folders, sweep.paper_config)


def pack() -> None:
    """Packs the runs that the flag names."""
    if TABLE.value is not None or any(flags.FLAGS[name].present for name in OF_TABLES):
        raise UsageError("--pack takes the folders of runs, and no flag of tables beside it.")
    for folder in PACK.value:
        for path in packing.pack(local_folder(folder)):
            print(f"Written: {path} ({os.path.getsize(path) / 2**20:.1f} MiB)", flush=True)


if __name__ == "__main__":
    command_line.run(main)
