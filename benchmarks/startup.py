"""From the start of a process to the end of its first epoch, as a user sees it: by its output."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.workers import ROOT, say


def until(command: list[str], seen: str, env: dict[str, str]) -> dict[str, float]:
    """Seconds until a line holds `seen`, and the process's peak memory; then it is killed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if seen in line:
            break
    else:
        raise RuntimeError(f"{command} ended without {seen!r}:\n{''.join(lines)}")
    seconds = time.perf_counter() - start
    process.kill()
    process.stdout.close()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {"seconds": seconds, "peak_mib": usage.ru_maxrss / 1024}


def measure(model: str, dataset: str, options) -> dict:
    """Interleaved: train.py with an empty compilation cache, then with a full one, then the port.

    Returns:
      side -> {"seconds": [a value a turn], "peak_mib": the largest}.
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
            return until(command, "epoch 1/", env)

        prepare = f"from vamp_jax import datasets; datasets.load({dataset!r}, {options.data_dir!r})"
        subprocess.run([sys.executable, "-c", prepare], cwd=ROOT, env=env, check=True)
        turns = {
            "ours, cold": lambda: train(empty=True),
            "ours, compiled before": lambda: train(empty=False),
        }
        if options.torch_python and dataset == "static_mnist":
            port = [options.torch_python, str(ROOT / "benchmarks" / "torch_port.py")]
            port += ["--data", options.files, "--model", model.replace("_", ""), "--epochs", "1"]
            turns["torch, eager"] = lambda: until(port, "    1  0.01", os.environ)
        answers = {name: {"seconds": [], "peak_mib": 0.0} for name in turns}
        for _ in range(options.startup_repeats):
            for name, turn in turns.items():
                taken = turn()
                answers[name]["seconds"].append(taken["seconds"])
                answers[name]["peak_mib"] = max(answers[name]["peak_mib"], taken["peak_mib"])
                say(f"    {name}: {taken['seconds']:.1f} s")
    return answers
