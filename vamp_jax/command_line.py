"""What train.py and eval.py share: flags, and mistakes as one sentence with an exit code.

Exit codes: 0 done; 1 the run failed (a loss that is not finite); 2 a mistake in a flag, a config, a
file or a folder; 128 + n stopped by signal n with the state saved (143 SIGTERM, 130 SIGINT).
"""

import sys
from collections.abc import Callable

from absl import flags

from vamp_jax.errors import UsageError

__all__ = ["UsageError", "run"]


def run(main: Callable[[], None]) -> None:
    """Parses the flags and runs `main`; leaves with an exit code."""
    try:
        positional = flags.FLAGS(sys.argv)[1:]
        if positional:
            raise UsageError(f"{positional[0]!r} is not a flag: flags begin with --.")
        main()
    except UsageError as error:
        sys.exit(_told(error, 2))
    except flags.Error as error:
        sys.exit(_told(error, 2))


def _told(error: Exception, code: int) -> int:
    print(f"{sys.argv[0]}: {error}", file=sys.stderr, flush=True)
    return code
