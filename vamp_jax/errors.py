"""The one exception that the command lines print without a traceback."""


class UsageError(ValueError):
    """A mistake that one sentence explains; command lines print it and exit with 2."""
