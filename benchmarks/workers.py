"""Worker processes and their turns: A B A B, never two at once. Imports nothing of JAX.

The parent stays small on purpose: a child's ru_maxrss starts at its parent's.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
REST = 0.3  # seconds between two turns, for the threads of the one before to fall asleep


class Side(NamedTuple):
    """What a worker is: a command, what it is told, where it runs."""

    command: list[str]
    settings: dict
    folder: Path = ROOT


class Worker:
    """A child process that holds one task ready; see `pipe.py`."""

    def __init__(self, side: Side):
        self._process = subprocess.Popen(
            [*side.command, json.dumps(side.settings)],
            cwd=side.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ready = self._answer()

    def ask(self, request: str) -> dict:
        self._process.stdin.write(request + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _answer(self) -> dict:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self._process.args[1:]} ended with {self._process.wait()}.")
        return json.loads(line)


def alternate(sides: dict[str, Side], repeats: int, then: str = "") -> dict:
    """Starts a worker a side, lets them take turns, and returns each side's answers.

    Args:
      sides: by their names, ours first.
      repeats: turns of each side.
      then: what to ask the first side after all turns; its answer comes back as "then".
    Returns:
      name -> {quantity: [a value a turn]}, "ready" and "peak_mib" as single values.
    """
    workers, answers = {}, {}
    try:
        for name, side in sides.items():
            start = time.monotonic()
            workers[name] = Worker(side)
            ready = workers[name].ready
            answers[name] = {"ready": {k: v for k, v in ready.items() if k != "peak_mib"}}
            say(f"    {name} is ready after {time.monotonic() - start:.0f} s")
        for _ in range(repeats):
            for name, worker in workers.items():
                time.sleep(REST)
                turn = worker.ask("turn")
                answers[name]["peak_mib"] = turn.pop("peak_mib")
                for quantity, value in turn.items():
                    answers[name].setdefault(quantity, []).append(value)
                say(f"    {name}: " + ", ".join(f"{k} {v:.4g}" for k, v in turn.items()))
        if then:
            first = next(iter(workers))
            answers[first]["then"] = workers[first].ask(then)
    finally:
        for worker in workers.values():
            worker.close()
    return answers


def ours(module: str, folder: Path = ROOT, **settings) -> Side:
    """This project, as it is here or in another checkout."""
    return Side([sys.executable, "-m", f"benchmarks.{module}"], settings, folder)


def foreign(python: str, script: str, **settings) -> Side:
    """A peer, in its own Python environment."""
    return Side([python, str(ROOT / "benchmarks" / script)], settings)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0))
