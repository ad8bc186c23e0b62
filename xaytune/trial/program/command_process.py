"""The program of a trial: a process of its own, which a command starts, and its ways to talk."""

from __future__ import annotations

import fcntl
import os
import secrets
import selectors
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence

from xaytune.sweep.command import search_path
from xaytune.trial.common import kernel
from xaytune.trial.common.channel import ADDRESS, Channel

# The variable of the environment that tells a program where it writes lines of JSON.
_DESCRIPTOR = "XAYTUNE_FD"
# Shells such as dash can write to descriptors of one digit only.
_LARGEST = 9
_READ = 1 << 16


class Program:
    """A program that runs, in the session of this process, and ends with it.

    Args:
        words: What starts it.
        environment: Variables that it finds beside those of this process.

    Attributes:
        lines: Those that it has written, and nobody has taken.
        channel: To it, once it has said ``xaytune.current_trial()``.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.lines: list[bytes] = []
        self.channel: Channel | None = None
        self._partial = b""
        self._selector = selectors.DefaultSelector()
        self._listener, address = _listening()
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        self._pipe = reading
        kept = fcntl.fcntl(writing, fcntl.F_DUPFD, 3)
        given = min(kept, _LARGEST)  # where no smaller one is free here, it takes that place in the program
        parent = os.getpid()

        def prepare() -> None:
            kernel.die_with_parent(parent)
            if given != kept:
                os.dup2(kept, given)

        own = {ADDRESS: address, _DESCRIPTOR: str(given), "PATH": search_path()}
        try:
            self._process = subprocess.Popen(
                words,
                env={"PYTHONUNBUFFERED": "1", **os.environ, **environment, **own},
                pass_fds=[given],
                preexec_fn=prepare,
            )
        except BaseException:
            self._listener.close()
            os.close(reading)
            self._selector.close()
            raise
        finally:
            os.close(writing)
            os.close(kept)
        self._selector.register(reading, selectors.EVENT_READ, self._read)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)
        self._exit = os.pidfd_open(self._process.pid) if hasattr(os, "pidfd_open") else None
        if self._exit is not None:
            self._selector.register(self._exit, selectors.EVENT_READ, self._forget_exit)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, negative for a signal, once it has exited and all its lines are here; else None."""
        code = self._process.poll()
        if code is not None:
            while self._read():
                pass
            if code == 0:  # of one that failed, it may be half of a line
                self._take_in(b"\n")
        return code

    def wait(self, timeout: float) -> None:
        """Waits until it says something or ends, and takes in what it says.

        Args:
            timeout: Seconds, at most.
        """
        for key, _ in self._selector.select(timeout):
            key.data()

    def wait_for_exit(self, timeout: float) -> int:
        """Waits for its exit, kills it if it does not come in time, and returns the exit code.

        Args:
            timeout: Seconds.
        """
        deadline = time.monotonic() + timeout
        while self._process.poll() is None and (left := deadline - time.monotonic()) > 0:
            self.wait(min(left, 0.1))
        self._process.kill()
        return self._process.wait()

    def ask_to_stop(self) -> None:
        """Sends it SIGTERM."""
        self._process.terminate()

    def close(self) -> None:
        """Kills it, if it runs, and lets go of it."""
        self._process.kill()
        self._process.wait()
        self._selector.close()
        for end in (self._listener, self.channel):
            if end is not None:
                end.close()
        for descriptor in (self._pipe, self._exit):
            if descriptor is not None:
                os.close(descriptor)

    def hang_up(self) -> None:
        """Listens to its channel no more: the other end is closed."""
        assert self.channel is not None
        self._selector.unregister(self.channel)

    def _read(self) -> bool:
        """Takes in what it has written, and tells whether that was something."""
        try:
            data = os.read(self._pipe, _READ)
        except BlockingIOError:
            return False
        if not data and self._pipe in self._selector.get_map():
            self._selector.unregister(self._pipe)
        self._take_in(data)
        return bool(data)

    def _take_in(self, data: bytes) -> None:
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.lines += [line for line in lines if line.strip()]

    def _accept(self) -> None:
        end, _ = self._listener.accept()
        if not kernel.is_ours(end):
            end.close()
            return
        self._selector.unregister(self._listener)
        self._listener.close()  # of several processes the first has the trial
        self.channel = Channel(end)
        self._selector.register(self.channel, selectors.EVENT_READ, lambda: None)

    def _forget_exit(self) -> None:
        assert self._exit is not None
        self._selector.unregister(self._exit)


def _listening() -> tuple[socket.socket, str]:
    """Returns a socket that the program can connect to, and its address; ``@`` is its null byte."""
    address = f"@xaytune-{os.getpid()}-{secrets.token_hex(8)}"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address.replace("@", "\0"))
    listener.listen(1)
    return listener, address
