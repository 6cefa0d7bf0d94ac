"""What an interrupted evaluation has done, kept in a file beside its result to go on from."""

import os
import time
from collections.abc import Callable

import numpy as np

from vamp_jax.log_likelihood import ImportanceSampled

SECONDS_BETWEEN_WRITES = 5.0
PLAIN = ("log_likelihood", "reconstruction", "effective_sample_size")


def keeper(path: str, identity: str, seconds: float = 0.0) -> Callable[[ImportanceSampled], None]:
    """A function that writes what is done to `path`, whole and at most every few seconds.

    Args:
      path: of an .npz file.
      identity: tells this evaluation from every other; see `read`.
      seconds: that what is gone on from took.
    """
    start = last = time.monotonic()

    def keep(done: ImportanceSampled) -> None:
        nonlocal last
        if time.monotonic() < last + SECONDS_BETWEEN_WRITES:
            return
        last = time.monotonic()
        arrays = {name: getattr(done, name) for name in PLAIN}
        arrays |= {f"samples/{size}": values for size, values in done.with_fewer_samples.items()}
        arrays |= {f"kl/{layer}": values for layer, values in done.kl.items()}
        with open(path + ".partial", "wb") as file:
            np.savez(file, identity=identity, seconds=seconds + last - start, **arrays)
        os.replace(path + ".partial", path)

    return keep


def read(path: str, identity: str) -> tuple[ImportanceSampled | None, float]:
    """What `keeper` wrote of the first examples, and the seconds that it took.

    (None, 0.0) where nothing can be gone on from: no file, a damaged or another evaluation's one.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
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
