"""Progress of long work: a bar on a terminal, plain lines in a log."""

import shutil
import sys
import time

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 2.0


class Progress:
    """Counts up to `total`; a context manager."""

    def __init__(self, what: str, total: int, done: int = 0, unit: str = "epoch"):
        self._what, self._total, self._done, self._unit = what, total, done, unit
        self._last_line = 0.0
        self._bar = None
        if sys.stderr.isatty():
            # Not tqdm's own idea of it, which is nothing where a terminal does not tell its size.
            columns, lines = shutil.get_terminal_size()
            self._bar = tqdm(
                total=total, initial=done, desc=what, unit=unit, ncols=columns, nrows=lines
            )

    def __enter__(self):
        if self._done < self._total:  # a compilation of minutes should not look like nothing
            self.show(self._done, "compiling")
            self._last_line = 0.0
        return self

    def __exit__(self, *exception):
        if self._bar is not None:
            self._bar.close()

    def show(self, done: int, text: str = "", last: bool = False) -> None:
        """Shows how many are done; lines come at most every two seconds, and always the last."""
        if self._bar is not None:
            self._bar.n = done
            self._bar.set_postfix_str(text)
        elif last or done == self._total or time.monotonic() > self._last_line:
            self._last_line = time.monotonic() + SECONDS_BETWEEN_LINES
            print(f"{self._what}: {self._unit} {done}/{self._total}  {text}".rstrip(), flush=True)
