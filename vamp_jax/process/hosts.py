"""Several hosts: one process on each, all running the same epochs on the devices of all.

Process 0 alone touches the folder of the run. It reads the checkpoint and hands its arrays to the
others, so that all start from the same bits and the folder need not be shared; metrics are the same
everywhere, so all decide alike. Where processes could differ (a mistake that one of them sees, a
signal, their data) they ask each other here. In a process alone every function does nothing, and
importing this does not import JAX.
"""

import atexit
import collections
import contextlib
import ctypes
import hashlib
import os
import re
import signal
import sys
import urllib.request
from collections.abc import Iterator
from importlib import util
from typing import Any

import numpy as np

from vamp_jax.errors import (
    HostLostError,
    NonFiniteLossError,
    PicturesError,
    Stopped,
    UsageError,
    exit_code,
    first_line,
)
from vamp_jax.process import jax_start

CONNECT_SECONDS = 300  # timeout for all processes to connect
HEARTBEAT_SECONDS = 55  # without a sign of life from a process it counts as lost
LEAVE_SECONDS = 30 * 24 * 3600  # process 0 evaluates while the others wait to leave
SENTENCE_BYTES = 2000
LOST = (
    "another process of this run has ended or cannot be reached (its own output may say why); "
    "start all of them again: they go on from the last checkpoint."
)

_index: int | None = None  # which process this is, while connected


class AgreedError(UsageError):
    """A mistake that every process has been told of."""


def parse(text: str) -> tuple[str, int, int]:
    """COORDINATOR:PORT,COUNT,INDEX -> the address of process 0, the count, and which this is.

    Raises:
      UsageError: when it is anything else.
    """
    match = re.fullmatch(r"([^\s,]+):([0-9]{1,5}),([0-9]{1,6}),([0-9]{1,6})", text)
    if not match:
        raise UsageError(
            f"--hosts is {text!r}; it must be COORDINATOR:PORT,COUNT,INDEX (where process 0 runs, "
            "how many processes there are, and which of them this is), as in 10.0.0.2:1234,2,0."
        )
    coordinator, (port, count, index) = match[1], map(int, match.groups()[1:])
    if not 0 < port < 2**16:
        raise UsageError(f"--hosts is {text!r}, but a port is a number from 1 to 65535.")
    if index >= count:
        raise UsageError(
            f"--hosts is {text!r}, but INDEX counts from 0, so it must be below COUNT."
        )
    return f"{coordinator}:{port}", count, index


def on_pod() -> bool:
    """Whether this is one of several hosts of a Cloud TPU slice; does not touch the TPU.

    Where Kubernetes started it, its environment lists the hosts; on a Cloud TPU VM the metadata
    server does. Off a TPU this looks at two files and asks nobody.
    """
    attached = any(os.path.exists(path) for path in ("/dev/accel0", "/dev/vfio/vfio"))
    platforms = os.environ.get("JAX_PLATFORMS", "tpu").split(",")
    if not attached or "tpu" not in platforms or util.find_spec("libtpu") is None:
        return False
    return num_tpu_hosts() > 1


def num_tpu_hosts() -> int:
    """How many hosts the slice of this Cloud TPU VM has; 1 where nothing tells."""
    slices = int(os.environ.get("MEGASCALE_NUM_SLICES") or 1)
    for name in ("TPU_PROCESS_ADDRESSES", "TPU_WORKER_HOSTNAMES"):
        if os.environ.get(name):
            return slices * len(os.environ[name].split(","))
    if os.environ.get("TPU_SKIP_MDS_QUERY"):  # set where there is no metadata server
        return slices
    server = os.environ.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/worker-network-endpoints",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return slices * len(response.read().decode().split(","))
    except OSError:
        return slices


@contextlib.contextmanager
def connected(text: str | None) -> Iterator[int]:
    """Joins the processes of a run, as --hosts or a pod says; yields the number of this one.

    All leave together: the first to end waits for the others, and standard output is process 0's.
    A process that fails alone leaves at once, which ends the others with a sentence.

    Args:
      text: --hosts; None: the hosts of a Cloud TPU pod slice, or elsewhere this process alone.
    Raises:
      UsageError: when `text` is wrong.
      HostLostError: when another process is lost, or does not come.
    """
    where = {}
    if text is not None:
        address, count, index = parse(text)
        where = dict(coordinator_address=address, num_processes=count, process_id=index)
        where["cluster_detection_method"] = "deactivate"  # nor let Slurm choose the devices
        alone = count == 1
    else:
        alone = not on_pod()
    if alone:
        yield 0
        return

    import jax

    # JAX would take SIGTERM for itself; training.py agrees on it here.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        with contextlib.ExitStack() as stack:
            _explain_aborts()
            _find_each_other(where)
            jax_start.check_devices()  # none can start before all have come here
            global _index
            _index = jax.process_index()
            if _index > 0:
                nothing = stack.enter_context(open(os.devnull, "w"))
                stack.enter_context(contextlib.redirect_stdout(nothing))
            try:
                _check_devices()
                yield _index
            except (AgreedError, NonFiniteLossError, PicturesError, Stopped):
                # Of all processes alike, or of the first when the others have nothing left to do.
                _leave_together()
                raise
            except jax.errors.JaxRuntimeError as error:
                if "Gloo" not in str(error) and "UNAVAILABLE" not in str(error):
                    raise
                raise HostLostError(LOST) from error
            _leave_together()
    except BaseException as error:
        if jax.distributed.is_initialized():
            # JAX would wait for the others at the exit, and they for this one.
            code = 130 if isinstance(error, KeyboardInterrupt) else exit_code(error)
            atexit.register(_leave_at_once, code)
        raise
    finally:
        _index = None


def _find_each_other(where: dict[str, Any]) -> None:
    """Waits for the other processes of the run, or raises a HostLostError."""
    import jax

    message = f"Waiting for the other processes of this run, at most {CONNECT_SECONDS} s."
    print(message, file=sys.stderr, flush=True)
    try:
        jax.distributed.initialize(
            **where,
            initialization_timeout=CONNECT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=LEAVE_SECONDS,
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise HostLostError(
            f"the processes of this run did not find each other ({first_line(error)}); "
            "start all of them with the same COORDINATOR:PORT and COUNT."
        ) from None


def _check_devices() -> None:
    import jax

    counts = collections.Counter(device.process_index for device in jax.devices())
    for index, count in counts.items():
        if count != counts[0]:
            raise AgreedError(
                f"process {index} has {count} devices and process 0 has {counts[0]}: all hosts "
                "need as many."
            )


def _leave_together() -> None:
    import jax

    try:
        jax.distributed.shutdown()  # waits for the others
    except jax.errors.JaxRuntimeError as error:
        raise HostLostError(LOST) from error
    signal.signal(signal.SIGABRT, signal.SIG_DFL)


def _leave_at_once(code: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _explain_abort(number):
    os.write(2, f"{sys.argv[0]}: {LOST}\n".encode())
    os._exit(HostLostError.exit_code)


def _explain_aborts() -> None:
    """JAX aborts a process that has lost another: then a sentence and an exit code come last.

    By the C library, since abort() would not return to a handler of Python's own.
    """
    set_handler = ctypes.CDLL(None).signal
    set_handler.argtypes, set_handler.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    set_handler(signal.SIGABRT, _explain_abort)


@contextlib.contextmanager
def together() -> Iterator[None]:
    """A UsageError that one process meets inside is raised in every one of them at the end."""
    if not several():
        yield
        return
    own = None
    try:
        yield
    except UsageError as error:
        own = error
    sentence = (
        str(own or "")
        .encode(errors="backslashreplace")[:SENTENCE_BYTES]
        .ljust(SENTENCE_BYTES, b"\0")
    )
    sentences = _gather(np.frombuffer(sentence, np.uint8))
    if own:
        raise AgreedError(str(own)) from own
    for index, row in enumerate(sentences):
        if sentence := row.tobytes().rstrip(b"\0").decode(errors="replace"):
            raise AgreedError(f"process {index} says: {sentence}")


def check_same(**things: bytes) -> None:
    """Raises an AgreedError in every process when one has another value of a thing than process 0.

    The names, with spaces for underscores, are what the sentence calls the things.
    """
    if not several():
        return
    digests = [np.frombuffer(hashlib.sha256(thing).digest(), np.uint8) for thing in things.values()]
    held = _gather(np.stack(digests))  # [processes, things, 32]
    for name, there in zip(things, np.moveaxis(held, 1, 0), strict=True):
        differing = np.flatnonzero((there != there[0]).any(axis=1))
        if len(differing):
            raise AgreedError(
                f"{name.replace('_', ' ')} of process {differing[0]} is not that of process 0: "
                "all hosts need the same."
            )


def from_first(tree: Any) -> Any:
    """The arrays of process 0, bit for bit, in every process; shapes and types must agree."""
    if not several():
        return tree
    import jax
    from jax.experimental import multihost_utils

    leaves, treedef = jax.tree.flatten(jax.tree.map(np.asarray, jax.device_get(tree)))
    # As bytes, since the broadcast is a sum and -0.0 + 0.0 is 0.0.
    whole = multihost_utils.broadcast_one_to_all(
        np.frombuffer(b"".join(leaf.tobytes() for leaf in leaves), np.uint8)
    )
    parts = np.split(whole, np.cumsum([leaf.nbytes for leaf in leaves])[:-1])
    return jax.tree.unflatten(
        treedef,
        [
            np.frombuffer(part.tobytes(), leaf.dtype).reshape(leaf.shape)
            for part, leaf in zip(parts, leaves, strict=True)
        ],
    )


def largest(number: int) -> int:
    """The largest of the numbers that the processes give."""
    if not several():
        return number
    return int(np.max(_gather(np.int32(number))))


def several() -> bool:
    """Whether this process is one of several."""
    return _index is not None


def is_first() -> bool:
    """Whether this is process 0, the one that reads and writes the folder of the run."""
    return _index in (None, 0)


def _gather(array: np.ndarray) -> np.ndarray:
    """Stacks the arrays of all processes, [processes, ...]; all of them must call it."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array)
