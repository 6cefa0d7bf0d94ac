"""JAX's cache of compiled programs, on for train.py and eval.py: a second start need not compile.

It lies in ~/.cache/vamp_jax/xla-... (or under XDG_CACHE_HOME). JAX_COMPILATION_CACHE_DIR names
another folder; JAX_ENABLE_COMPILATION_CACHE=false turns it off.
"""

import os
import platform
import tempfile
import warnings
from pathlib import Path

import jax

from vamp_jax import disk


def enable() -> None:
    """Turns the cache on, unless the environment has settled where it is."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "vamp_jax" / f"xla-{_processor()}"
    try:
        str(folder).encode()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, UnicodeError):  # a home that cannot be written costs time, not the run
        return
    # A cache that is full or damaged costs time; each entry that cannot be written would be said.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _processor() -> str:
    """A name for the processor: a program compiled for another one may not run on this."""
    features = platform.machine()
    try:
        with open("/proc/cpuinfo") as file:
            features += next((line for line in file if line.startswith(("flags", "Features"))), "")
    except OSError:
        pass
    return disk.digest(features)
