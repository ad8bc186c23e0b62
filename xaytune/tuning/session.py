"""The Ray that a sweep runs in. It takes seconds to start: that is done while the driver does other things."""

from __future__ import annotations

import logging
import os
import threading
from types import TracebackType

import ray
from ray._private.worker import global_worker

__all__ = ["RaySession"]


class RaySession:
    """A context in which Ray is there: the one that was initialised already, or one of its own."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._ready, self._over = threading.Event(), threading.Event()
        self._error: BaseException | None = None

    def __enter__(self) -> RaySession:
        """Begins to start Ray, in the background."""
        if not ray.is_initialized():
            self._thread = threading.Thread(target=self._keep, name="ray-session")
            self._thread.start()
        return self

    def wait(self) -> None:
        """Waits until Ray is there.

        Raises:
            Exception: Whatever kept it from starting.
        """
        if self._thread is not None:
            self._ready.wait()
        if self._error is not None:
            raise self._error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the Ray that was started here."""
        if self._thread is not None:
            self._over.set()
            self._thread.join()

    def _keep(self) -> None:
        """Starts Ray, and ends it: its processes die with the thread that started them (PR_SET_PDEATHSIG)."""
        # A cluster that is there already has its own dashboard, or none.
        dashboard = None if "RAY_ADDRESS" in os.environ else False
        try:
            # What trials print is kept in files of their own.
            ray.init(logging_level=logging.ERROR, include_dashboard=dashboard, log_to_driver=False)
            _silence()
        except BaseException as error:
            self._error = error
        self._ready.set()
        self._over.wait()
        ray.shutdown()


def _silence() -> None:
    """Ends the thread in which Ray prints that a process was lost: the sweep says so itself, in a line."""
    global_worker.threads_stopped.set()
    global_worker.gcs_error_subscriber.close()  # type: ignore[attr-defined]
