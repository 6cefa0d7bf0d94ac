"""What train.py and eval.py share: flags, and mistakes as one sentence with an exit code.

Exit codes: 0 done; 1 the run failed (a loss that is not finite); 2 a mistake in a flag, a config, a
file or a folder; 3 another process of a run on several hosts has ended or cannot be reached;
4 an evaluation is written, but not all of its pictures; 5 the time that was given is over, and
all is saved; 6 memory ran out;
128 + n stopped by signal n with the state saved (143 SIGTERM, 130 SIGINT).
"""

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator

from absl import app, flags

from vamp_jax import config_files, disk
from vamp_jax.errors import (
    HostLostError,
    NonFiniteLossError,
    OutOfMemoryError,
    PicturesError,
    Stopped,
    TimeIsUp,
    UsageError,
    first_line,
    last_line,
    out_of_memory,
)
from vamp_jax.process import limited_memory, signals, streams


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`; leaves with an exit code."""
    streams.secure()
    _let_libraries_warn()
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # or it tells of its caches
    try:
        with limited_memory.watched(), signals.interruptible(), _memory_explained():
            _parse()
            main()
    except (
        OutOfMemoryError,
        UsageError,
        NonFiniteLossError,
        HostLostError,
        PicturesError,
        Stopped,
        TimeIsUp,
    ) as error:
        print(f"{_program()}: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk above all
        print(f"{_program()}: {_disk(error)}", file=sys.stderr, flush=True)
        sys.exit(UsageError.exit_code)
    except KeyboardInterrupt:
        print(f"{_program()}: interrupted; the same command goes on.", file=sys.stderr, flush=True)
        signals.leave(signals.SIGINT, None)  # sys.exit would wait for what is being computed


def config_path(values: flags.FlagValues) -> str:
    """The file of --config, without the data set that is named behind it."""
    from ml_collections import config_flags  # which most commands do without

    return config_flags.get_config_filename(values["config"]).partition(":")[0]


@contextlib.contextmanager
def _memory_explained() -> Iterator[None]:
    """Raises an OutOfMemoryError for what Python and libraries raise when memory runs out."""
    try:
        yield
    except (MemoryError, RuntimeError, OSError, ImportError, SystemError, UsageError) as error:
        found = out_of_memory(error)
        if found is None:
            raise
        raise OutOfMemoryError(first_line(found)) from None


def _program() -> str:
    return os.path.basename(sys.argv[0])


def _let_libraries_warn() -> None:
    """Under python -W error, what libraries say about themselves would end the program."""
    if any(option.startswith("error") for option in sys.warnoptions):
        warnings.simplefilter("default")
        for category in (DeprecationWarning, PendingDeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", category)


def _parse() -> None:
    """Parses the flags, and reads the config file that one of them names."""
    app.define_help_flags()
    config_flag = flags.FLAGS["config"] if "config" in flags.FLAGS else None
    arguments = sys.argv if config_flag is None else config_files.with_paths(sys.argv)
    try:
        positional = flags.FLAGS(arguments)[1:]
        if config_flag is not None and config_flag.value is not None:
            config_flag.value.to_dict()  # where a file cannot be read, this is what says so
        elif config_flag is not None and config_flag.present:
            raise ValueError("its get_config() returns None")
    except SystemExit:
        if any(a.lstrip("-").split("=")[0].startswith("help") for a in sys.argv[1:]):
            sys.exit(0)  # absl has printed the help, and would leave with 1
        raise UsageError("The config cannot be read: it leaves the program.") from None
    except flags.Error as error:
        if "Traceback" in str(error):  # of a config file: only its last line is the user's
            raise UsageError(f"The config cannot be read: {last_line(error)}") from None
        raise UsageError(f"{_one_line(error)} See --help.") from None
    except (AttributeError, KeyError) as error:  # ml_collections: no such field in the config
        field, hint = (re.search(p, str(error)) for p in (r"(\w+)", r'Did you mean "(\w+)"'))
        if not any(a.lstrip("-").startswith(f"config.{field and field[1]}") for a in sys.argv):
            raise UsageError(f"The config cannot be read: {last_line(error)}") from None
        from vamp_jax.config_fields import RENAMED

        meant = RENAMED.get(field[1], hint and hint[1])
        hint = f"Did you mean {meant!r}? " if meant else ""
        raise UsageError(
            f"The config has no field {field[1]!r}. {hint}docs/settings.md lists the fields."
        ) from None
    except Exception as error:  # whatever the config file raises
        config = next((a for a in sys.argv[1:] if a.lstrip("-").startswith("config=")), "--config")
        raise UsageError(f"{config} cannot be read: {last_line(error)}") from None
    if positional:
        raise UsageError(f"{positional[0]!r} is not a flag: flags begin with --.")


def _disk(error: OSError) -> str:
    name = error.filename if isinstance(error.filename, str) else ""
    folder = os.path.dirname(os.path.abspath(name))
    return (
        f"A file{f' {name!r}' if name else ''} cannot be read or written "
        f"({error.strerror or error}): {disk.advice(error, folder)}, and give the same command "
        "again; it goes on from the last checkpoint."
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") + "."
