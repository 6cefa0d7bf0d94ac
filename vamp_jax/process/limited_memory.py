"""Under `ulimit -v` or `-d` a library that gets no memory aborts, or waits for ever: says so.

There is nothing that the process itself could still do then, so a second one, of a megabyte, looks
at it: forked before JAX starts, and only where there is such a limit.
"""

import contextlib
import ctypes
import os
import pathlib
import signal
import sys
import time
from collections.abc import Iterator

from vamp_jax.errors import OutOfMemoryError
from vamp_jax.process import free_memory

SECONDS = 30  # without a moment of work, all threads waiting for one another
DONE = b"."
CRASHES = (signal.SIGSEGV, signal.SIGBUS)


@contextlib.contextmanager
def watched() -> Iterator[None]:
    """Has this process watched while the context lasts, where its memory is limited."""
    of_several = any(argument.lstrip("-").startswith("hosts") for argument in sys.argv)
    if of_several or not free_memory.is_limited() or not pathlib.Path("/proc/self/task").exists():
        yield
        return
    told, tells = os.pipe()
    process = os.getpid()
    if (watcher := os.fork()) == 0:
        os.close(tells)
        _watch(process, told)
    os.close(told)
    _leave_without_python()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.write(tells, DONE)
        os.close(tells)
        os.waitpid(watcher, 0)


def _leave_without_python() -> None:
    """Lets the C library end the process at an abort or a crash, with exit code 6 and no core file.

    An aborting thread may never get Python's lock.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes, library.signal.restype = (
        [ctypes.c_int, ctypes.c_void_p],
        ctypes.c_void_p,
    )
    at = {signal.SIGABRT: library._exit}  # with the signal's number, which is 6
    at |= dict.fromkeys(CRASHES, library.abort)
    for number, function in at.items():
        library.signal(number, ctypes.cast(function, ctypes.c_void_p))


def _watch(process: int, told: int) -> None:
    """The second process: ends with the first, after a sentence if it went without a word."""
    with contextlib.suppress(BaseException):
        os.setsid()  # Ctrl-C is for the first
        os.set_blocking(told, False)
        idle, before = 0, -1.0
        while True:
            time.sleep(1.0)
            with contextlib.suppress(BlockingIOError):
                if os.read(told, 1) != DONE:
                    _say("a library aborted")
                break
            now = _work_of(process)
            idle = idle + 1 if now is not None and now == before else 0
            before = now
            if idle >= SECONDS:
                _say(f"nothing has moved for {SECONDS} s")
                os.kill(process, signal.SIGABRT)
                break
    os._exit(0)


def _work_of(process: int) -> float | None:
    """Ticks of processor time of all threads; None unless all sleep and the first waits for one."""
    total = 0.0
    try:
        tasks = pathlib.Path(f"/proc/{process}/task")
        if not (tasks / str(process) / "wchan").read_text().startswith("futex"):
            return None
        for task in tasks.iterdir():
            state, *fields = (task / "stat").read_text().rpartition(")")[2].split()
            if state != "S":
                return None
            total += int(fields[10]) + int(fields[11])
    except (OSError, ValueError, IndexError):
        return None
    return total


def _say(what: str) -> None:
    left = free_memory.limits_in_words()
    error = OutOfMemoryError(f"{what} under {left}")
    os.write(2, f"{os.path.basename(sys.argv[0])}: {error}\n".encode(errors="backslashreplace"))
