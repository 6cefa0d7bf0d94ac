"""From the start of a process to the ends of its first step and first epoch, as a user sees it.

An epoch of ours is one dispatch, so the end of its first step cannot be seen from outside: it is
the first epoch's end less what the second epoch takes, but for the share of one step.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.workers import ROOT, say

STEPS = {"static_mnist": 500, "digits": 10}  # an epoch
POLL = 0.05  # seconds


def until(
    command: list[str], seen: str, env: dict[str, str], steps: int, second: Callable[[list], float]
) -> dict[str, float]:
    """Runs a command for two epochs, then kills it.

    Args:
      seen: what is in the line that ends the first epoch.
      steps: of an epoch.
      second: from the lines that follow, as an iterator, the seconds of the second epoch.
    Returns:
      Seconds to the end of the first step and epoch, and the process's peak memory.
    """
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if seen in line:
            break
    else:
        raise RuntimeError(f"{command} ended without {seen!r}:\n{''.join(lines)}")
    epoch = time.perf_counter() - start
    step = epoch - second(process.stdout) * (1 - 1 / steps)
    process.kill()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"step": step, "seconds": epoch, "peak_mib": usage.ru_maxrss / 1024}


def from_log(folder: str) -> Callable[[list], float]:
    """train.py's own seconds of epoch 2, once its log has them."""

    def second(_):
        while True:
            with open(os.path.join(folder, "metrics.jsonl")) as file:
                rows = [json.loads(line) for line in file if line.endswith("\n")]
            if len(rows) > 1:
                return rows[1]["seconds"]
            time.sleep(POLL)

    return second


def from_next_line(lines) -> float:
    """The port's: it says a line an epoch."""
    start = time.perf_counter()
    next(iter(lines))
    return time.perf_counter() - start


def measure(model: str, dataset: str, options) -> dict:
    """Interleaved: train.py with an empty compilation cache, then with a full one, then the port.

    Returns:
      side -> {"step", "seconds" (to the end of the first epoch): [a value a turn], "peak_mib"}.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "cache"
        env = os.environ | {"XDG_CACHE_HOME": str(cache)}  # where train.py keeps compiled programs
        env.pop("JAX_COMPILATION_CACHE_DIR", None)
        data = [f"--data_dir={options.data_dir}"] if options.data_dir else []

        def train(empty):
            if empty:
                for compiled in (cache / "vamp_jax").glob("xla-*"):
                    shutil.rmtree(compiled)
            shutil.rmtree(Path(folder) / "run", ignore_errors=True)
            config = f"--config=configs/vamp_{model}.py:{dataset}"
            command = [sys.executable, "train.py", config, f"--workdir={folder}/run", *data]
            return until(command, "epoch 1/", env, STEPS[dataset], from_log(f"{folder}/run"))

        prepare = f"from vamp_jax import datasets; datasets.load({dataset!r}, {options.data_dir!r})"
        subprocess.run([sys.executable, "-c", prepare], cwd=ROOT, env=env, check=True)
        turns = {
            "ours, cold": lambda: train(empty=True),
            "ours, compiled before": lambda: train(empty=False),
        }
        if options.torch_python and dataset == "static_mnist":
            port = [options.torch_python, str(ROOT / "benchmarks" / "torch_port.py")]
            port += ["--data", options.files, "--model", model.replace("_", ""), "--epochs", "2"]
            turns["torch, eager"] = lambda: until(
                port, "    1  0.01", os.environ, STEPS[dataset], from_next_line
            )
        answers = {name: {"step": [], "seconds": [], "peak_mib": 0.0} for name in turns}
        for _ in range(options.startup_repeats):
            for name, turn in turns.items():
                taken = turn()
                for quantity in ("step", "seconds"):
                    answers[name][quantity].append(taken[quantity])
                answers[name]["peak_mib"] = max(answers[name]["peak_mib"], taken["peak_mib"])
                say(f"    {name}: {taken['step']:.1f} s, epoch {taken['seconds']:.1f} s")
    return answers
