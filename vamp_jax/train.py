"""Trains a model and evaluates it: python train.py --config=configs/vamp_hvae.py[:DATASET].

With --seeds=0,1,2 several runs at once, each in a folder of its own.
"""

import os
import sys

from absl import flags
from ml_collections import config_flags

from vamp_jax import choices, datasets, disk, errors, outside, several_runs
from vamp_jax.process import command_line, hosts, jax_start, xla_flags

CONFIG = config_flags.DEFINE_config_file(
    "config", None, "A file of configs/, with a data set: configs/vamp_hvae.py:static_mnist."
)
WORKDIR = flags.DEFINE_string(
    "workdir",
    None,
    "Folder of the run, or gs://BUCKET/NAME. Default: runs/CONFIG-DATASET-seedSEED. Of several: "
    "DIR-seedSEED.",
)
SEEDS = flags.DEFINE_list(
    "seeds", None, "Several runs at once, each on a device: their seeds, as in 0,1,2."
)
VARY = flags.DEFINE_multi_string(
    "vary",
    [],
    "Several runs at once that differ in a field: learning_rate:1e-3,5e-4; of "
    + ", ".join(several_runs.FIELDS_OF_RUNS)
    + ".",
)
DATA_DIR = flags.DEFINE_string(
    "data_dir",
    None,
    "Folder of the data sets, or gs://BUCKET/NAME. Default: ~/tensorflow_datasets.",
)
CHECKPOINT_SECONDS = flags.DEFINE_float(
    "checkpoint_seconds", 15.0, "Least time between two checkpoints: what a kill can cost."
)
HOSTS = flags.DEFINE_string(
    "hosts",
    None,
    "On several hosts: COORDINATOR:PORT,COUNT,INDEX, where process 0 runs, how many processes "
    "there are, and which this is, from 0. Default: all hosts of a Cloud TPU slice, else this one.",
)


def main() -> None:
    if CONFIG.value is None:
        raise errors.UsageError(
            "No config is named: pass --config=configs/NAME.py[:DATASET], for example "
            "--config=configs/vamp_hvae.py."
        )
    given = {argument.lstrip("-").partition("=")[0] for argument in sys.argv[1:]}
    if "config.dataset" in given:
        raise errors.UsageError(  # sizes depend on it, and the file would have chosen its own
            "The data set goes after the config: --config=configs/NAME.py:DATASET, not "
            "--config.dataset."
        )
    config = CONFIG.value
    if not CHECKPOINT_SECONDS.value >= 0:
        raise errors.UsageError(
            f"checkpoint_seconds is {CHECKPOINT_SECONDS.value}; it must not be negative."
        )
    file = command_line.config_path(flags.FLAGS)
    name = os.path.splitext(os.path.basename(file))[0]
    # A field that is missing is for config_checks.check to say.
    data = datasets.short_name(str(config.get("dataset")))
    workdir = WORKDIR.value and disk.expand_home(WORKDIR.value)
    values = several_runs.parse(SEEDS.value, VARY.value)
    if "seed" in values and "config.seed" in given:
        raise errors.UsageError("The seed is given twice: take --seeds or --config.seed.")
    if twice := sorted(field for field in values if f"config.{field}" in given):
        raise errors.UsageError(f"{twice[0]} is given twice: take --vary or --config.{twice[0]}.")
    runs = several_runs.configs_and_folders(config, values, workdir, f"runs/{name}-{data}")

    xla_flags.set_for(config.get("model") in choices.CONVOLUTIONAL)
    with hosts.connected(HOSTS.value):
        jax_start.start()
        # After the flags: a typo in one should not wait for JAX.
        from vamp_jax import experiment

        with hosts.together():
            for each, _ in runs:
                outside.allow(each, beside=file)
        experiment.train_and_evaluate_all(runs, DATA_DIR.value, CHECKPOINT_SECONDS.value)


if __name__ == "__main__":
    command_line.run(main)
