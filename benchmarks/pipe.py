"""A worker's end of the conversation with `python -m benchmarks`; needs the standard library only.

A worker process prepares one task, says so, and then does one turn of it each time it is asked.
In between it sleeps, so that workers can take turns on one machine without disturbing each other.
Requests are words, answers JSON, one a line. `workers.py` has the other end.
"""

import json
import os
import resource
import sys


class Pipe:
    """Answers go where standard output went; what libraries print goes to standard error."""

    def __init__(self):
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.settings = json.loads(sys.argv[1])

    def answer(self, **values) -> None:
        """Sends the values, with the largest memory that the process has had so far."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # KiB on Linux
        self._answers.write(json.dumps(values | {"peak_mib": peak}) + "\n")
        self._answers.flush()

    def wait(self) -> str:
        """The next request; leaves the process when there are no more."""
        request = sys.stdin.readline().strip()
        if not request:
            sys.exit(0)
        return request
