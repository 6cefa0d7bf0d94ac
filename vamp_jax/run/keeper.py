"""Threads beside a run in a bucket: one renews its lock, one takes what changes to the bucket."""

import signal
import sys
import threading
import time
from collections.abc import Callable

from vamp_jax.bucket import BucketError, Changed
from vamp_jax.errors import Stopped
from vamp_jax.run.lease import BEAT, EXPIRES, Lease

SECONDS_BETWEEN_ROUNDS = 10.0  # at most; and at least one, as often as an object may be written
PATIENCE = 600.0  # seconds that a bucket may be out of reach


class Keeper:
    """Threads that renew the lock and take what changes to the bucket; a context manager."""

    def __init__(self, take: Callable[[], None], lease: Lease, seconds: float):
        self._failed: Exception | None = None
        self._ending = False
        self._good = time.monotonic()  # when the bucket was last reached
        self._taking = _Repeated(max(1.0, min(seconds, SECONDS_BETWEEN_ROUNDS)), self._told(take))
        self._beating = _Repeated(BEAT, self._told(lease.renew))
        self._take = self._guarded(take)

    def __enter__(self):
        self._taking.start()
        self._beating.start()
        return self

    def __exit__(self, kind, error, trace):
        self._ending = True
        self._taking.end()
        while self._failed is None and not self._take():
            time.sleep(1.0)
        self._beating.end()
        if self._failed is None:
            return
        # Stopped and KeyboardInterrupt were the way to be heard.
        if kind is None or issubclass(kind, Stopped | KeyboardInterrupt):
            raise self._failed from None
        print(self._failed, file=sys.stderr, flush=True)

    def _told(self, function: Callable[[], None]) -> Callable[[], bool]:
        """`_guarded`, for a thread: returns whether to go on, and tells the main one if not."""
        guarded = self._guarded(function)

        def go_on() -> bool:
            if self._failed is None:
                guarded()
                if self._failed is not None and not self._ending:
                    # As Ctrl-C: training ends after the epoch, and what waits is woken.
                    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            return self._failed is None

        return go_on

    def _guarded(self, function: Callable[[], None]) -> Callable[[], bool]:
        """Returns whether it was done, and keeps what cannot be mended by waiting."""

        def done() -> bool:
            try:
                function()
                self._good = time.monotonic()
                return True
            except Changed as error:
                self._failed = Changed(
                    f"{str(error).rstrip('.')} in the meantime, as a lock that is not renewed for "
                    f"{EXPIRES:.0f} s may be taken: see what is at work there, and give the same "
                    "command again."
                )
            except BucketError as error:
                if not error.passing or time.monotonic() - self._good > PATIENCE:
                    self._failed = BucketError(
                        f"{error} Then give the same command again; it goes on from the last "
                        "checkpoint in the bucket."
                    )
            except Exception as error:  # of the local disk
                self._failed = error
            return False

        return done


class _Repeated:
    """A thread that calls a function every so many seconds, while it returns True."""

    def __init__(self, seconds: float, function: Callable[[], bool]):
        self._seconds, self._function = seconds, function
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def _repeat(self) -> None:
        while not self._ended.wait(self._seconds) and self._function():
            pass

    def end(self) -> None:
        """Returns when the last call has."""
        self._ended.set()
        self._thread.join()
