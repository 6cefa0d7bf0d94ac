"""Several runs by one command: --seeds=0,1,2 and --vary=FIELD:VALUE,VALUE; imports no JAX.

They are trained at once (training/slots.py), so they may differ in numbers alone, not in what is
compiled.
"""

import os
from typing import Any

import ml_collections

from vamp_jax import choices
from vamp_jax.bucket import is_address
from vamp_jax.config_fields import FIELDS
from vamp_jax.errors import UsageError, check_choice

# Numbers: of the program, which takes them as arguments (slots.NUMBERS), and of what is around it.
FIELDS_OF_RUNS = (
    *("seed", "learning_rate"),
    *("num_epochs", "early_stopping_epochs", "num_samples"),
)
Values = dict[str, list[Any]]


def parse(seeds: list[str] | None, vary: list[str]) -> Values:
    """Returns the values of each field that the flags name; none where no flag is given.

    Args:
      seeds: of --seeds.
      vary: of --vary, each FIELD:VALUE,VALUE,...
    Raises:
      UsageError: for a field that cannot differ, and for a value that is none or named twice.
    """
    given = [] if seeds is None else [("--seeds", "seed", seeds)]
    for text in vary:
        field, colon, values = text.partition(":")
        if not colon:
            raise UsageError(f"--vary is {text!r}; it must be FIELD:VALUE,VALUE,...")
        given.append((f"--vary={field}", field, values.split(",")))
    found: Values = {}
    for flag, field, values in given:
        if field in FIELDS and field not in FIELDS_OF_RUNS:
            raise UsageError(
                f"{flag} cannot be: runs that are trained at once differ in "
                f"{', '.join(FIELDS_OF_RUNS)} alone; give each {field} a command of its own."
            )
        check_choice("--vary", field, FIELDS_OF_RUNS)
        if field in found:
            raise UsageError(f"{field} is listed twice: name all its values in one flag.")
        found[field] = [_value(flag, field, value) for value in values]
        for value in found[field]:
            if found[field].count(value) > 1:
                raise UsageError(f"{flag} has {value} twice: name each value once.")
    return found


def _value(flag: str, field: str, text: str) -> int | float:
    kind = type(FIELDS[field].default)
    try:
        return kind(text)
    except ValueError:
        pass
    wanted = "whole numbers" if kind is int else "numbers"
    example = "--seeds=0,1,2" if flag == "--seeds" else f"--vary={field}:VALUE,VALUE"
    raise UsageError(f"{flag} has {text!r}; it takes {wanted} with commas between: {example}.")


def configs_and_folders(
    config: ml_collections.ConfigDict, values: Values, workdir: str | None, default: str
) -> list[tuple[ml_collections.ConfigDict, str]]:
    """Returns the config and the folder of each run, the first value of the last flag first.

    A folder is that of the run alone: runs/CONFIG-DATASET-seedSEED, or DIR with the field and the
    value behind it: DIR-seed0. Of --vary these come behind the former, too.

    Args:
      workdir: DIR of --workdir, or None.
      default: runs/CONFIG-DATASET.
    Raises:
      UsageError: where runs would differ in what the program of all depends on.
    """
    if not values:
        return [(config, workdir or f"{default}-seed{config.get('seed')}")]
    if config.get("learning_rate_schedule") in choices.BY_LENGTH:
        for field in ("num_epochs", "learning_rate"):
            if field in values:
                raise UsageError(
                    f"--vary={field} goes with learning_rate_schedule 'constant': the program of "
                    f"{config.learning_rate_schedule!r} depends on it."
                )
    runs: list[dict[str, Any]] = [{}]
    for field, listed in values.items():
        runs = [run | {field: value} for value in listed for run in runs]
    result = []
    for run in runs:
        changed = ml_collections.ConfigDict(config.to_dict() | run)
        folder = f"{default}-seed{changed.seed}"
        if workdir:  # of an address // has to stay
            folder = workdir.rstrip("/") if is_address(workdir) else os.path.normpath(workdir)
        named = [field for field in run if workdir or field != "seed"]
        folder += "".join(f"-{field}{run[field]}" for field in named)
        result.append((changed, folder))
    return result
