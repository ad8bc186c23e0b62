"""The Ray that a sweep runs in. It takes a second to start: that is done while the driver does other things."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING

from xaytune.errors import SessionError
from xaytune.interrupts import Interrupts
from xaytune.ray_tune.process_settings import environment

if TYPE_CHECKING:
    from xaytune.ray_tune.connecting import Connection

logger = logging.getLogger(__name__)

_LOOK_S = 0.1
# Seconds in which most mistakes are found.
_AT_ONCE_S = 0.1
# The session of this process: Ray and Tune keep much that there is once a process.
_one = threading.Lock()


class RaySession:
    """A context in which Ray is there: the one that was initialised already, a cluster, or one of its own.

    Args:
        address: Of a cluster that this machine is a node of, ``HEAD:6379`` or ``auto``; by default what
            RAY_ADDRESS says, or else what was started on this machine.
    """

    def __init__(self, address: str | None = None) -> None:
        self._address = address
        self._thread: threading.Thread | None = None
        self._connection: Connection | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._interrupts = Interrupts(raises=False)
        self._held_interrupts = contextlib.ExitStack()

    def __enter__(self) -> RaySession:
        """Begins to start Ray, in the background.

        Until it is there, an interrupt waits for :meth:`wait`: while two threads import, what one raises at any
        moment may leave the other without the lock of a module, for ever.

        Raises:
            SessionError: Another sweep runs in this process.
        """
        if not _one.acquire(blocking=False):
            raise SessionError(
                "a sweep is running in this process already: wait until it has ended, or run this one in another "
                "process"
            )
        try:
            ray = sys.modules.get("ray")
            if ray is None or not ray.is_initialized():
                self._held_interrupts.enter_context(self._interrupts)
                self._thread = threading.Thread(target=self._keep, name="ray-session")
                self._thread.start()
        except BaseException:
            self._held_interrupts.close()
            _one.release()
            raise
        return self

    def wait(self) -> None:
        """Waits until Ray is there.

        Raises:
            KeyboardInterrupt: It was interrupted meanwhile.
            SessionError: The cluster cannot be used.
            Exception: Whatever else kept it from starting.
        """
        if self._thread is not None:
            while not self._interrupts.asked and not self._ready.wait(_LOOK_S):
                pass
            if not self._interrupts.asked:  # else further ones wait until Ray has ended
                self._held_interrupts.close()
            if self._interrupts.asked:  # also one that came just before that
                logger.warning("interrupted: this ends once Ray has started")
                raise KeyboardInterrupt
        if self._error is not None:
            raise self._error

    @property
    def notes(self) -> tuple[str, ...]:
        """What whoever runs a sweep in it should know of it."""
        return self._connection.notes if self._connection is not None else ()

    def check(self) -> None:
        """Checks that the Ray that was started here is whole; without all of its processes no trial ever starts.

        Raises:
            SessionError: A process of it is gone.
        """
        node = self._connection.node if self._connection is not None else None
        gone = [name for name, _ in node.dead_processes()] if node is not None else []
        if gone:
            raise SessionError(
                f"Ray lost its {' and its '.join(gone)} on this machine, by a kill or for want of memory: "
                "`xaytune resume` continues the sweep"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the Ray that was started here.

        What interrupts meanwhile waits for that: a Ray that is left behind would end under the next sweep.
        """
        self._over.set()
        try:
            with self._held_interrupts:
                interrupts = self._held_interrupts.enter_context(Interrupts(raises=False))
                if self._thread is not None:
                    self._thread.join()
        finally:
            _one.release()
        if interrupts.asked and error is None:
            raise KeyboardInterrupt

    def _keep(self) -> None:
        """Starts Ray, and ends it: its processes die with the thread that started them (PR_SET_PDEATHSIG)."""
        address = self._address or os.environ.get("RAY_ADDRESS") or None
        # Ray would take the variable instead of the address that it is given.
        with environment(RAY_ADDRESS=None), contextlib.ExitStack() as stack:
            try:
                # Ray takes half a second to import: meanwhile, the driver starts the process that imports torch.
                begun = time.monotonic()
                from xaytune.ray_tune.connecting import connected

                # With a mistake, nobody is to wait until Ray has started, and has ended again.
                if not self._over.wait(max(0.0, begun + _AT_ONCE_S - time.monotonic())):
                    self._connection = stack.enter_context(connected(address, self._over))
            except BaseException as error:
                self._error = error
            self._ready.set()
            self._over.wait()
