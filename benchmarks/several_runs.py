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
    found = []
    for seed, device in enumerate(jax.devices()[:count]):
        config = type(CONFIG.value)(CONFIG.value.to_dict() | {"seed": seed})
        plan = plans.make(config, dataset)
        args = plan.autoencoder, plan.optimizer, dataset, plan.inputs, seed
        found.append(slots.Slot(config, plan, dataset, initial_state(*args), device))
    seconds = {"at once": [], "one after another": []}
    for _ in range(EPOCHS.value + 1):
        start = time.monotonic()
        for slot in found:
            slot.begin()
        for slot in found:
            slot.metrics()
        middle = time.monotonic()
        for slot in found:
            slot.begin()
            slot.metrics()
        seconds["at once"].append(middle - start)
        seconds["one after another"].append(time.monotonic() - middle)
    for way, times in seconds.items():  # the first has the compilation
        median = statistics.median(times[1:])
        print(
            f"{count} runs {way}: {median:.3f} s an epoch, the first {times[0]:.1f} s", flush=True
        )


if __name__ == "__main__":
    app.run(main)
