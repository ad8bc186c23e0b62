"""Connecting to a Ray: one that an address names, one that runs on this machine, or one that is started here."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Iterator
from typing import NamedTuple

import ray
from ray.exceptions import AuthenticationError, RayError

from xaytune.errors import SessionError
from xaytune.ray_tune import compat
from xaytune.ray_tune.compat import GcsClient, authentication_token_setup, global_worker, services
from xaytune.ray_tune.local_ray import LocalNode, check_environment, started
from xaytune.ray_tune.process_settings import log_level

_PORT = 6379
_ANSWER_S = 5.0


class Connection(NamedTuple):
    """A Ray that this process is connected to.

    Attributes:
        node: The one that was started for it, if one was.
        notes: What whoever runs the sweep should know of it.
    """

    node: LocalNode | None
    notes: tuple[str, ...]


@contextlib.contextmanager
def connected(address: str | None, over: threading.Event) -> Iterator[Connection]:
    """A context in which this process is connected to a Ray.

    Args:
        address: Its address; by default that of the one on this machine.
        over: Set where one that is being started is not needed any more.

    Raises:
        SessionError: It cannot be used, or none can be started.
    """
    compat.check(*compat.SESSION)
    node: LocalNode | None = None
    notes: tuple[str, ...] = ()
    with log_level(logging.ERROR, "ray"):
        if address is None:
            address, notes = _found_here()
        if address not in (None, "local"):
            address = _checked(address)
        else:
            check_environment()
            node = started(over)
            address = node.address
        try:
            _join(address)
            _silence()
            yield Connection(node, notes)
        finally:
            ray.shutdown()
            if node is not None:
                node.end()


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


def _found_here() -> tuple[str | None, tuple[str, ...]]:
    """Returns the address of the Ray that was started on this machine, if it is used, and notes on it."""
    try:
        address = services.canonicalize_bootstrap_address(None)  # type: ignore[arg-type]
    except (OSError, ValueError):  # it is another user's, or being written
        address = None
    if address is None:
        return None, ()
    try:
        address = _reached(address)
    except AuthenticationError:
        pass  # which token it takes is told where it is used
    except ConnectionRefusedError:
        return None, ()  # it was killed, and left its address behind
    except (OSError, ValueError, RayError) as error:
        return None, (f"the Ray at {address} on this machine does not answer ({error}): it is not used",)
    return address, (
        f"trials run in the Ray at {address}, which this machine is a node of; with RAY_ADDRESS=local the sweep "
        "starts one of its own",
    )


def _silence() -> None:
    """Ends the thread in which Ray prints that a process was lost: the sweep says so itself, in a line."""
    global_worker.threads_stopped.set()
    global_worker.gcs_error_subscriber.close()  # type: ignore[attr-defined]
