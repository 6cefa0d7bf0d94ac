"""From the start of a process to the ends of its first step and first epoch, as a user sees it.

An epoch of ours is one dispatch, so the end of its first step cannot be seen from outside: it is
the first epoch's end less what the second epoch takes, but for the share of one step. The port's
epochs differ too much from each other for that.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.workers import ROOT, say

STEPS = {"static_mnist": 500, "digits": 10}  # an epoch
POLL = 0.05  # seconds


@contextmanager
def until(command: list[str], seen: str, env: dict[str, str]) -> Iterator[dict[str, float]]:
    """Runs a command until a line holds `seen`; then, after what the caller does, kills it.

    Yields:
      a dictionary with the seconds; afterwards it has the process's peak memory, too.
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
    taken = {"seconds": time.perf_counter() - start}
    try:
        yield taken
    finally:
        process.kill()
        process.stdout.close()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        taken["peak_mib"] = usage.ru_maxrss / 1024


def second_epoch(folder: str) -> float:
    """train.py's own seconds of epoch 2, once its log has them."""
    while True:
        with open(os.path.join(folder, "metrics.jsonl")) as file:
            rows = [json.loads(line) for line in file if line.endswith("\n")]
        if len(rows) > 1:
            return rows[1]["seconds"]
        time.sleep(POLL)


def measure(model: str, dataset: str, options) -> dict:
    """Interleaved: train.py with an empty compilation cache, then with a full one, then the port.

    Returns:
      side -> {"step" (ours only) and "seconds" to the ends of the first step and epoch: [a value a
        turn], "peak_mib": the largest}.
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
            with until(command, "epoch 1/", env) as taken:
                rest = second_epoch(f"{folder}/run") * (1 - 1 / STEPS[dataset])
                taken["step"] = taken["seconds"] - rest
            return taken

        prepare = f"from vamp_jax import datasets; datasets.load({dataset!r}, {options.data_dir!r})"
        subprocess.run([sys.executable, "-c", prepare], cwd=ROOT, env=env, check=True)
        turns = {
            "ours, cold": lambda: train(empty=True),
            "ours, compiled before": lambda: train(empty=False),
        }
        if options.torch_python and dataset == "static_mnist":
            port = [options.torch_python, str(ROOT / "benchmarks" / "torch_port.py")]
            port += ["--data", options.files, "--model", model.replace("_", ""), "--epochs", "1"]

            def peer():
                with until(port, "    1  0.01", os.environ) as taken:
                    return taken

            turns["torch, eager"] = peer
        answers = {name: {"peak_mib": 0.0} for name in turns}
        for _ in range(options.startup_repeats):
            for name, turn in turns.items():
                taken = turn()
                answer = answers[name]
                answer["peak_mib"] = max(answer["peak_mib"], taken.pop("peak_mib"))
                for quantity, value in taken.items():
                    answer.setdefault(quantity, []).append(value)
                say(f"    {name}: " + ", ".join(f"{k} {v:.1f} s" for k, v in taken.items()))
    return answers
