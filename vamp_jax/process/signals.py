"""SIGTERM (a preemption) and SIGINT (Ctrl-C), taken at a moment of our own choice."""

import contextlib
import signal
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


class SignalFlag:
    """Remembers a signal until the epoch has ended; a second one interrupts at once."""

    def __init__(self):
        self.number = 0
        self._handled = handled_by(self._remember)

    def __enter__(self):
        self._handled.__enter__()
        return self

    def __exit__(self, *exception):
        self._handled.__exit__(*exception)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
        print("Stopping after this epoch...", flush=True)
