"""How much memory is left: of this machine, as far as this process may have it, and of a device."""

import contextlib
import os
import pathlib
import resource
from collections.abc import Iterator
from typing import Any, NamedTuple

PROC = pathlib.Path("/proc")
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# The limits of a process, with what it has already taken of each as a column of /proc/self/statm.
LIMITS = ((resource.RLIMIT_AS, "ulimit -v", 0), (resource.RLIMIT_DATA, "ulimit -d", 5))


class Free(NamedTuple):
    """Bytes that are left, and of what."""

    size: int
    where: str  # before the number in a sentence


def of_host() -> Free | None:
    """The least that this machine, this process's control group and its limits leave.

    None where the system does not say.
    """
    found = [*_of_machine(PROC / "meminfo"), *_of_cgroups(PROC / "self" / "cgroup", CGROUPS)]
    return min([*found, *_of_limits()], default=None)


def of_device(device: Any) -> Free | None:
    """What is left of an accelerator's memory; None where it has none of its own, or says not."""
    stats = device.memory_stats() or {}
    if "bytes_limit" not in stats:
        return None
    left = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return Free(max(0, left), f"{device.device_kind} leaves")


def is_limited() -> bool:
    """Whether this process has a limit of its own (ulimit)."""
    return bool(list(_of_limits()))


def limits_in_words() -> str:
    """This process's limits of memory: ulimit -v (4000000 KiB)."""
    limits = ((resource.getrlimit(kind)[0], name) for kind, name, _ in LIMITS)
    found = [f"{name} {size >> 10}" for size, name in limits if size != resource.RLIM_INFINITY]
    return " and ".join(found)


def _of_machine(path: pathlib.Path) -> Iterator[Free]:
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = (line.split(":") for line in path.read_text().splitlines())
        kib = {name: int(value.split()[0]) for name, value in lines}
        # What has been swapped out makes room.
        yield Free((kib["MemAvailable"] + kib["SwapFree"]) << 10, "what is free on this machine is")


def _of_cgroups(own: pathlib.Path, root: pathlib.Path) -> Iterator[Free]:
    """What the control group of this process, and those above it, leave."""
    with contextlib.suppress(OSError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            old = "memory" in controllers.split(",")
            if controllers and not old:
                continue
            top = root / "memory" if old else root
            names = OLD_FILES if old else NEW_FILES
            folder = top / path.lstrip("/")
            for place in (folder, *folder.parents):
                yield from _of_cgroup(place, *names)
                if place == top:
                    break


NEW_FILES = ("memory.max", "memory.current")
OLD_FILES = ("memory.limit_in_bytes", "memory.usage_in_bytes")


def _of_cgroup(folder: pathlib.Path, limit_name: str, used_name: str) -> Iterator[Free]:
    with contextlib.suppress(OSError, ValueError):  # "max" is no number: there is no limit
        limit, used = (int((folder / name).read_text()) for name in (limit_name, used_name))
        cached = 0
        with contextlib.suppress(OSError, ValueError):
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cached = int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))
        left = max(0, limit - max(0, used - cached))
        yield Free(left, f"the control group {folder} leaves")


def _of_limits() -> Iterator[Free]:
    for kind, name, column in LIMITS:
        limit, _ = resource.getrlimit(kind)
        if limit == resource.RLIM_INFINITY:
            continue
        with contextlib.suppress(OSError, ValueError, IndexError):
            pages = int((PROC / "self" / "statm").read_text().split()[column])
            used = pages * os.sysconf("SC_PAGE_SIZE")
            yield Free(max(0, limit - used), f"{name} {limit >> 10} leaves")
