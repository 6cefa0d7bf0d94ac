"""Checkpoints by orbax: the latest two, each with the best parameters so far beside it.

A checkpoint (its step is the number of epochs done) has these items: `state`, all that training
goes on from but for `best`, the best parameters so far, which evaluation reads without the rest;
`constants`, where a prior has fixed examples; and `info`, a few plain values with a SHA-256 over
the arrays of each, since a flipped bit on disk must not become a silently different run.

Checkpoints without a `format` in `info` are older: they hold the constants among the parameters
(see `_with_constants_as_parameters`), and their best epoch was chosen by the objective's bound.
"""

import contextlib
import functools
import gc
import hashlib
import os
import shutil
import sys
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from orbax.checkpoint import checkpoint_managers as ocm

from vamp_jax import disk
from vamp_jax.errors import UsageError, first_line
from vamp_jax.training import devices
from vamp_jax.training.state import TrainState

OVERHEAD = 128 << 10  # bytes of a checkpoint beside its arrays
BEST = ("best_params", "best_batch_stats")
FORMAT = 2


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for a save still under way.

    Of several hosts process 0 alone has them: the state is the same in all, and the others get what
    is restored from it (hosts.py).
    """

    def __init__(self, workdir: str, *, read_only: bool = False):
        logging.set_verbosity(logging.ERROR)  # orbax logs every file it touches
        self.directory = os.path.join(os.path.abspath(workdir), "checkpoints")
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocm.LatestN(2),
            read_only=read_only,
            create=False,
            # Or, of several hosts, orbax would wait for the others.
            multiprocessing_options=ocp.options.MultiprocessingOptions(active_processes={0}),
        )
        if not read_only:
            os.makedirs(self.directory, exist_ok=True)
        elif not os.path.isdir(self.directory):
            raise UsageError(f"{workdir} holds no checkpoints: train there first, or name another.")
        self._at_exit = contextlib.ExitStack()
        path = self._at_exit.enter_context(disk.plain_path(self.directory))
        try:
            self._manager = ocp.CheckpointManager(path, options=options)
        except Exception as error:  # of a time in a checkpoint's metadata that cannot be, for one
            self._at_exit.close()
            raise UsageError(
                f"{self.directory} cannot be read ({first_line(error)}): restore it, or "
                "remove it to start anew."
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        waiting = _saving(self.directory) if kind is None else contextlib.suppress(Exception)
        with self._at_exit, waiting:
            self._manager.close()  # waits for a save under way; an error before it counts more

    def save(self, state: TrainState) -> None:
        """Starts to save this state; it is copied first, since training donates its buffers."""
        step = int(state.epoch)
        if step in self._manager.all_steps():
            return
        items = _items(jax.tree.map(np.array, jax.device_get(state)))
        info = {
            "format": FORMAT,
            "best_epoch": int(state.best_epoch),
            "sha256": {name: _digest(item) for name, item in items.items()},
        }
        self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(items)))
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        args = ocp.args.Composite(info=ocp.args.JsonSave(info), **arrays)
        with _saving(self.directory):  # or the error of the save before
            self._manager.save(step, args=args)

    def _check_space(self, size: int) -> None:
        """Raises before anything is written: orbax's threads would print many lines."""
        free = shutil.disk_usage(self.directory).free
        if free < size + OVERHEAD:
            raise UsageError(
                f"A checkpoint of {size >> 10} KiB cannot be written to {self.directory}, where "
                f"{free >> 10} KiB are left: make room there and give the same command again; it "
                "goes on from the last checkpoint."
            )

    def latest_step(self) -> int | None:
        """The epoch of the newest checkpoint."""
        return self._manager.latest_step()

    def wait(self) -> None:
        """Returns when every save has reached the disk; a UsageError if one failed."""
        with _saving(self.directory):
            self._manager.wait_until_finished()

    def restore_latest(self, like: TrainState) -> tuple[TrainState | None, int]:
        """The newest state that can be read, and its format; None where there is no checkpoint.

        Newer ones that cannot be read are removed, once an older one has been: the run will get
        there again.

        Args:
          like: a state of the right shapes.
        Raises:
          UsageError: when there are checkpoints, and none can be read.
        """
        step, items, info = self._restore_newest(_items(like))
        if step is None:
            return None, FORMAT
        for newer in [other for other in self._manager.all_steps() if other > step]:
            self._manager.delete(newer)
        constants = items.get("constants", {})
        state = like.replace(**items["state"], **items["best"], constants=constants)
        return state, info.get("format", 1)

    def restore_best(self, like: dict[str, Any]) -> tuple[dict[str, Any], int, int]:
        """The best variables, the epoch that they are of, and the number of epochs done.

        Args:
          like: variables of the right shapes.
        Raises:
          UsageError: when there is no checkpoint, or none can be read.
        """
        best = {"best_params": like["params"], "best_batch_stats": like["batch_stats"]}
        wanted = {"best": best} | _constants_item(like["constants"])
        step, items, info = self._restore_newest(wanted)
        if step is None:
            raise UsageError(f"{self.directory} holds no checkpoint yet.")
        best = items["best"]
        variables = {
            "params": best["best_params"],
            "batch_stats": best["best_batch_stats"],
            "constants": items.get("constants", {}),
        }
        return variables, info["best_epoch"], step

    def _restore_newest(self, like: dict[str, Any]):
        """(step, items, info) of the newest checkpoint that can be read; three Nones without."""
        _mute_abandoned_reads()
        for step in (steps := sorted(self._manager.all_steps(), reverse=True)):
            try:
                return step, *self._restore(step, like)
            except Exception as error:  # orbax and tensorstore raise many kinds
                print(f"Checkpoint {step} of {self.directory} cannot be read: {first_line(error)}.")
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
                gc.collect()  # or reads that never began would say so at another time
        if steps:
            raise UsageError(
                f"No checkpoint in {self.directory} can be read: see why above; nothing there has "
                "been changed. Remove the folder to start anew."
            )
        return None, None, None

    def _restore(self, step: int, like: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        args = ocp.args.Composite(info=ocp.args.JsonRestore())
        info = self._manager.restore(step, args=args)["info"]
        older = "constants" in like and info.get("format", 1) < FORMAT
        wanted = _with_constants_as_parameters(like) if older else like
        sharding = devices.replicated()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), wanted
        )
        arrays = {name: ocp.args.StandardRestore(item) for name, item in abstract.items()}
        restored = self._manager.restore(step, args=ocp.args.Composite(**arrays))
        items = {name: restored[name] for name in wanted}
        for name, item in items.items():
            if _digest(jax.device_get(item)) != info["sha256"][name]:
                raise ValueError(
                    f"it is damaged, {name} does not have the SHA-256 it was saved with"
                )
        return _with_constants_apart(items, like) if older else items, info


def _mute_abandoned_reads() -> None:
    """No tracebacks from the reads that orbax abandons when another array's fails.

    They end at any later time: in threads of tensorstore, or when they are collected.
    """
    hook = sys.unraisablehook
    if getattr(hook, "func", None) is not _unless_abandoned_read:
        sys.unraisablehook = functools.partial(_unless_abandoned_read, hook)


def _unless_abandoned_read(hook: Callable[[Any], Any], unraisable: Any) -> None:
    code = getattr(unraisable.object, "cr_code", None)
    of_orbax = code is not None and "orbax" in code.co_filename
    if not of_orbax and str(unraisable.exc_value) != "Event loop is closed":
        hook(unraisable)


@contextlib.contextmanager
def _saving(directory: str):
    try:
        yield
    except Exception as error:  # a full disk above all: orbax and tensorstore raise many kinds
        raise UsageError(
            f"A checkpoint cannot be written to {directory} ({first_line(error)}): make room "
            "there and give the same command again; it goes on from the last checkpoint."
        ) from None


def _items(state: TrainState) -> dict[str, Any]:
    """The state as the items of a checkpoint."""
    fields = {field: getattr(state, field) for field in state.__dataclass_fields__}
    best = {field: fields.pop(field) for field in BEST}
    return {"state": fields, "best": best} | _constants_item(fields.pop("constants"))


def _constants_item(constants: dict[str, Any]) -> dict[str, Any]:
    return {"constants": constants} if constants else {}


def _of_parameters(function: Callable[[dict], dict], tree: Any) -> Any:
    """Applies a function to every tree of parameters in a tree: their own, moments, the best."""

    def found(node):
        return isinstance(node, dict) and node.keys() == {"model", "prior"}

    return jax.tree.map(lambda node: function(node) if found(node) else node, tree, is_leaf=found)


def _with_constants_as_parameters(items: dict[str, Any]) -> dict[str, Any]:
    """The items as older checkpoints have them."""
    items = dict(items)
    constants = items.pop("constants")
    return _of_parameters(lambda params: params | {"prior": params["prior"] | constants}, items)


def _with_constants_apart(items: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
    """The items of an older checkpoint as they are now."""
    names = like["constants"].keys()
    best = items["best"]["best_params"]["prior"]

    def without(params):
        kept = {name: leaf for name, leaf in params["prior"].items() if name not in names}
        return params | {"prior": kept}

    constants = {name: best[name] for name in names}
    return _of_parameters(without, items) | {"constants": constants}


def _digest(item: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(item):
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
