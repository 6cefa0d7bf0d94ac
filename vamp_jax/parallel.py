"""A function on several devices at once, and waiting for it: the only place that calls `jax.pmap`.

JAX advises `jax.shard_map` for new code. tests/test_parallel.py holds this module to that form, bit
for bit, so that the day `jax.pmap` goes it is this file that changes.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

AXIS = "devices"  # the mapped axis


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


def wait_for(arrays: Any) -> None:
    """Waits until the arrays of a tree are computed; Ctrl-C is heard meanwhile.

    A wait inside of JAX lasts as long as the program that is waited for, and Python takes no signal
    before it ends. So it is a thread that waits there, and it costs a tenth of a millisecond.
    """

    def wait():
        with contextlib.suppress(Exception):  # raised again where the arrays are read
            jax.block_until_ready(arrays)

    waiting = threading.Thread(target=wait, daemon=True)
    waiting.start()
    waiting.join()
