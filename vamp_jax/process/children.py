"""Child processes beside each other, on cores of their own, whom a signal to this one reaches."""

import contextlib
import os
import subprocess
import time
from collections.abc import Hashable, Iterator, Sequence

from vamp_jax.errors import UsageError
from vamp_jax.process import signals

SECONDS_BETWEEN_LOOKS = 0.1

Cores = tuple[int, ...]  # numbers of cores, as the system has them


class Children:
    """Runs commands beside each other; a context manager.

    SIGTERM to this process is passed on to them. SIGINT is not: Ctrl-C goes to all processes of a
    terminal by itself. Whoever uses this looks at `received`, and waits until all have ended.
    """

    def __init__(self):
        self.received = 0  # the first signal
        self._processes: dict[Hashable, subprocess.Popen] = {}
        self._handled = signals.handled_by(self._pass_on)

    def __enter__(self):
        self._handled.__enter__()
        return self

    def __exit__(self, *exception):
        try:
            while self._processes:  # after an exception: none is left behind
                self.terminate()
                self.wait(SECONDS_BETWEEN_LOOKS)
        finally:
            self._handled.__exit__(None, None, None)

    def _pass_on(self, number: int, frame) -> None:
        self.received = self.received or number
        if number == signals.SIGTERM:
            self.terminate()

    def terminate(self) -> None:
        """Asks all of them to save their state and to end."""
        for process in list(self._processes.values()):
            process.terminate()

    def start(
        self, key: Hashable, command: list[str], cores: Cores | None = None, log: str | None = None
    ) -> None:
        """Starts a command.

        Args:
          key: names it in what `wait` returns.
          cores: those that it may use; None: as this process.
          log: a file that its output is added to; None: it is this process's.
        """
        with contextlib.ExitStack() as stack:
            output = None if log is None else stack.enter_context(open(log, "ab"))
            stack.enter_context(_on(cores))
            streams = {} if log is None else {"stdout": output, "stderr": subprocess.STDOUT}
            self._processes[key] = subprocess.Popen(command, **streams)
        if self.received == signals.SIGTERM:  # while it started
            self.terminate()

    def wait(self, seconds: float) -> dict[Hashable, int]:
        """The exit codes of those that have ended: of the first, or none after some seconds.

        Below 0 is the number of the signal that ended it.
        """
        until = time.monotonic() + seconds
        while True:
            codes = {key: process.poll() for key, process in self._processes.items()}
            ended = {key: code for key, code in codes.items() if code is not None}
            if ended or time.monotonic() >= until:
                for key in ended:
                    del self._processes[key]
                return ended
            time.sleep(SECONDS_BETWEEN_LOOKS)


@contextlib.contextmanager
def _on(cores: Cores | None) -> Iterator[None]:
    """What starts in this context has these cores: a process has those of its parent."""
    if cores is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def own_cores() -> Cores | None:
    """The cores that this process may use; None where the system does not say."""
    usable = getattr(os, "sched_getaffinity", None)
    return tuple(sorted(usable(0))) if usable else None


def shares(cores: Cores | None, count: int) -> Sequence[Cores | None]:
    """As many equal shares of the cores; of one process, or where cores are not known: None.

    Raises:
      UsageError: when there are fewer cores than that.
    """
    if count < 1:
        raise UsageError(f"parallel is {count}; it must be at least 1.")
    if cores is None or count == 1:
        return [None] * count
    if count > len(cores):
        raise UsageError(
            f"parallel is {count}, and this process may use {len(cores)} of the machine's cores: "
            "pass that at most, so that each run has one of its own."
        )
    size = len(cores) // count
    return [cores[i * size : (i + 1) * size] for i in range(count)]
