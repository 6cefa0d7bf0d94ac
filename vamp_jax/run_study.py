"""Runs the study of how pseudo-inputs are learned, and puts its tables into docs/pseudo_inputs.md.

python run_study.py                                  # only makes the page's tables anew
python run_study.py --datasets=caltech101_silhouettes,freyfaces --components=10 --short
python run_study.py --datasets=static_mnist --methods=straight_through-kmeans-joint --seeds=0,1,2

A method is SQUASH-START-UPDATE, three choices of docs/settings.md; the paper's is always run. A run
that is recorded is skipped, one that is under way goes on: interrupt this command whenever you
like, and give it again.
"""

import os
import sys

from absl import flags

from vamp_jax import disk
from vamp_jax.errors import UsageError, check_listed
from vamp_jax.paper import pseudo_input_study as study
from vamp_jax.paper import sweep
from vamp_jax.process import command_line, jax_start

DATASETS = flags.DEFINE_list("datasets", None, "Run the study on these data sets.")
METHODS = flags.DEFINE_list(
    "methods", ["chosen"], "Methods: chosen, all (80 of them), or SQUASH-START-UPDATE."
)
COMPONENTS = flags.DEFINE_list("components", ["10"], "The numbers K.")
SEEDS = flags.DEFINE_list("seeds", ["0"], "The seeds of each run: 0,1,2.")
SHORT = flags.DEFINE_bool(
    "short", False, f"A short protocol: {', '.join(f'{k} {v}' for k, v in study.SHORT.items())}."
)
RUNS = flags.DEFINE_string("runs", "runs", "Folder of the runs' folders.")
RESULTS = flags.DEFINE_string("results", "results/pseudo_inputs", "Folder of the records.")
PAGE = flags.DEFINE_string(
    "page", os.path.join(sweep.ROOT, "docs", "pseudo_inputs.md"), "The page with the tables."
)
FIGURE = flags.DEFINE_string(
    "figure", None, "Also draws the first seed's pseudo-inputs as FIGURE.png and FIGURE.pdf."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Folder of the data sets. Default: ~/tensorflow_datasets."
)


def main() -> None:
    check_listed("datasets", DATASETS.value, "caltech101_silhouettes,digits")
    wanted, failed, results = [], [], disk.local_folder(RESULTS.value)
    study.check_page(PAGE.value)  # which is written after all runs
    if DATASETS.value:
        wanted = study.jobs(
            METHODS.value,
            DATASETS.value,
            COMPONENTS.value,
            SEEDS.value,
            study.SHORT if SHORT.value else {},
            disk.local_folder(RUNS.value),
            DATA_DIR.value,
        )
        failed = study.run_all(wanted, results)
    elif FIGURE.value or any(
        flags.FLAGS[name].present for name in ("methods", "components", "seeds", "short")
    ):
        raise UsageError("No data set is named: pass --datasets=caltech101_silhouettes.")
    study.write_page(results, PAGE.value)
    print(f"Written: {PAGE.value}")
    if FIGURE.value:
        jax_start.start()
        from vamp_jax.paper import figures  # late: a mistake in a flag should not wait for JAX

        first = [job for job in wanted if job.seed == wanted[0].seed and job not in failed]
        figures.draw_methods([(job.title, job.workdir) for job in first], FIGURE.value)
        print(f"Written: {FIGURE.value}.png, {FIGURE.value}.pdf")
    if failed:
        listed = "; ".join(job.title for job in failed)
        print(f"{len(failed)} of {len(wanted)} runs failed: {listed}.", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    command_line.run(main)
