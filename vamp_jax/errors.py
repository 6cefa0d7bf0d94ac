"""Mistakes as one sentence: the exceptions that command lines print without a traceback."""

import difflib
import signal
from collections.abc import Sequence


class UsageError(ValueError):
    """A mistake that one sentence explains; command lines print it and exit with 2."""

    exit_code = 2


class NonFiniteLossError(RuntimeError):
    """The loss of an epoch was nan or infinite; exit code 1."""

    exit_code = 1


class PicturesError(RuntimeError):
    """An evaluation is written, but not all of its pictures; exit code 4."""

    exit_code = 4


class HostLostError(RuntimeError):
    """Another process of a run on several hosts has ended or cannot be reached; exit code 3."""

    exit_code = 3


class OutOfMemoryError(RuntimeError):
    """Memory ran out all the same; exit code 6, which is also that of a library's abort."""

    exit_code = 6

    def __init__(self, reason: str):
        super().__init__(
            f"Memory ran out ({reason}): checkpoints are good, and the same command goes on from "
            "the last one, where there is more memory; a smaller batch_size or eval_batch_size "
            "needs less, and a run of its own with smaller sizes of the model."
        )


class Stopped(Exception):
    """A signal asked the run to stop, and its state is saved; exit code 128 + its number."""

    def __init__(self, signal_number: int, done: Sequence[int]):
        name = signal.Signals(signal_number).name
        epochs = ", ".join(map(str, done))  # of each run
        super().__init__(
            f"{name}: saved after epoch {epochs}; the same command goes on from there."
        )
        self.exit_code = 128 + signal_number  # as a shell reports a process that a signal ended


class TimeIsUp(Exception):
    """What was to be done by a certain time is not done, and all is saved; exit code 5."""

    exit_code = 5


def check_choice(field: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises a UsageError unless the value is one of the choices."""
    if value not in choices:
        close = difflib.get_close_matches(str(value), choices, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"{field} is {value!r}; it must be one of {', '.join(choices)}.{hint}")


def check_listed(flag: str, values: Sequence[str] | None, example: str) -> None:
    """Raises a UsageError where a flag that is given lists nothing, or an empty item."""
    if values is not None and not all(values or [""]):
        raise UsageError(
            f"--{flag} is {','.join(values)!r}, in which "
            f"{'an item' if values else 'all'} is empty: pass --{flag}={example}."
        )


# What the system and libraries say where there is no memory left.
NO_MEMORY = (
    *("RESOURCE_EXHAUSTED", "Out of memory", "out of memory", "bad_alloc", "Cannot allocate"),
    "can't start new thread",  # for whose stack there is none
    "failed to map segment",  # of a library
    # Of Python's own code, which had no memory for an exception.
    *("without setting an exception", "without exception set"),
)


def out_of_memory(error: BaseException | None) -> BaseException | None:
    """The exception that says that there is no memory: this one, or one it came from, or None.

    A UsageError made of a MemoryError stays what it is: its sentence tells what is too large.
    """
    if error is None or isinstance(error, OutOfMemoryError | MemoryError):
        return error
    behind = error.__cause__ or error.__context__
    if isinstance(error, UsageError):
        found = out_of_memory(behind)
        return None if isinstance(found, MemoryError) else found
    if hasattr(error, "exit_code"):
        return None  # another of ours, which says what it is
    of_library = isinstance(error, RuntimeError | OSError | ImportError | SystemError)
    if of_library and any(words in str(error) for words in NO_MEMORY):
        return error
    return out_of_memory(behind)


def exit_code(error: BaseException) -> int:
    """The exit code of a command that ends by this exception."""
    if out_of_memory(error):
        return OutOfMemoryError.exit_code
    return getattr(error, "exit_code", 1)


def first_line(error: BaseException, length: int = 200) -> str:
    """The first line of what an exception says, or its name; without a full stop."""
    lines = str(error).strip().splitlines()
    return lines[0][:length].rstrip(".") if lines else type(error).__name__


def last_line(error: BaseException) -> str:
    """The last line of what an exception says, or its name."""
    return (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
