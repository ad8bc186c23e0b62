"""The template process of a node, as others see it: finding it, starting it, asking it for trials."""

from __future__ import annotations

import contextlib
import errno
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zlib
from typing import IO, Any

from xaytune.messages import Task
from xaytune.sweep.options import reference_name
from xaytune.trial.common import kernel
from xaytune.trial.common.channel import Channel
from xaytune.trial.common.exits import Exit, words_for_exit
from xaytune.trial.common.launching import launch
from xaytune.trial.common.link import Imported
from xaytune.trial.common.output import last_lines
from xaytune.trial.common.recipe import portable

# Seconds that a template has to end when it is asked to.
_EXIT_S = 5.0
# Attempts to start a process by a template; one that was killed is started again.
_STARTS = 3
_ENVIRONMENT = {
    # With it, torch can be asked for GPUs before a fork.
    "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
    # Fewer pages to copy: forks and exits take two thirds of the time.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}


class TemplateError(Exception):
    """The template process ended while it imported what trials need."""


class Template:
    """A connection to the template process of this node, which is started where there is none, and not waited for.

    The process ends when nobody is connected to it any more: with :meth:`end`, or when this process and all actors
    of the sweep on this node are gone.

    Args:
        task: What the sweep's trials share. Its folder need not be there yet; actors give it to their trials.
    """

    def __init__(self, task: Task) -> None:
        self._task = portable(task)
        self.address = _address(task)
        self._process: subprocess.Popen[bytes] | None = None  # if it was started here
        self._output: IO[bytes] | None = None
        self._ended: Exit | None = None  # the trial that was started last
        # It carries nothing: the template sees by it that this process lives.
        self._lifeline: socket.socket | None = None
        self._channel = self._connect()

    def start_trial(self) -> tuple[int, tuple[str, ...], Channel]:
        """Starts the process of a trial, which waits for its task, its assignment and its environment.

        Returns:
            Its pid, what to tell of how trials are started, and the channel to it.

        Raises:
            TemplateError: The template cannot be started.
            OSError: The template can start no process: the machine is short of something.
        """
        lives = False
        for _ in range(_STARTS):
            here, there = socket.socketpair()
            try:
                with there:
                    self._ended = None
                    self._channel.put(("start", None), there.fileno())
                pid, notes, error = self._await("started", None)
            except (OSError, EOFError):
                here.close()
                self._channel.close()
                lives = self._lives()
                self._channel = self._connect()
                continue
            if error is not None:
                here.close()
                raise OSError(f"no process can be started for it: {error}")
            return pid, notes, Channel(here)
        if lives:
            raise OSError(f"the process that trials are forked from hung up {_STARTS} times")
        raise TemplateError(f"the process that trials are forked from was lost {_STARTS} times; {self._printed()}")

    def exit_of_trial(self, pid: int, timeout: float) -> Exit | None:
        """Returns the exit of a trial's process; if the template is gone, so is the trial.

        Args:
            pid: The process that was started last.
            timeout: Seconds to wait.

        Returns:
            None if it has not ended.
        """
        deadline = time.monotonic() + timeout
        try:
            while self._ended is None and (ended := self._await("ended", max(0.0, deadline - time.monotonic()))):
                of, status, out_of_memory = ended
                self._ended = Exit(status, out_of_memory) if of == pid else None
        except EOFError:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)  # the kernel killed the trial, but not its children
            self._ended = Exit(signal.SIGKILL, out_of_memory=False)
        return self._ended

    def kill_trial(self) -> None:
        """Kills the trial's process, and its children."""
        with contextlib.suppress(OSError):
            self._channel.put(("kill", None))

    def imported(self, imported: Imported) -> None:
        """Tells what packages a trial has imported, so that the next need not."""
        with contextlib.suppress(OSError):
            self._channel.put(("imported", imported))

    def fileno(self) -> int:
        """Returns a descriptor that can be read when a trial has ended."""
        return self._channel.fileno()

    def close(self) -> None:
        """Gives up the connection, and kills the trial that was started by it."""
        for one in (self._channel, self._lifeline, self._output):
            if one is not None:
                one.close()

    def end(self) -> None:
        """Ends the template process of this node, and all trials on it."""
        with contextlib.suppress(OSError):
            self._channel.put(("end", None))
        self.close()
        if self._process is not None:
            try:
                self._process.wait(_EXIT_S)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()

    def _await(self, kind: str, timeout: float | None) -> Any:
        """Returns the next answer of a kind; what came before it is of trials that are over."""
        while (answer := self._channel.get(timeout)) is not None:
            of, *content = answer
            if of == kind:
                return content
        return None

    def _connect(self) -> Channel:
        """Connects to the template; where there is none, this process starts it."""
        while True:
            with contextlib.closing(socket.socket(socket.AF_UNIX)) as listener:
                try:
                    listener.bind(self.address)
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:  # else there is one
                        raise
                else:
                    listener.listen()
                    self._start(listener)
                end = socket.socket(socket.AF_UNIX)
                try:
                    end.connect(self.address)
                except OSError:  # it has just ended
                    end.close()
                else:
                    return Channel(end)

    def _start(self, listener: socket.socket) -> None:
        self._lifeline, there = socket.socketpair()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        with there:
            self._process = launch(
                "template",
                [listener.fileno(), there.fileno()],
                pickle.dumps(self._task),
                _environment(self._task),
                self._output,
            )

    def _lives(self) -> bool:
        """Whether the template that was started here is there, though it hung up; else it is started again.

        Raises:
            TemplateError: It was ended by what it imported.
        """
        if self._process is None:
            return False
        try:
            code = self._process.wait(_EXIT_S)
        except subprocess.TimeoutExpired:
            return True
        if code not in (0, -signal.SIGKILL):
            name = reference_name(self._task.recipe)
            raise TemplateError(
                f"the process that imports {name} ended there: {words_for_exit(code)}; {self._printed()}"
            )
        return False

    def _printed(self) -> str:
        printed = last_lines(self._output.fileno()) if self._output is not None else ""
        return f"it printed:\n{printed}" if printed else "it printed nothing"


def set_by_ray(name: str, value: str) -> bool:
    """Whether a variable of the environment is one that a process of Ray has for itself."""
    return name.startswith("RAY_") or (name == "PYTHONBREAKPOINT" and value.startswith("ray."))


def _address(task: Task) -> str:
    """Returns the address of a run's template on this node, for processes that see the same files and packages."""
    return f"\0xaytune-{task.run_id}-{os.getuid()}-{kernel.namespace():x}-{zlib.crc32(sys.prefix.encode()):x}"


def _environment(task: Task) -> dict[str, str]:
    """Returns what the template is started with: what a process of Ray has for itself is left out."""
    environment = {name: value for name, value in os.environ.items() if not set_by_ray(name, value)}
    if not task.gpus:
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment | _ENVIRONMENT
