"""Checkpoints by orbax: the latest two, each with the best parameters so far beside it.

A checkpoint's step is the number of epochs done. Its items are `state`, from which training goes
on; `best`, the best parameters so far, which evaluation reads without the rest; `constants`, if the
prior has fixed examples; and `info`, plain values: of each item a SHA-256 over its arrays, since a
flipped bit on disk must not become a silently different run, and their names, types and shapes; the
run that they belong to (config.json and data.json); and a SHA-256 over the log up to that epoch and
over `info` itself. Older checkpoints have less of it.

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
from vamp_jax.run.folder import ABSENT, Identity, check_same_run, differing, identity
from vamp_jax.run.metrics_log import digest_up_to
from vamp_jax.training import devices
from vamp_jax.training.state import TrainState

OVERHEAD = 128 << 10  # bytes of a checkpoint beside its arrays
BEST = ("best_params", "best_batch_stats")
FORMAT = 2
# Errors that say nothing about a checkpoint: they may be gone the next time.
PASSING = (*disk.FORBIDDEN, "RESOURCE_EXHAUSTED", "Too many open files", "Cannot allocate memory")


class Checkpoints:
    """The checkpoints of one run; a context manager that waits for a save still under way.

    Of several hosts process 0 alone has them: the state is the same in all, and the others get what
    is restored from it (hosts.py).
    """

    def __init__(self, workdir: str, *, read_only: bool = False):
        # Orbax logs every file it touches, and many lines about an error that it raises as well.
        logging.set_verbosity(logging.FATAL)
        self._workdir = workdir
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
        disk.check_files(self.directory)
        self._run = None if read_only else identity(workdir)
        self._at_exit = contextlib.ExitStack()
        # Held open, so that no other folder can be taken for it.
        self._held = os.open(self.directory, os.O_RDONLY)
        self._at_exit.callback(os.close, self._held)
        path = self._at_exit.enter_context(disk.plain_path(self.directory))
        try:
            self._manager = ocp.CheckpointManager(path, options=options)
        except Exception as error:  # for one, an impossible time in a checkpoint's metadata
            self._at_exit.close()
            _raise_if_passing(error, self.directory)
            raise UsageError(
                f"{self.directory} cannot be read ({first_line(error)}): restore it, or train in "
                "another folder with --workdir."
            ) from None

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        waiting = self._saving() if kind is None else contextlib.suppress(Exception)
        with self._at_exit, waiting:
            self._manager.close()  # waits for a save under way; an error before it counts more

    def save(self, state: TrainState) -> None:
        """Starts to save a copy of this state; training donates its buffers."""
        step = int(state.epoch)
        if step in self._manager.all_steps():
            return
        self._check_there()
        items = _items(jax.tree.map(np.array, jax.device_get(state)))
        info = self._info_of(step, int(state.best_epoch), items)
        self._check_space(sum(leaf.nbytes for leaf in jax.tree.leaves(items)))
        arrays = {name: ocp.args.StandardSave(item) for name, item in items.items()}
        args = ocp.args.Composite(info=ocp.args.JsonSave(info), **arrays)
        with self._saving():  # or the error of the save before
            self._manager.save(step, args=args)

    def _info_of(self, step: int, best_epoch: int, items: dict[str, Any]) -> dict[str, Any]:
        info = {
            "format": FORMAT,
            "best_epoch": best_epoch,
            "sha256": {name: _digest(item) for name, item in items.items()},
            "arrays": {name: _shapes(item) for name, item in items.items()},
            "metrics": digest_up_to(self._workdir, step),
        }
        if self._run:
            info["run"] = self._run._asdict()
        return info | {"seal": disk.digest_of_values(info)}

    def _check_space(self, size: int) -> None:
        """Raises a UsageError before anything is written where there is no room for it."""
        with self._saving():
            free = shutil.disk_usage(self.directory).free
        if free < size + OVERHEAD:
            raise UsageError(
                f"A checkpoint of {size >> 10} KiB cannot be written to {self.directory}, where "
                f"{free >> 10} KiB are left: make room there and give the same command again; it "
                "goes on from the last checkpoint."
            )

    @contextlib.contextmanager
    def _saving(self):
        """Makes a sentence of what goes wrong in a save, or has gone wrong in the one before."""
        try:
            yield
        except Exception as error:  # a full disk above all: orbax and tensorstore raise many kinds
            self._check_there()
            raise UsageError(
                f"A checkpoint cannot be written to {self.directory} ({first_line(error)}): "
                f"{disk.advice(error, self.directory)}, and give the same command again; it goes "
                "on from the last checkpoint."
            ) from None

    def _check_there(self) -> None:
        """Raises a UsageError when the folder is gone: orbax would make another of its name."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.directory), os.fstat(self._held)):
                return
        raise UsageError(
            f"{self.directory} was removed or moved in the meantime: put it back, and give the "
            "same command again; it goes on from the last checkpoint."
        )

    def latest_step(self) -> int | None:
        """The epoch of the newest checkpoint."""
        return self._manager.latest_step()

    def newest_readable(self) -> int | None:
        """The epoch of the newest checkpoint that can be read; None without a checkpoint.

        Raises:
          UsageError: when there are checkpoints, and none can be read.
        """

        def all_of(step, info):
            arrays = {name: ocp.args.StandardRestore() for name in info["sha256"]}
            return self._manager.restore(step, args=ocp.args.Composite(**arrays))

        return self._newest(all_of)[0]

    def wait(self) -> None:
        """Returns when every save has reached the disk; a UsageError if one failed."""
        with self._saving():
            self._manager.wait_until_finished()

    def restore_latest(self, like: TrainState) -> tuple[TrainState | None, int]:
        """Restores the newest state that can be read, and its format; None without a checkpoint.

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
        """Restores the best variables, their epoch, and the number of epochs done.

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

        def wanted(step, info):
            items = self._restore(step, info, like)
            self._check_log(step, info)
            return items

        return self._newest(wanted)

    def _newest(self, restore: Callable[[int, dict[str, Any]], Any]):
        """(step, items, info) of the newest checkpoint that `restore` can read, or three Nones."""
        _mute_abandoned_reads()
        devices.replicated()  # starts the devices: if they cannot, no checkpoint is to blame
        for step in (steps := sorted(self._manager.all_steps(), reverse=True)):
            try:
                info = self._info(step)
                return step, restore(step, info), info
            except UsageError:
                raise
            except Exception as error:  # orbax and tensorstore raise many kinds
                _raise_if_passing(error, f"Checkpoint {step} of {self.directory}")
                print(f"Checkpoint {step} of {self.directory} cannot be read: {first_line(error)}.")
            with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
                gc.collect()  # or reads that never began would say so at another time
        if steps:
            raise UsageError(
                f"No checkpoint in {self.directory} can be read: see why above; nothing there has "
                "been changed. Put back a copy, or train in another folder with --workdir."
            )
        return None, None, None

    def _info(self, step: int) -> dict[str, Any]:
        """A checkpoint's plain values, checked to be whole and of this run."""
        args = ocp.args.Composite(info=ocp.args.JsonRestore())
        info = self._manager.restore(step, args=args)["info"]
        if (seal := info.pop("seal", None)) and seal != disk.digest_of_values(info):
            raise ValueError("it is damaged, its info is not as it was saved")
        if "run" in info:
            where = f"the checkpoint of epoch {step} has"
            check_same_run(self._workdir, Identity(**info["run"]), where)
        return info

    def _check_log(self, step: int, info: dict[str, Any]) -> None:
        if info.get("metrics") not in (None, digest_up_to(self._workdir, step)):
            print(
                f"Note: {os.path.join(self._workdir, 'metrics.jsonl')} is not as the run wrote it "
                f"up to epoch {step}: rows were changed, or are missing."
            )

    def _check_shapes(self, step: int, saved: dict[str, str], wanted: dict[str, str]) -> None:
        if fields := differing(saved, wanted):
            shown = "; ".join(
                f"{field} is {saved.get(field, ABSENT)} there and {wanted.get(field, ABSENT)} here"
                for field in fields[:3]
            )
            more = f" and {len(fields) - 3} more" if len(fields) > 3 else ""
            raise UsageError(
                f"Checkpoint {step} of {self.directory} is of another model than its config.json: "
                f"{shown}{more}. Nothing there has been changed: put back what was edited or "
                "copied, or name another folder."
            )

    def _restore(self, step: int, info: dict[str, Any], like: dict[str, Any]) -> dict[str, Any]:
        older = "constants" in like and info.get("format", 1) < FORMAT
        wanted = _with_constants_as_parameters(like) if older else like
        for name, item in wanted.items() if "arrays" in info else ():
            self._check_shapes(step, info["arrays"][name], _shapes(item))
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
        return _with_constants_apart(items, like) if older else items


def _raise_if_passing(error: Exception, name: str) -> None:
    """Raises a UsageError for an error that says nothing about what was to be read."""
    if isinstance(error, MemoryError) or any(words in str(error) for words in PASSING):
        raise UsageError(
            f"{name} cannot be read now ({first_line(error)}); nothing there has been changed."
        ) from None


def _mute_abandoned_reads() -> None:
    """Silences tracebacks of reads that orbax abandons when the read of another array fails.

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


def _shapes(item: dict[str, Any]) -> dict[str, str]:
    """The type and shape of each array, by its path: {"['w']": "float32[2, 3]"}."""
    return {
        jax.tree_util.keystr(path): f"{np.dtype(leaf.dtype)}{list(leaf.shape)}"
        for path, leaf in jax.tree_util.tree_leaves_with_path(item)
    }


def _digest(item: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(item):
        leaf = np.asarray(leaf)
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
