"""The log of a run's epochs: metrics.jsonl, and the same values as TensorBoard events."""

import hashlib
import json
import math
import os
import time

from vamp_jax import disk

# What every row of metrics.jsonl has, beside the epoch.
METRICS = ("train_loss", "val_loss", "val_reconstruction", "val_kl", "seconds")
SECONDS_BETWEEN_FLUSHES = 10.0  # of the TensorBoard events; each waits for the disk


class MetricsLog:
    """metrics.jsonl, a line an epoch, and the same values as TensorBoard events."""

    def __init__(self, workdir: str, epochs_done: int):
        """Continues after `epochs_done` epochs: drops later rows and those that are not whole."""
        # Late: not needed to import the package. Not its SummaryWriter, which writes in a thread:
        # a full disk ends that thread, and then training would wait for it forever.
        from tensorboardX.event_file_writer import EventsWriter

        self._path = os.path.join(workdir, "metrics.jsonl")
        kept = [row for row in read_metrics(workdir) if row["epoch"] <= epochs_done]
        with disk.whole_file(self._path) as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
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


def digest_up_to(workdir: str, epoch: int) -> str:
    """SHA-256 of the log's rows up to an epoch, or of those that there are, but for the seconds."""
    rows = [row | {"seconds": None} for row in read_metrics(workdir) if row["epoch"] <= epoch]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def read_metrics(workdir: str) -> list[dict[str, float]]:
    """The rows of metrics.jsonl, in the order of their epochs, without those that are not whole.

    A row is cut off where a process was killed; where one is damaged, it alone is left out.
    """
    rows: list[dict[str, float]] = []
    path = os.path.join(workdir, "metrics.jsonl")
    if not os.path.exists(path):
        return rows
    with disk.open_file(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                row = json.loads(line)
                if type(row["epoch"]) is not int or row["epoch"] <= last_epoch(rows):
                    continue
                # A two-level model has more of them than METRICS.
                if not all(math.isfinite(row[name]) for name in (rows[0] if rows else METRICS)):
                    continue
            except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
                continue
            rows.append(row)
    return rows


def last_epoch(rows: list[dict[str, float]]) -> int:
    """The epoch of the last of some rows; 0 without any."""
    return int(rows[-1]["epoch"]) if rows else 0
