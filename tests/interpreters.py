"""Stands in for starting an interpreter for a template process, whose imports take four seconds.

It is a fork of one interpreter that has imported them. Only processes that pytest starts itself are replaced;
those of the command line and of Ray's actors are real.
"""

from __future__ import annotations

import fcntl
import functools
import gc
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

# Above all descriptors that a command is given.
_HIGH = 500


class ForkedInterpreter:
    """What ``subprocess.Popen`` is for ``python -c PROGRAM ARGUMENT ...``, whose arguments it takes."""

    def __init__(
        self, command: list[str], *, stdin: Any, stdout: Any, stderr: Any, pass_fds: Sequence[int], **options: Any
    ) -> None:
        self._connection, there = socket.socketpair(type=socket.SOCK_SEQPACKET)
        own = [one if isinstance(one, int) else one.fileno() for one in (stdin, stdout, stderr)]
        with there, open(os.memfd_create("command"), "wb") as file:
            pickle.dump((command, os.getcwd(), dict(options["env"]), [0, 1, 2, *pass_fds]), file)
            file.flush()
            socket.send_fds(server()[0], [b"x"], [there.fileno(), file.fileno(), *own, *pass_fds])
        self.pid = int(self._connection.recv(16))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """Returns its exit code."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired("python", timeout or 0.0)
            self.returncode = int(self._connection.recv(16))
            self._connection.close()
        return self.returncode


@functools.cache
def server() -> tuple[socket.socket, subprocess.Popen[bytes]]:
    """Starts the process that is forked, and does not wait for it: it ends with this one."""
    here, there = socket.socketpair()
    with there:
        command = [sys.executable, __file__, str(there.fileno())]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        options: dict[str, Any] = {
            "env": environment,
            "stdin": subprocess.DEVNULL,
            "start_new_session": True,
        }
        return here, subprocess.Popen(command, pass_fds=[there.fileno()], **options)


def _serve(requests: socket.socket) -> None:
    """Forks a process for each request, as long as there is somebody to ask."""
    import torch._dynamo  # noqa: F401

    import xaytune.trial.process.template
    import xaytune.trial.program.command_run
    import xaytune.trial.run.runner  # noqa: F401

    assert len(os.listdir("/proc/self/task")) == 1, "a fork would lack the other threads"
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them here
    while True:
        told, given, *_ = socket.recv_fds(requests, 1, 32)
        if not told:
            return
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            _watch(*given)
        for descriptor in given:
            os.close(descriptor)


def _watch(connection: int, command: int, *given: int) -> NoReturn:
    """Starts the process that was asked for, and tells its exit code."""
    pid = os.fork()
    if pid == 0:
        _become(command, given)
    os.dup2(connection, 0)
    os.closerange(1, _HIGH)
    os.write(0, str(pid).encode())
    os.write(0, str(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])).encode())
    os._exit(0)


def _become(command: int, given: Sequence[int]) -> NoReturn:
    """Runs a program, as an interpreter that was started for it does."""
    os.setsid()
    os.lseek(command, 0, os.SEEK_SET)
    with open(command, "rb") as file:
        sys.orig_argv, folder, environment, numbers = pickle.load(file)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, _HIGH) for descriptor in given]
    os.closerange(0, _HIGH)
    for descriptor, number in zip(high, numbers, strict=True):
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.stdin, sys.stdout, sys.stderr = (os.fdopen(n, mode, closefd=False) for n, mode in enumerate("rww"))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    _, _, program, *arguments = sys.orig_argv
    sys.argv = ["-c", *arguments]
    exec(program, {"__name__": "__main__"})
    os._exit(0)


if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file
    _serve(socket.socket(fileno=int(sys.argv[1])))
