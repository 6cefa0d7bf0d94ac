"""Parts from outside the package, which a config names as module:Name.

A config file is code that its user trusts, so what it names is imported too, by `allow`. A run's
folder and a model file may come from anybody: what they name is never imported, only looked up
among what has been allowed.
"""

import hashlib
import importlib
import inspect
import os
import pathlib
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from vamp_jax import datasets
from vamp_jax.errors import UsageError, first_line

FIELDS = ("model", "prior", "posterior", "likelihood", "objective", "dataset")
_NAME = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)

_allowed: dict[str, Any] = {}  # module:Name -> what it names


def is_name(value: Any) -> bool:
    """Whether this names a part from outside (and not data by the place where it lies)."""
    return (
        isinstance(value, str) and _NAME.fullmatch(value) is not None and not datasets.is_own(value)
    )


def named(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the fields that name a part from outside, with those names."""
    return {field: config[field] for field in FIELDS if is_name(config.get(field))}


def allow(config: Mapping[str, Any], beside: str | None = None) -> None:
    """Imports the parts that a config names. Only for a config that its user trusts.

    Args:
      config: a config, or any fields of one: {"model": "my.nets:Net"}.
      beside: a file; modules in its folder are found, too, after those that are installed.
    Raises:
      UsageError: when one cannot be imported, or is no function and no class.
    """
    parts = named(config)
    if parts and beside is not None:
        sys.path.append(os.path.dirname(os.path.abspath(beside)))
    for field, name in parts.items():
        _allowed[name] = _imported(field, name)


def allow_for_run(
    workdir: str, config: Mapping[str, Any], trusted: Mapping[str, Any] | None, beside: str | None
) -> None:
    """Imports the parts of a run, if a config that the user trusts names the same.

    Args:
      workdir, config: the folder of the run, and the config in it, which nobody has to trust.
      trusted, beside: the config of a file that the user named, and the file; None without.
    Raises:
      UsageError: when no config is named, or it has other parts, or the run has none, or as for
        `allow`.
    """
    parts = named(config)
    if not parts and trusted is not None:
        raise UsageError(
            f"--config is for a run with parts from outside the package, and {workdir} has none: "
            "leave it out, since the config of the run is in its folder."
        )
    if not parts:
        return
    if trusted is None:
        shown = ", ".join(f"{field} {name!r}" for field, name in parts.items())
        raise UsageError(
            f"{workdir} has parts from outside the package ({shown}), and what a folder names is "
            "never imported: pass --config=FILE, the config that the run was trained with."
        )
    for field, name in parts.items():
        if trusted.get(field) != name:
            raise UsageError(
                f"{field} is {name!r} in {workdir} and {trusted.get(field)!r} in --config: pass "
                "the config that the run was trained with."
            )
    allow(trusted, beside)


def check_allowed(config: Mapping[str, Any], fields: Iterable[str]) -> None:
    """Raises a UsageError that names all parts of these fields that have not been allowed."""
    parts = named({field: config.get(field) for field in fields})
    if missing := {field: name for field, name in parts.items() if name not in _allowed}:
        shown = ", ".join(f"{field} {name!r}" for field, name in missing.items())
        raise UsageError(
            f"There are parts from outside the package ({shown}), and what a folder or a file "
            "names is never imported: if you trust it, eval.py takes --config=FILE, and in Python "
            f"vamp_jax.outside.allow({missing}, beside=FILE) comes first, where FILE is the config "
            "that the run was trained with."
        )


def part(name: str) -> Any:
    """Returns an allowed part.

    Raises:
      UsageError: for any other, which only a run's folder or a model file has named.
    """
    if name not in _allowed:
        raise UsageError(
            f"{name!r} is a part from outside the package, and what a folder or a file names is "
            "never imported: if you trust it, eval.py takes --config=FILE, and in Python there is "
            "vamp_jax.outside.allow."
        )
    return _allowed[name]


def call(name: str, *args: Any, **kwargs: Any) -> Any:
    """Calls an allowed part; a UsageError where it takes other arguments."""
    function = part(name)
    try:
        inspect.signature(function).bind(*args, **kwargs)
    except TypeError as error:
        raise UsageError(
            f"{name!r} does not take the arguments of its kind ({first_line(error)}): see "
            "docs/extending.md."
        ) from None
    return function(*args, **kwargs)


def checked(name: str, value: Any, attributes: Iterable[str]) -> Any:
    """Returns what a part has made; a UsageError where it lacks one of the attributes."""
    if lacking := [attribute for attribute in attributes if not hasattr(value, attribute)]:
        raise UsageError(
            f"{name!r} gives a {type(value).__name__} without {', '.join(lacking)}: see "
            "docs/extending.md."
        )
    return value


def made(
    table: Mapping[str, Callable[..., Any]], name: str, attributes: Iterable[str], *args: Any
) -> Any:
    """Returns what a table's entry makes, or else the part of this name, seen to be complete."""
    return table[name](*args) if name in table else checked(name, call(name, *args), attributes)


def digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Returns the SHA-256 of the file of each part that a config names, all of them allowed."""
    result = {}
    for name in named(config).values():
        file = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
        if file is not None:
            result[name] = hashlib.sha256(pathlib.Path(file).read_bytes()).hexdigest()
    return result


def _imported(field: str, name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"{field} is {name!r}, and {module_name} cannot be imported ({_cause(error)}): it must "
            "lie beside the config file, or be installed."
        ) from None
    found = getattr(module, attribute, None)
    if not callable(found):
        where = getattr(module, "__file__", None) or module_name
        raise UsageError(
            f"{field} is {name!r}, and {where} has no function or class {attribute!r}."
        )
    return found


def _cause(error: BaseException) -> str:
    """What an exception says, and where it was raised."""
    said = f"{type(error).__name__}: {first_line(error)}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    within = last.filename.startswith("<") or last.filename == importlib.__file__
    return said if within else f"{said}, in {last.filename}, line {last.lineno}"
