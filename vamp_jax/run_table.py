"""Runs the cells of the paper's tables, and makes results/README.md from what is recorded.

python run_table.py                                   # only makes results/README.md anew
python run_table.py --table=1 --rows=static_mnist     # a row: its eight models, one after another
python run_table.py --table=1 --columns=vae,vamp_vae --seeds=0,1,2

A run that is recorded in results/ is skipped, one that is under way goes on: interrupt this
command whenever you like, and give it again.
"""

import sys

from absl import flags

from vamp_jax.disk import expand_home
from vamp_jax.errors import UsageError
from vamp_jax.paper import sweep, tables
from vamp_jax.process import command_line

TABLE = flags.DEFINE_integer("table", None, "Run the cells of this table of the paper: 1 to 4.")
ROWS = flags.DEFINE_list("rows", None, "Only these data sets. Default: all of the table.")
COLUMNS = flags.DEFINE_list("columns", None, "Only these configs. Default: all of the table.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds of each cell: 0,1,2.")
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs' folders.")
RESULTS = flags.DEFINE_string("results", "results", "Folder of the records and their tables.")
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)


def main() -> None:
    failed, folder = [], expand_home(RESULTS.value)
    if TABLE.value is not None:
        runs = sweep.select(TABLE.value, ROWS.value, COLUMNS.value, SEEDS.value)
        if not runs:
            raise UsageError(f"Table {TABLE.value} has no such cell: see --rows and --columns.")
        failed = sweep.run_all(runs, expand_home(RUNS.value), folder, DATA_DIR.value)
    elif any(flags.FLAGS[name].present for name in ("rows", "columns", "seeds")):
        raise UsageError("No table is named: pass --table=1, 2, 3 or 4.")
    print(f"Written: {tables.write_report(folder, sweep.paper_config)}")
    if failed:
        listed = "; ".join(f"{name} on {dataset}, seed {seed}" for name, dataset, seed in failed)
        print(f"{len(failed)} of {len(runs)} runs failed: {listed}.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main)
