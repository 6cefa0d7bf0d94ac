"""SIGTERM (a preemption) and SIGINT (Ctrl-C), taken at a moment of our own choice."""

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from signal import SIGINT, SIGTERM
from types import FrameType

Handler = Callable[[int, FrameType | None], None]


@contextlib.contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Gives SIGTERM and SIGINT to a handler while the context lasts."""
    old = {number: signal.signal(number, handler) for number in (SIGTERM, SIGINT)}
    try:
        yield
    finally:
        for number, before in old.items():
            signal.signal(number, before)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raises a KeyboardInterrupt; the next signal ends the process at once.

    What ends may be waiting for a checkpoint that is being written; who asks again does not want
    to wait.
    """
    for other in (SIGTERM, SIGINT):
        signal.signal(other, leave)
    raise KeyboardInterrupt


def leave(number: int, frame: FrameType | None) -> None:
    """Ends the process at once, with the exit code of a signal."""
    os._exit(128 + number)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Gives SIGINT to `interrupt` while the context lasts, and for good once there has been one."""
    before = signal.signal(SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(SIGINT) is interrupt:
            signal.signal(SIGINT, before)


def _say(text: str) -> None:
    """Writes past Python's buffer: a handler may have interrupted a print of the same stream."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no stream, or none of a file
        os.write(sys.stdout.fileno(), text.encode())


class SignalFlag:
    """Remembers a signal until the epoch has ended; a second one interrupts at once."""

    def __init__(self):
        self.number = 0
        self._handled = handled_by(self._remember)

    def __enter__(self):
        self._handled.__enter__()
        return self

    def __exit__(self, *exception):
        if signal.getsignal(SIGINT) is not leave:
            self._handled.__exit__(None, None, None)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            interrupt(number, frame)
        self.number = number
        _say("Stopping after this epoch...\n")
