"""Starting a Ray on this machine, and ending it."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from xaytune.errors import SessionError
from xaytune.ray_tune.compat import (
    Node,
    RayParams,
    authentication_token_setup,
    persist_port,
    services,
    usage_lib,
    utils,
)
from xaytune.ray_tune.process_settings import attribute, environment

# What the processes of a Ray that is started here find in their environment, unless it is set there already.
_SETTINGS = {
    # Its memory monitor kills the actors of trials; the kernel kills a trial, and the sweep tells that as it is.
    "RAY_memory_monitor_refresh_ms": "0",
    # A raylet looks for its object store before that is there, and again after these: by default after a second.
    "RAY_raylet_client_connect_timeout_milliseconds": "50",
    "RAY_raylet_client_num_connect_attempts": "200",
}
# Attempts to start Ray: a raylet ends if its agents, programs of Python, have not started within 15 seconds, and
# no setting changes that.
_TRIES = 3
# The ports that a dashboard's agent of a raylet tells it, in files; -1 says that it serves none.
_AGENT_PORTS = ("metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
# Bytes of the path of the temporary folder, at most: that of a socket has 107, less what Ray's take below it.
_LONGEST_FOLDER = 107 - len("/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store.1")


def check_environment() -> None:
    """Checks that Ray can be started here: it would say in forty lines, or after a minute, that it cannot."""
    folder = os.environ.get("RAY_TMPDIR", tempfile.gettempdir())
    if len(os.fsencode(folder)) > _LONGEST_FOLDER:
        raise SessionError(
            f"the path of the temporary folder is too long for Ray's sockets (got {folder}): set RAY_TMPDIR to a "
            "short one, such as /tmp"
        )
    if "error" in os.environ.get("PYTHONWARNINGS", ""):
        raise SessionError(
            "PYTHONWARNINGS makes warnings errors, which ends Ray's own processes "
            f"(got {os.environ['PYTHONWARNINGS']!r}): unset it, and use `python -W error` or pytest's -W instead"
        )


def started(over: threading.Event) -> LocalNode:
    """Starts a Ray on this machine.

    Its processes have sessions of their own: what a batch system, ``timeout`` or a terminal sends to the group of
    this process is for this process alone, which ends them itself.

    Args:
        over: Set where it is not needed any more: what fails then is not tried again.

    Raises:
        SessionError: It cannot be started.
    """
    popen = functools.partial(_start_process, services.ConsolePopen)
    settings = {name: os.environ.get(name, value) for name, value in _SETTINGS.items()}
    with contextlib.ExitStack() as put_back:
        put_back.enter_context(environment(**settings))
        put_back.enter_context(attribute(services, "ConsolePopen", popen))
        # Ray would look whether a dashboard is installed by importing what it needs: it is told that none is.
        put_back.enter_context(attribute(utils, "get_dashboard_dependency_error", ImportError))
        try:
            return _started_in_time(over)
        except SessionError:
            raise
        except Exception as error:
            folders = isinstance(error, OSError) and error.filename is not None
            mend = "; set RAY_TMPDIR and HOME to folders that can be written" if folders else ""
            raise SessionError(
                f"Ray cannot be started on this machine: {type(error).__name__}: {error}{mend}"
            ) from error


def _started_in_time(over: threading.Event) -> LocalNode:
    """Starts it, again where a raylet ended at once, as on a busy machine.

    Raises:
        SessionError: Each did.
    """
    for _ in range(_TRIES):
        try:
            return LocalNode()
        except _RayletEndedError as error:
            logs = error
            if over.is_set():
                break
    raise SessionError(
        f"Ray did not start on this machine: its raylet ended {_TRIES} times as it started. If the machine is "
        f"busy, try again later; else see raylet.out and raylet.err in {logs}"
    )


class _RayletEndedError(Exception):
    """A raylet ended as it started; says where its logs are."""


def _start_process(popen: Callable[..., Any], command: list[str], **options: Any) -> Any:
    """Starts a process of Ray's. A raylet's agents and workers end with it.

    Agents would try for a minute to tell the GCS, and a worker that is starting does not notice. A raylet must
    have a dashboard's agent, also where there is no dashboard: a process that sleeps stands in for Ray's own,
    which takes seconds to start. Without setpriv, Ray's own starts.
    """
    if (setpriv := shutil.which("setpriv")) is not None:
        ends_with_it = f"{setpriv} --pdeathsig KILL "
        for option, instead in (
            (r"(--dashboard_agent_command=).+", "sleep infinity"),
            (r"(--(?:runtime_env_agent|python_worker)_command=)(.+)", r"\2"),
        ):
            command = [re.sub(f"^{option}", rf"\1{ends_with_it}{instead}", argument) for argument in command]
    return popen(command, **options, start_new_session=True)


class LocalNode(Node):
    """A Ray on this machine, without what a sweep in it has no use for.

    Ray's own start-up waits for a dashboard, an autoscaler and a log monitor, and ends each in turn.
    """

    def __init__(self) -> None:
        authentication_token_setup.enable_token_auth_by_default()
        authentication_token_setup.ensure_token_if_auth_enabled({}, create_token_if_missing=True)
        usage_lib.set_usage_stats_enabled_via_env_var(False)
        params = RayParams(include_dashboard=False, include_log_monitor=False)  # type: ignore[arg-type]
        super().__init__(params, head=True, shutdown_at_exit=False, ray_init_cluster=True)

    def start_head_processes(self) -> None:
        """Starts the one that there must be."""
        self.start_gcs_server()
        self._write_cluster_info_to_kv()

    def start_ray_processes(self) -> None:
        """Starts the others, and waits until they are known: Ray looks once a second.

        Raises:
            _RayletEndedError: One of them ended.
        """
        for name in _AGENT_PORTS:
            persist_port(self.get_session_dir_path(), self._node_id, name, -1)
        super().start_ray_processes()
        while not self.get_gcs_client().get_all_node_info():
            if self.dead_processes():
                self.end()
                raise _RayletEndedError(self.get_logs_dir_path())
            time.sleep(0.01)

    def end(self) -> None:
        """Ends all of its processes, and those of its trials."""
        self._kill_process_type("raylet", check_alive=False, allow_graceful=True)
        self.kill_all_processes(check_alive=False)
