"""What made a result: the commit and digest of the code, package versions, the hardware."""

import hashlib
import importlib.metadata
import os
import pathlib
import platform
import subprocess

from vamp_jax.disk import read_json, write_json
from vamp_jax.errors import UsageError

PACKAGE = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def note_commit(workdir: str, epochs_done: int) -> None:
    """Adds the commit of this code, which is about to train, to the run's code.json."""
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
    root = str(PACKAGE.parent)
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


def versions() -> dict[str, str]:
    """The versions of the packages that make the numbers."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def code_digest() -> str:
    """SHA-256 of this package's code."""
    digest = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def hardware() -> str:
    """The devices in words: their kind, and how many of them or of cores."""
    import jax  # late: the rest of this module does without it

    kind = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        # Not every system says which of its cores a process may use.
        usable = getattr(os, "sched_getaffinity", None)
        cores = len(usable(0)) if usable else os.cpu_count()
        return f"{platform.machine()} {kind}, {cores} cores"
    return f"{jax.local_device_count()} x {kind}"
