"""Standard output and error that cannot stop a run: closed, broken, or of a narrow encoding.

What is printed is for whoever looks; a run's log is in its folder.
"""

import io
import os
import sys


class _Raw(io.FileIO):
    """A descriptor to which everything can be written, even if nobody reads it any more."""

    def write(self, data) -> int | None:
        try:
            return super().write(data)
        except OSError:  # the reader of a pipe has gone (| head -1), or a disk is full
            return len(data)


def secure() -> None:
    """Replaces the standard streams of this process; those that somebody else has set stay."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # Closed. The next file that is opened would be it, and get what libraries print.
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name)
        if stream is None or stream is getattr(sys, f"__{name}__"):
            if stream is not None:
                stream.flush()
            setattr(sys, name, _text(descriptor, getattr(stream, "encoding", "utf-8")))


def _text(descriptor: int, encoding: str) -> io.TextIOWrapper:
    raw = _Raw(descriptor, "w", closefd=False)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",  # of names that it cannot show
        line_buffering=descriptor == 2 or raw.isatty(),
    )
