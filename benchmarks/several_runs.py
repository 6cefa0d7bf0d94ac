"""Seconds of an epoch of several runs: at once, each on a device, against one after another.

XLA_FLAGS=--xla_force_host_platform_device_count=3 python -m benchmarks.several_runs \\
    --config=configs/vae.py:digits [--runs=3] [--epochs=10] [--data_dir=DIR]
"""

import statistics
import time

import jax
from absl import app, flags
from ml_collections import config_flags

from vamp_jax import choices
from vamp_jax.training import plans, slots
from vamp_jax.training.state import initial_state

CONFIG = config_flags.DEFINE_config_file("config")
RUNS = flags.DEFINE_integer("runs", 3, "How many; as many devices are needed.")
EPOCHS = flags.DEFINE_integer("epochs", 10, "Of each way, in turns; the medians are printed.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the data sets.")


def main(_) -> None:
    count, dataset = RUNS.value, choices.dataset(CONFIG.value, DATA_DIR.value)
    configs, states = [], []
    for seed in range(count):
        configs.append(type(CONFIG.value)(CONFIG.value.to_dict() | {"seed": seed}))
        plan = plans.make(configs[-1], dataset)
        args = plan.autoencoder, plan.optimizer, dataset, plan.inputs, seed
        states.append(initial_state(*args))
    at_once = slots.RunADevice(configs, dataset, states, jax.devices()[:count])
    alone = slots.RunADevice(configs[:1], dataset, states[:1], jax.devices()[:1])
    seconds = {"at once": [], "one after another": []}
    for _ in range(EPOCHS.value + 1):
        start = time.monotonic()
        at_once.run([True] * count)
        middle = time.monotonic()
        for _ in range(count):
            alone.run([True])
        seconds["at once"].append(middle - start)
        seconds["one after another"].append(time.monotonic() - middle)
    for way, found in seconds.items():  # the first has the compilation
        median = statistics.median(found[1:])
        print(
            f"{count} runs {way}: {median:.3f} s an epoch, the first {found[0]:.1f} s", flush=True
        )


if __name__ == "__main__":
    app.run(main)
