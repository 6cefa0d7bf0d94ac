"""A partial evaluation on disk, from which an interrupted one is resumed.

What is done is a NamedTuple whose fields are arrays [N] of float32, or dicts of them.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from vamp_jax import disk, outside
from vamp_jax.process.progress import Progress
from vamp_jax.run import provenance

SECONDS_BETWEEN_WRITES = 5.0


def resumed(
    path: str,
    identity: dict[str, Any],
    kind: Callable[..., Any],
    what: str,
    total: int,
    estimate: Callable[..., Any],
) -> tuple[Any, float]:
    """Runs an estimate, from where it was interrupted; also returns the seconds it took in all.

    Args:
      path: of its unfinished file.
      identity: tells it from every other, with the run's "config"; it is resumed only by the same
        code, too. One that is not is begun anew, which is said.
      kind: the class of what it returns, a NamedTuple whose first field has one value an example.
      what, total: what is shown of its progress, and the number of examples.
      estimate: called with `done` and `report`, see `batches.in_dispatches`.
    """
    begun = time.monotonic()
    code = {"code": provenance.code_digest(), "parts": outside.digests(identity["config"])}
    known = json.dumps(identity | code, sort_keys=True)
    done, seconds = read(path, known, kind)
    keep = writer(path, known, seconds)
    count = len(done[0]) if done else 0
    if done:
        print(f"An interrupted evaluation goes on after {count} of {total} examples.")
    elif os.path.exists(path):
        print(
            "An interrupted evaluation begins anew: what is there is damaged, or of another "
            "checkpoint, other code or other hardware, and would not have the same bits."
        )
    with Progress(what, total, done=count, unit="example") as progress:

        def report(done: Any) -> None:
            keep(done)
            progress.show(len(done[0]))

        found = estimate(done=done, report=report)
        keep(found, at_once=True)
    return found, seconds + time.monotonic() - begun


def writer(path: str, identity: str, seconds: float = 0.0) -> Callable[..., None]:
    """Makes a function that writes what is done to `path`, every few seconds at most or at once.

    Args:
      path: of an .npz file.
      identity: tells this evaluation from every other; see `read`.
      seconds: already spent before the interruption.
    """
    start = last = time.monotonic()

    def keep(done: Any, at_once: bool = False) -> None:
        nonlocal last
        if time.monotonic() < last + SECONDS_BETWEEN_WRITES and not at_once:
            return
        last = time.monotonic()
        with disk.whole_file(path, "wb") as file:
            np.savez(file, identity=identity, seconds=seconds + last - start, **_arrays(done))

    return keep


def read(path: str, identity: str, kind: Callable[..., Any]) -> tuple[Any, float]:
    """Reads the estimates of the first examples that `writer` wrote, and the seconds they took.

    (None, 0.0) if there is nothing to resume: no file, a damaged one, or another evaluation's.

    Args:
      path, identity: as `writer` got them.
      kind: the NamedTuple's class.
    """
    try:
        with disk.open_file(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["identity"]) != identity:
                return None, 0.0
            arrays = {name: file[name] for name in file.files if name != "identity"}
            seconds = float(arrays.pop("seconds"))
        shapes = {(array.dtype, array.shape) for array in arrays.values()}
        ((dtype, (_,)),) = shapes  # of all the same, and one axis
        if dtype != np.float32:
            return None, 0.0
        return kind(**_fields(arrays, kind._fields)), seconds
    except Exception:  # of a damaged file zipfile and numpy raise many kinds
        return None, 0.0


def _arrays(done: Any) -> dict[str, np.ndarray]:
    """The arrays of a NamedTuple by name: 'field', or 'field/key' of those in a dict."""
    found = {}
    for field, value in done._asdict().items():
        if isinstance(value, dict):
            found |= {f"{field}/{key}": part for key, part in value.items()}
        else:
            found[field] = value
    return found


def _fields(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> dict[str, Any]:
    """What `_arrays` took apart; a field without arrays was an empty dict."""
    found: dict[str, Any] = {name: {} for name in names}
    for name, array in arrays.items():
        field, _, key = name.partition("/")
        if key:
            found[field][int(key) if key.isdigit() else key] = array
        else:
            found[field] = array
    return found
