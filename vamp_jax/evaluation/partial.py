"""A partial evaluation on disk, from which an interrupted one is resumed."""

import time
from collections.abc import Callable

import numpy as np

from vamp_jax import disk
from vamp_jax.log_likelihood import ImportanceSampled

SECONDS_BETWEEN_WRITES = 5.0
PLAIN = ("log_likelihood", "reconstruction", "effective_sample_size")


def writer(path: str, identity: str, seconds: float = 0.0) -> Callable[..., None]:
    """Makes a function that writes what is done to `path`, every few seconds at most or at once.

    Args:
      path: of an .npz file.
      identity: tells this evaluation from every other; see `read`.
      seconds: already spent before the interruption.
    """
    start = last = time.monotonic()

    def keep(done: ImportanceSampled, at_once: bool = False) -> None:
        nonlocal last
        if time.monotonic() < last + SECONDS_BETWEEN_WRITES and not at_once:
            return
        last = time.monotonic()
        arrays = {name: getattr(done, name) for name in PLAIN}
        arrays |= {f"samples/{size}": values for size, values in done.with_fewer_samples.items()}
        arrays |= {f"kl/{layer}": values for layer, values in done.kl.items()}
        with disk.whole_file(path, "wb") as file:
            np.savez(file, identity=identity, seconds=seconds + last - start, **arrays)

    return keep


def read(path: str, identity: str) -> tuple[ImportanceSampled | None, float]:
    """Reads the estimates of the first examples that `writer` wrote, and the seconds they took.

    (None, 0.0) if there is nothing to resume: no file, a damaged one, or another evaluation's.
    """
    try:
        with disk.open_file(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            if str(file["identity"]) != identity:
                return None, 0.0
            arrays = {name: file[name] for name in file.files if name != "identity"}
            seconds = float(arrays.pop("seconds"))
        if {(array.dtype, array.shape) for array in arrays.values()} != {
            (np.dtype(np.float32), (len(arrays["log_likelihood"]),))
        }:
            return None, 0.0
        done = ImportanceSampled(
            **{name: arrays.pop(name) for name in PLAIN},
            kl={name[3:]: arrays.pop(name) for name in list(arrays) if name.startswith("kl/")},
            with_fewer_samples={int(name[8:]): array for name, array in arrays.items()},
        )
    except Exception:  # of a damaged file zipfile and numpy raise many kinds
        return None, 0.0
    return done, seconds
