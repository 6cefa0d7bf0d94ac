"""A run's folder as an archive for another machine: what it needs to go on and to be evaluated."""

import os
import tarfile

from vamp_jax import disk
from vamp_jax.errors import UsageError
from vamp_jax.run.folder import LOCK, load_config, locked

FILES = ("config.json", "data.json", "code.json", "metrics.jsonl", "eval")
LARGEST = 16 << 20  # bytes of a file; a larger archive is cut into parts


def pack(workdir: str) -> list[str]:
    """Writes WORKDIR.tar.gz; returns the files written.

    Of the checkpoints it has the newest one that can be read. `tar xf` unpacks it. What can be made
    again (pictures, model.npz, TensorBoard's events) stays behind. Above `LARGEST` bytes it is cut
    into WORKDIR.tar.gz.0, .1, ... for `cat` before `tar`.

    Raises:
      UsageError: when the folder holds no run or no checkpoint that can be read, or a process is
        at work in it.
    """
    from vamp_jax.training.checkpoints import Checkpoints  # late: imports orbax

    load_config(workdir)
    workdir = os.path.abspath(workdir)
    path = f"{workdir}.tar.gz"
    with locked(workdir, "stop it first"):
        with Checkpoints(workdir, read_only=True) as checkpoints:
            newest = checkpoints.newest_readable()
        if newest is None:
            raise UsageError(f"{workdir} holds no checkpoint yet: train there first.")
        disk.check_files(workdir)
        with disk.whole_file(path, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as tar:
            for name in (*FILES, os.path.join("checkpoints", str(newest))):
                if os.path.exists(held := os.path.join(workdir, name)):
                    tar.add(held, os.path.join(os.path.basename(workdir), name), filter=_for_travel)
    return _in_parts(path)


def _for_travel(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Leaves out locks, and who owns the files here."""
    if os.path.basename(member.name) == LOCK:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def _in_parts(path: str) -> list[str]:
    """Cuts a file that is too large; removes the parts of an earlier one."""
    count = -(-os.path.getsize(path) // LARGEST)
    parts = [] if count == 1 else [f"{path}.{i:0{len(str(count - 1))}d}" for i in range(count)]
    with open(path, "rb") as file:
        for part in parts:
            with disk.whole_file(part, "wb") as target:
                target.write(file.read(LARGEST))
    for name in os.listdir(os.path.dirname(path)):
        stem, _, number = name.rpartition(".")
        held = os.path.join(os.path.dirname(path), name)
        if stem == os.path.basename(path) and number.isdecimal() and held not in parts:
            os.remove(held)
    if parts:
        os.remove(path)
    return parts or [path]
