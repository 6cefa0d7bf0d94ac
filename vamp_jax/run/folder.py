"""The folder of a run: its lock, its config, and the data files that it was trained on."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import ml_collections

from vamp_jax import choices, disk
from vamp_jax.config_fields import ABSENT, as_of_today
from vamp_jax.datasets import Dataset
from vamp_jax.disk import read_json, write_json
from vamp_jax.errors import UsageError

LOCK = ".lock"
LONGEST = 3800  # bytes: paths end at 4096, and a run's files have names of their own


@contextlib.contextmanager
def locked(folder: str, instead: str = "name another folder with --workdir") -> Iterator[None]:
    """Makes a folder and holds it for this process alone; the lock goes when the process does.

    Args:
      folder: need not exist.
      instead: what the user may do otherwise; ends the sentence.
    Raises:
      UsageError: when it cannot be written, or another process is at work in it.
    """
    if len(os.fsencode(os.path.abspath(folder))) > LONGEST:
        raise UsageError(f"{folder} is too long a name for what goes into it: {instead}.")
    with contextlib.ExitStack() as stack:
        try:
            os.makedirs(folder, exist_ok=True)
            stack.enter_context(disk.locked(os.path.join(folder, LOCK), wait=False))
        except BlockingIOError as error:
            raise UsageError(
                f"Another process is at work in {folder} ({error.strerror}): wait for it, or "
                f"{instead}."
            ) from None
        except OSError as error:
            raise UsageError(
                f"{folder} cannot be written ({error.strerror}): {instead}."
            ) from error
        yield


def claim(workdir: str, config: ml_collections.ConfigDict, dataset: Dataset) -> None:
    """Writes config.json and data.json, or checks that the run in the folder is this one.

    The same run for more epochs goes on: its first epochs are those that there are.

    Raises:
      UsageError: when the folder holds a run with another config or other data.
    """
    path = os.path.join(workdir, "config.json")
    if not os.path.exists(path):
        write_json(os.path.join(workdir, "data.json"), dict(dataset.file_hashes))
        write_json(path, config.to_dict())
        return
    held, here = as_of_today(read_json(path)), config.to_dict()
    longer = _is_longer(held, here)
    if not longer:
        _refuse_differences(workdir, held, here)
    elif here["learning_rate_schedule"] in choices.BY_LENGTH:
        raise UsageError(
            f"{workdir} holds a run with num_epochs {held['num_epochs']}, on which "
            f"learning_rate_schedule {here['learning_rate_schedule']!r} depends from the first "
            f"step on, so that one of {here['num_epochs']} is another run: name another folder "
            "with --workdir."
        )
    check_data(workdir, dataset)
    if longer:
        write_json(path, here)


def _is_longer(held: dict[str, Any], here: dict[str, Any]) -> bool:
    """Whether a config is that of a run in a folder with more epochs."""
    one, other = held.get("num_epochs"), here.get("num_epochs")
    if type(one) is not int or type(other) is not int:
        return False
    return differing(held, here) == ["num_epochs"] and other > one


class Identity(NamedTuple):
    """What makes a run: the fields of its config, and the SHA-256 of its data files."""

    config: dict[str, Any]
    data: dict[str, str]


def identity(workdir: str) -> Identity | None:
    """Reads what makes the run in a folder; None where the folder does not say.

    Raises:
      UsageError: when config.json or data.json cannot be read.
    """
    config, data = (os.path.join(workdir, name) for name in ("config.json", "data.json"))
    if not (os.path.exists(config) and os.path.exists(data)):
        return None
    return Identity(read_json(config), read_json(data))


def check_same_run(workdir: str, saved: Identity, where: str) -> None:
    """Raises a UsageError when something saved in a run's folder is not of the run it names.

    Args:
      saved: whose it is.
      where: what carries it, with its verb: "the checkpoint of epoch 3 has".
    """
    here = identity(workdir)
    if here is None:
        return
    for file, held, found in (
        ("config.json", as_of_today(here.config), as_of_today(saved.config)),
        ("data.json", here.data, saved.data),
    ):
        if _is_longer(found, held) and held["learning_rate_schedule"] not in choices.BY_LENGTH:
            continue  # trained further
        if fields := differing(held, found):
            differences = "; ".join(
                f"{field} {held.get(field, ABSENT)!r}, and {where} {found.get(field, ABSENT)!r}"
                for field in fields
            )
            raise UsageError(
                f"{workdir} mixes two runs: {file} has {differences}. Nothing there has been "
                "changed: put back what was edited or copied, or name another folder."
            )


def check_data(workdir: str, dataset: Dataset) -> None:
    """Raises a UsageError when the run in the folder was trained on other files."""
    held = read_json(os.path.join(workdir, "data.json"))
    _refuse_differences(workdir, held, dict(dataset.file_hashes))


def _refuse_differences(workdir: str, held: dict[str, Any], here: dict[str, Any]) -> None:
    if fields := differing(held, here):
        found = [
            f"{field} is {held.get(field, ABSENT)!r} there and {here.get(field, ABSENT)!r} here"
            for field in fields
        ]
        raise UsageError(
            f"{workdir} holds another run ({'; '.join(found)}): name another folder with --workdir."
        )


def differing(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The fields in which two configs differ, in alphabetical order."""
    fields = sorted(one.keys() | other.keys())
    return [field for field in fields if one.get(field, ABSENT) != other.get(field, ABSENT)]


def load_config(workdir: str) -> ml_collections.ConfigDict:
    """The config of the run in a folder.

    Raises:
      UsageError: when there is none, or it cannot be read.
    """
    path = os.path.join(workdir, "config.json")
    if not os.path.isfile(path):
        raise UsageError(f"{workdir} holds no run (no config.json): train there first.")
    try:
        return ml_collections.ConfigDict(as_of_today(read_json(path)))
    except (ValueError, TypeError, AttributeError) as error:  # names that no field can have
        if isinstance(error, UsageError):
            raise
        raise UsageError(
            f"{path} is not a config ({error}); the run's folder is damaged."
        ) from None
