"""Compiler flags that have to be set before JAX starts; imports nothing of JAX."""

import mmap
import os
import pathlib
import re
from importlib import util

# On a CPU, XLA's newer library takes part of every fusion. Without it a step of the ConvHVAE takes
# 1.46 s instead of 2.17 and of the PixelHVAE 1.64 instead of 2.17 (static MNIST, K = 500, batch
# 100, two cores, JAX 0.10.2), but one of the HVAE 15 to 17 ms instead of 14 to 15.
WITHOUT_YNN = "--xla_cpu_experimental_ynn_fusion_type="


def set_for(convolutional: bool) -> None:
    """Adds the flags that make such a model fast to XLA_FLAGS, unless they are there already."""
    flags = os.environ.get("XLA_FLAGS", "")
    if convolutional and WITHOUT_YNN not in flags and is_known(WITHOUT_YNN):
        os.environ["XLA_FLAGS"] = f"{flags} {WITHOUT_YNN}".strip()


def is_known(flag: str) -> bool:
    """Whether the jaxlib that is installed knows a flag; XLA aborts the process if it does not.

    The names of the flags stand in its libraries, each at most once in a hundred megabytes.
    """
    spec = util.find_spec("jaxlib")
    name = re.fullmatch(r"--(\w+)(=.*)?", flag)
    if spec is None or spec.origin is None or name is None:
        return False
    libraries = pathlib.Path(spec.origin).parent.rglob("*.so")
    for path in (path for path in libraries if path.stat().st_size):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
            if text.find(b"\0" + name[1].encode() + b"\0") >= 0:
                return True
    return False
