"""The configs that come with the package, by name: the files of configs/.

They lie at the root of a checkout; an installation has them in vamp_jax/configs/.
"""

import importlib.util
import os
import pathlib
from collections.abc import Callable

import ml_collections

from vamp_jax.errors import check_choice

PACKAGE = pathlib.Path(__file__).resolve().parent


def folder() -> pathlib.Path:
    """Returns where the files lie."""
    installed = PACKAGE / "configs"
    return installed if installed.is_dir() else PACKAGE.parent / "configs"


def names() -> tuple[str, ...]:
    """Returns the names of the configs, in alphabetical order."""
    return tuple(sorted(path.stem for path in folder().glob("*.py") if path.stem[0] != "_"))


def get_config_of(name: str) -> Callable[..., ml_collections.ConfigDict]:
    """Returns the function of a config by its name: data set -> config."""
    spec = importlib.util.spec_from_file_location(f"config_{name}", folder() / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config


def with_path(value: str) -> str:
    """Returns NAME[:DATASET] with the path of the file in place of the name; a file as it is.

    Raises:
      UsageError: for a name that no config has.
    """
    name, colon, dataset = value.partition(":")
    if not name or os.path.exists(name) or os.sep in name or name.endswith(".py"):
        return value
    check_choice("config", name, names())
    return f"{folder() / name}.py{colon}{dataset}"


def with_paths(arguments: list[str]) -> list[str]:
    """Returns a command line in which --config has paths, see `with_path`."""
    result, is_value = [], False
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if is_value and argument[:1] != "-":
            argument = with_path(argument)
        elif equals and flag in ("--config", "-config"):
            argument = f"{flag}={with_path(value)}"
        is_value = argument in ("--config", "-config")
        result.append(argument)
    return result
