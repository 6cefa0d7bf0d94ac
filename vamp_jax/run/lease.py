"""A lock in a bucket: an object that its holder writes anew as long as it is alive.

Who finds one watches it. When its generation has not changed for `EXPIRES` seconds, whatever the
clocks of the machines say, its holder is gone, and it is taken over in place of just that
generation, so that of several who try one succeeds. A holder that was away for so long finds out at
its next beat, and stops. Of a process that ended on this machine nobody has to wait for anything.
"""

import contextlib
import json
import os
import socket
import time
import uuid

from vamp_jax.bucket import Bucket, Changed

BEAT = 15.0  # seconds from one renewal to the next
EXPIRES = 60.0  # seconds without a renewal


class Lease:
    """A lock that this process holds; `renew` it every `BEAT` seconds."""

    def __init__(self, bucket: Bucket, name: str):
        """Takes the lock, after watching one that is there.

        Raises:
          BlockingIOError: another process holds it, whom strerror names.
          BucketError: the bucket cannot be read or written.
        """
        self._bucket, self._name = bucket, name
        now = time.strftime("%Y-%m-%d %H:%M:%S %Z")
        holder = f"process {os.getpid()} on {socket.gethostname()}, since {now}"
        self._mine = {"holder": holder, "id": uuid.uuid4().hex, "process": _this_process()}
        self._beats = 0
        self._generation = self._take()

    def _take(self) -> bytes:
        start, watched, holder = time.monotonic(), None, ""
        while True:
            found = self._bucket.read(self._name)
            if watched is None and found.value is not None:
                watched, held = found.generation, _read(found.value)
                holder = str(held.get("holder", "another process"))
                if not _has_ended(held.get("process")):
                    print(
                        f"Watching for {EXPIRES:.0f} s whether {holder}, still holds "
                        f"{self._bucket.address}.",
                        flush=True,
                    )
                    time.sleep(min(EXPIRES, 1.0))
                    continue
            elif found.value is not None and found.generation != watched:
                raise BlockingIOError(0, holder)
            elif found.value is not None and time.monotonic() - start < EXPIRES:
                time.sleep(min(EXPIRES, 1.0))
                continue
            with contextlib.suppress(Changed):  # another was quicker: look again
                return self._bucket.write(self._name, self._text(), found.generation)

    def renew(self) -> None:
        """Shows that the holder is alive, or raises `Changed` when another took the lock over."""
        self._beats += 1
        self._generation = self._bucket.write(self._name, self._text(), self._generation)

    def let_go(self) -> None:
        """Removes the lock, unless another took it over."""
        with contextlib.suppress(Changed):
            self._bucket.write(self._name, None, self._generation)

    def _text(self) -> bytes:
        return json.dumps(self._mine | {"beats": self._beats}).encode()


def _read(text: bytes) -> dict:
    try:
        held = json.loads(text)
        return held if isinstance(held, dict) else {}
    except (ValueError, RecursionError):
        return {}


def _machine() -> list[str] | None:
    """What tells this machine, since it was started, from others; None where nothing does."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return [socket.gethostname(), file.read().strip(), os.readlink("/proc/self/ns/pid")]
    except OSError:
        return None


def _started(pid: int) -> str | None:
    """When a process of this machine started, in its own count; None if there is none."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *others = file.read().rpartition(b")")[2].split()
        return None if state == b"Z" else others[18].decode()
    except (OSError, ValueError, IndexError):
        return None


def _this_process() -> dict:
    return {"machine": _machine(), "pid": os.getpid(), "started": _started(os.getpid())}


def _has_ended(process: object) -> bool:
    """Whether a process is known to have ended: it was on this machine."""
    if not isinstance(process, dict) or type(pid := process.get("pid")) is not int:
        return False
    machine = process.get("machine")
    return machine is not None and machine == _machine() and _started(pid) != process.get("started")
