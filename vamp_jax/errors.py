"""The exceptions that the command lines print as one sentence, without a traceback."""

import signal


class UsageError(ValueError):
    """A mistake that one sentence explains; command lines print it and exit with 2."""

    exit_code = 2


class NonFiniteLossError(RuntimeError):
    """The loss of an epoch was nan or infinite; exit code 1."""

    exit_code = 1


class HostLostError(RuntimeError):
    """Another process of a run on several hosts has ended or cannot be reached; exit code 3."""

    exit_code = 3


class Stopped(Exception):
    """A signal asked the run to stop, and its state is saved; exit code 128 + its number."""

    def __init__(self, signal_number: int, done: int):
        name = signal.Signals(signal_number).name
        super().__init__(f"{name}: saved after epoch {done}; the same command goes on from there.")
        self.exit_code = 128 + signal_number  # as a shell reports a process that a signal ended
