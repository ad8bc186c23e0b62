"""The Ray that a sweep runs in. It takes a second to start: that is done while the driver does other things."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from types import TracebackType

import ray
from ray.exceptions import AuthenticationError, RayError

from xaytune.errors import SessionError
from xaytune.interrupts import Interrupts
from xaytune.ray_tune import compat
from xaytune.ray_tune.compat import GcsClient, authentication_token_setup, global_worker, services
from xaytune.ray_tune.local_ray import LocalNode, check_environment, started
from xaytune.ray_tune.process_settings import environment, log_level

__all__ = ["RaySession"]

logger = logging.getLogger(__name__)

_PORT = 6379
_ANSWER_S = 5.0
_LOOK_S = 0.1
# The session of this process: Ray and Tune keep much that there is once a process.
_one = threading.Lock()


class RaySession:
    """A context in which Ray is there: the one that was initialised already, a cluster, or one of its own.

    Args:
        address: Of a cluster that this machine is a node of, ``HEAD:6379`` or ``auto``; by default what
            RAY_ADDRESS says, or else what was started on this machine.

    Attributes:
        found: The address of the Ray that was started on this machine, if it is used without being asked for.
    """

    def __init__(self, address: str | None = None) -> None:
        self.found: str | None = None
        self._address = address
        self._thread: threading.Thread | None = None
        self._node: LocalNode | None = None  # if Ray was started here
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
            if not ray.is_initialized():
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

    def check(self) -> None:
        """Checks that the Ray that was started here is whole; without all of its processes no trial ever starts.

        Raises:
            SessionError: A process of it is gone.
        """
        gone = [name for name, _ in self._node.dead_processes()] if self._node is not None else []
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
        with log_level(logging.ERROR, "ray"), environment(RAY_ADDRESS=None):
            try:
                self._node = self._start(address)
            except BaseException as error:
                self._error = error
            self._ready.set()
            self._over.wait()
            ray.shutdown()
            if self._node is not None:
                self._node.end()

    def _start(self, address: str | None) -> LocalNode | None:
        """Connects to a Ray; returns the one that was started for that, if one was."""
        compat.check(*compat.SESSION)
        node: LocalNode | None = None
        if address is None:
            address = self.found = _found_here()
        if address not in (None, "local"):
            address = _checked(address)
        else:
            check_environment()
            node = started(self._over)
            address = node.address
        try:
            _join(address)
        except BaseException:
            if node is not None:
                node.end()
            raise
        _silence()
        return node


def _checked(address: str) -> str:
    """Returns the address of the head of a cluster that is there: Ray itself would try for minutes.

    Raises:
        SessionError: It is not there, or refuses.
    """
    if "://" in address:
        raise SessionError(
            f"a sweep is run from a node of its cluster (got {address}, of --address or RAY_ADDRESS): give the "
            f"address of its head, HEAD:{_PORT}; from elsewhere use `xaytune launch`"
        )
    try:
        return _reached(address)
    except AuthenticationError:
        raise SessionError(
            f"the Ray at {address} does not take this token: use the one that it was started with "
            "(RAY_AUTH_TOKEN, the file RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token)"
        ) from None
    except (OSError, ValueError, RayError) as error:
        raise SessionError(
            f"no Ray answers at {address} ({error}): is the cluster up, and is this the address of its head, "
            f"HEAD:{_PORT}?"
        ) from None


def _reached(address: str) -> str:
    """Reaches the head of a cluster, and returns its address.

    Raises:
        AuthenticationError: It does not take our token.
        OSError, ValueError, RayError: It is not there, or that is no address.
    """
    whole = address if ":" in address or address == "auto" else f"{address}:{_PORT}"
    head = services.canonicalize_bootstrap_address(whole) or whole
    host, _, port = head.rpartition(":")
    socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER_S).close()
    _call(head)
    return head


def _call(address: str) -> None:
    """Calls the head of a cluster; with a token only where it asks for one.

    One that was started without tokens could not call back a driver that asks for them.
    """
    try:
        GcsClient(address=address)
    except AuthenticationError:
        if not authentication_token_setup.maybe_enable_token_auth_if_token_available(warn_if_disabled=False):
            raise
        GcsClient(address=address)


def _join(address: str | None) -> None:
    """Connects to a Ray. What trials print is kept in files of their own."""
    try:
        ray.init(address, logging_level=logging.ERROR, log_to_driver=False)
    except (ConnectionError, AuthenticationError, RuntimeError) as error:
        cause = str(error.__cause__ or error).strip()
        where = f"the Ray at {address}" if address is not None else "the Ray on this machine"
        raise SessionError(
            f"{where} cannot be used: {cause}\nA token that it does not take, another version of Ray or Python, "
            "and a machine that is no node of it are the usual causes; from elsewhere use `xaytune launch`"
        ) from error


def _found_here() -> str | None:
    """Returns the address of the Ray that was started on this machine; None where none runs."""
    address = None
    try:
        address = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
        return _reached(address) if address is not None else None
    except AuthenticationError:
        return address  # which token it takes is told where it is used
    except (OSError, ValueError, RayError):
        return None  # it was killed, and left its address behind; or it is another user's


def _silence() -> None:
    """Ends the thread in which Ray prints that a process was lost: the sweep says so itself, in a line."""
    global_worker.threads_stopped.set()
    global_worker.gcs_error_subscriber.close()  # type: ignore[attr-defined]
