"""A function on several devices at once: the only place that calls `jax.pmap`.

`over_devices` shares one thing out over all devices; `a_run_a_device` gives each a run of its own.
JAX advises `jax.shard_map` for new code. tests/test_parallel.py holds this module to that form, bit
for bit, so that the day `jax.pmap` goes it is this file that changes.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"  # the mapped axis
RUNS = "runs"  # the axis of runs that have a device each


def over_devices(
    function: Callable,
    in_axes: tuple,
    out_axes: Any = 0,
    donate: tuple[int, ...] = (),
    on: Sequence[jax.Device] | None = None,
) -> Callable:
    """Returns `function` mapped over devices, compiled as one program.

    Args:
      function: of trees; may use AXIS.
      in_axes: of each argument None where it is replicated, 0 where it has a row for each device.
      out_axes: of each result, likewise.
      donate: the numbers of the arguments that are donated.
      on: devices of this process, or those of a topology to compile for ahead of time. None: all
        devices of all processes.
    Returns:
      The mapped function. Its `lower` takes the arguments or their shapes, as that of `jax.jit`.
    """
    mapped = jax.pmap(
        lambda *args: function(*args[:-1]),
        axis_name=AXIS,
        in_axes=(*in_axes, 0),
        out_axes=out_axes,
        donate_argnums=donate,
        devices=on,
    )
    # pmap wants one argument with the devices' axis.
    local = np.zeros(jax.local_device_count() if on is None else len(on), np.int32)

    def run(*args):
        return mapped(*args, local)

    run.lower = lambda *args: mapped.lower(*args, local)  # type: ignore[attr-defined]
    return run


def runs_mesh(on: Sequence[jax.Device]) -> Mesh:
    """Returns the devices as so many runs, each on a lone device: AXIS is of length one."""
    return Mesh(np.array(on).reshape(-1, 1), (RUNS, AXIS))


def of_runs(on: Sequence[jax.Device]) -> NamedSharding:
    """Returns the sharding of a value with a row for each run, on the run's device."""
    return NamedSharding(runs_mesh(on), PartitionSpec(RUNS))


def of_all_runs(on: Sequence[jax.Device]) -> NamedSharding:
    """Returns the sharding of a value that each run's device holds whole."""
    return NamedSharding(runs_mesh(on), PartitionSpec())


def a_run_a_device(
    function: Callable, num_own: int, num_shared: int, on: Sequence[jax.Device]
) -> Callable:
    """Returns `function` of one run mapped over runs, each on a device, compiled as one program.

    Args:
      function: of the run's own trees, then of those shared by all; may use AXIS, of length one.
      num_own: how many are its own: these, and all results, have a row for each run. The first is
        donated.
      num_shared: how many are shared.
      on: the runs' devices, all of this process or of a topology.
    """

    def on_device(*args):
        own = jax.tree.map(lambda leaf: leaf[0], args[:num_own])
        return jax.tree.map(lambda leaf: leaf[None], function(*own, *args[num_own:]))

    specs = (PartitionSpec(RUNS),) * num_own + (PartitionSpec(),) * num_shared
    mapped = jax.shard_map(
        on_device,
        mesh=runs_mesh(on),
        in_specs=specs,
        out_specs=PartitionSpec(RUNS),
        check_vma=False,
    )
    return jax.jit(mapped, donate_argnums=(0,))
