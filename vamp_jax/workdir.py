"""The folder of a run: its lock, its config, and the log of its epochs."""

import fcntl
import hashlib
import json
import math
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ml_collections

from vamp_jax.config_checks import ABSENT, BEFORE
from vamp_jax.datasets import Dataset
from vamp_jax.errors import UsageError

# What every row of metrics.jsonl has, beside the epoch.
METRICS = ("train_loss", "val_loss", "val_reconstruction", "val_kl", "seconds")
SECONDS_BETWEEN_FLUSHES = 10.0  # of the TensorBoard events; each waits for the disk


@contextmanager
def locked(folder: str, instead: str = "name another folder with --workdir") -> Iterator[None]:
    """Makes a folder and holds it for this process alone; the lock goes when the process does.

    Args:
      folder: need not exist.
      instead: what the user may do who cannot have it.
    Raises:
      UsageError: when it cannot be written, or another process is at work in it.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        lock = open(os.path.join(folder, ".lock"), "w")  # noqa: SIM115 - held until the end
    except OSError as error:
        raise UsageError(f"{folder} cannot be written ({error.strerror}): {instead}.") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                f"Another process is at work in {folder}: wait for it, or {instead}."
            ) from None
        except OSError:  # a file system without locks: then there is none
            pass
        yield


def claim(workdir: str, config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Writes config.json and data.json, or checks that the run in the folder is this one.

    Raises:
      UsageError: when the folder holds a run with another config or other data.
    """
    path = os.path.join(workdir, "config.json")
    if not os.path.exists(path):
        write_json(os.path.join(workdir, "data.json"), dict(dataset.file_hashes))
        write_json(path, config.to_dict())
        return
    _refuse_differences(workdir, BEFORE | read_json(path), config.to_dict())
    check_data(workdir, dataset)


def note_commit(workdir: str, epochs_done: int) -> None:
    """Adds the commit of this code, which is about to train, to code.json."""
    now = commit()
    # Begun by code in no git, or by code that did not note this.
    before = (commits(workdir) or ["unknown"]) if epochs_done else []
    if now is not None and before[-1:] != [now]:
        write_json(os.path.join(workdir, "code.json"), {"commits": [*before, now]})


def commits(workdir: str) -> list[str]:
    """The commits of the code that trained a run, in their order; none if that is not known.

    Raises:
      UsageError: when the file that says so is damaged.
    """
    path = os.path.join(workdir, "code.json")
    if not os.path.exists(path):
        return []
    held = read_json(path).get("commits")
    if not isinstance(held, list) or not all(isinstance(name, str) for name in held):
        raise UsageError(f"{path} has no list of commits; the run's folder is damaged.")
    return held


def commit() -> str | None:
    """The git commit of this code, with -dirty if the code differs from it; None if in no git."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    code = ("vamp_jax", "configs", "train.py", "eval.py")

    def git(*arguments: str) -> str:
        command = ["git", "-C", root, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if os.path.realpath(git("rev-parse", "--show-toplevel")) != os.path.realpath(root):
            return None  # installed below somebody else's checkout
        changed = git("status", "--porcelain", "--", *code)
        return git("rev-parse", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def check_data(workdir: str, dataset: Dataset) -> None:
    """Raises a UsageError when the run in the folder was trained on other files."""
    held = read_json(os.path.join(workdir, "data.json"))
    _refuse_differences(workdir, held, dict(dataset.file_hashes))


def _refuse_differences(workdir: str, held: dict[str, Any], here: dict[str, Any]) -> None:
    if fields := differing(held, here):
        found = [
            f"{field} is {held.get(field, ABSENT)!r} there and {here.get(field, ABSENT)!r} here"
            for field in fields
        ]
        raise UsageError(
            f"{workdir} holds another run ({'; '.join(found)}): name another folder with "
            "--workdir, or remove this one."
        )


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The fields in which two configs differ, in alphabetical order."""
    fields = sorted(one.keys() | other.keys())
    return [field for field in fields if one.get(field, ABSENT) != other.get(field, ABSENT)]


def digest(values: Any) -> str:
    """Eight letters for JSON values, to tell the names of files and folders apart."""
    text = json.dumps(values, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def load_config(workdir: str) -> ml_collections.ConfigDict:
    """The config of the run in a folder.

    Raises:
      UsageError: when there is none, or it cannot be read.
    """
    path = os.path.join(workdir, "config.json")
    if not os.path.isfile(path):
        raise UsageError(f"{workdir} holds no run (no config.json): train there first.")
    try:
        return ml_collections.ConfigDict(BEFORE | read_json(path))
    except (ValueError, TypeError, AttributeError) as error:  # names that no field can have
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{path} is not a config ({error}); the run's folder is damaged."
        ) from None


def write_json(path: str, values: dict[str, Any]) -> None:
    """Writes a JSON file whole or not at all."""
    partial = path + ".partial"
    with open(partial, "w") as file:
        json.dump(values, file, indent=2, sort_keys=True)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def read_json(path: str) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
      UsageError: when the file is not one.
    """
    try:
        with open(path) as file:
            values = json.load(file)
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(f"{path} cannot be read ({error}); the run's folder is damaged.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a JSON object; the run's folder is damaged.")
    return values


class MetricsLog:
    """metrics.jsonl, a line an epoch, and the same values as TensorBoard events."""

    def __init__(self, workdir: str, epochs_done: int):
        """Goes on after `epochs_done` epochs: drops later lines, and any cut off in the middle."""
        # Late: not needed to import the package. Not its SummaryWriter, which writes in a thread:
        # a full disk ends that thread, and then training would wait for it forever.
        from tensorboardX.event_file_writer import EventsWriter

        self._path = os.path.join(workdir, "metrics.jsonl")
        kept = [row for row in read_metrics(workdir) if row["epoch"] <= epochs_done]
        partial = self._path + ".partial"
        with open(partial, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        os.replace(partial, self._path)
        self._file = open(self._path, "a")  # noqa: SIM115 - closed in __exit__
        folder = os.path.join(workdir, "tensorboard")
        os.makedirs(folder, exist_ok=True)
        self._events = EventsWriter(os.path.join(folder, "events"), f".{epochs_done}")
        self._flushed = time.monotonic()
        self._add_event(epochs_done + 1, file_version="brain.Event:2")
        # TensorBoard drops what it has of this step and the later ones.
        self._add_event(epochs_done + 1, session_log={"status": "START"})

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        try:
            self._file.close()
        finally:
            self._events.close()

    def _add_event(self, step: int, **content) -> None:
        from tensorboardX.proto.event_pb2 import Event

        self._events.write_event(Event(wall_time=time.time(), step=step, **content))

    def write(self, row: dict[str, float]) -> None:
        """Adds the metrics of one epoch."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()
        values = [{"tag": name, "simple_value": row[name]} for name in row if name != "epoch"]
        self._add_event(row["epoch"], summary={"value": values})
        if time.monotonic() - self._flushed > SECONDS_BETWEEN_FLUSHES:
            self._events.flush()
            self._flushed = time.monotonic()


def read_metrics(workdir: str) -> list[dict[str, float]]:
    """The rows of metrics.jsonl up to the first that is not whole."""
    rows: list[dict[str, float]] = []
    path = os.path.join(workdir, "metrics.jsonl")
    if not os.path.exists(path):
        return rows
    with open(path, errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
                if type(row["epoch"]) is not int or (rows and row["epoch"] <= rows[-1]["epoch"]):
                    break
                # A two-level model has more of them than METRICS.
                if not all(math.isfinite(row[name]) for name in (rows[0] if rows else METRICS)):
                    break
            except (ValueError, KeyError, TypeError, RecursionError):
                break
            rows.append(row)
    return rows
