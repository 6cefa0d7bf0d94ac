"""Several runs by one command: --seeds=0,1,2 and --vary=FIELD:VALUE,VALUE; imports no JAX."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import ml_collections

from vamp_jax import choices
from vamp_jax.bucket import is_address
from vamp_jax.config_fields import FIELDS
from vamp_jax.errors import UsageError, check_choice

# What runs at once have in common: their data, where it lies, and how JAX is set for them.
SHARED = (*choices.OF_THE_DATA, "model", "data_placement", "matmul_precision")
FIELDS_OF_RUNS = tuple(field for field in FIELDS if field not in SHARED)
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
        if field in SHARED:
            raise UsageError(
                f"{flag} cannot be: runs at once have one {field}; give each a command of its own."
            )
        check_choice("--vary", field, FIELDS_OF_RUNS)
        if field in found:
            raise UsageError(f"{field} is listed twice: name all its values in one flag.")
        if not "".join(values):
            raise UsageError(f"{flag} names no value: {_example(flag, field)}.")
        found[field] = [_value(flag, field, value) for value in values]
        for value in found[field]:
            if found[field].count(value) > 1:
                raise UsageError(f"{flag} has {value} twice: name each value once.")
    return found


def _value(flag: str, field: str, text: str) -> int | float | bool | str:
    kind = type(FIELDS[field].default)
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        if kind is not bool:
            return kind(text)
    except ValueError:
        pass
    wanted = {int: "whole numbers", float: "numbers", bool: "true and false"}[kind]
    raise UsageError(
        f"{flag} has {text!r}; it takes {wanted} with commas between: {_example(flag, field)}."
    )


def _example(flag: str, field: str) -> str:
    return "--seeds=0,1,2" if flag == "--seeds" else f"--vary={field}:VALUE,VALUE"


def but_for_the_seed(
    configs: Iterable[ml_collections.ConfigDict],
) -> Iterator[ml_collections.ConfigDict]:
    """Goes through configs, but of those that differ in the seed alone through the first."""
    seen = []
    for config in configs:
        others = config.to_dict() | {"seed": 0}
        if others not in seen:
            seen.append(others)
            yield config


def configs_and_folders(
    config: ml_collections.ConfigDict, values: Values, workdir: str | None, default: str
) -> list[tuple[ml_collections.ConfigDict, str]]:
    """Returns the config and the folder of each run, the first value of the last flag first.

    A folder is that of the run alone: runs/CONFIG-DATASET-seedSEED, or DIR with the field and the
    value behind it: DIR-seed0. Of --vary these come behind the former, too.

    Args:
      workdir: DIR of --workdir, or None.
      default: runs/CONFIG-DATASET.
    """
    if not values:
        return [(config, workdir or f"{default}-seed{config.get('seed')}")]
    runs: list[dict[str, Any]] = [{}]
    for field, listed in values.items():
        runs = [run | {field: value} for value in listed for run in runs]
    result = []
    for run in runs:
        changed = ml_collections.ConfigDict(config.to_dict() | run)
        folder = f"{default}-seed{changed.get('seed')}"
        if workdir:  # of an address // has to stay
            folder = workdir.rstrip("/") if is_address(workdir) else os.path.normpath(workdir)
        named = [field for field in run if workdir or field != "seed"]
        folder += "".join(f"-{field}{run[field]}" for field in named)
        result.append((changed, folder))
    return result
