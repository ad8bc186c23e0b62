"""A channel: objects that two processes of one machine send each other over a socket."""

from __future__ import annotations

import contextlib
import os
import pickle
import select
import socket
import time
from typing import Any

# The variable of the environment that tells the program of a trial where the other end is.
ADDRESS = "XAYTUNE_TRIAL"

_HEADER = 8  # bytes: the length of what follows
_CHUNK = 1 << 18


class Channel:
    """Pickled objects over a stream socket. Sending never waits for the other side, unless that is asked for.

    Args:
        end: This side's end of the socket; the channel's from now on.
    """

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._received, self._unsent = bytearray(), bytearray()
        self._descriptors: list[int] = []

    @property
    def busy(self) -> bool:
        """Whether something that was put waits for the other side."""
        return bool(self._unsent)

    def fileno(self) -> int:
        """Returns the socket's descriptor."""
        return self._socket.fileno()

    def put(self, sent: object, descriptor: int | None = None) -> None:
        """Sends an object, as much of it as the other side takes at once; :meth:`flush` sends the rest.

        Args:
            sent: Anything that can be pickled.
            descriptor: A file descriptor that the other side is to have too.

        Raises:
            OSError: The other side is gone.
        """
        data = pickle.dumps(sent, protocol=pickle.HIGHEST_PROTOCOL)
        frame = len(data).to_bytes(_HEADER, "big") + data
        if descriptor is not None:
            self.flush()
            count = socket.send_fds(self._socket, [frame[:_CHUNK]], [descriptor])
            frame = frame[count:]
        self._unsent += frame
        self._send()

    def flush(self, timeout: float | None = None) -> bool:
        """Waits until all that was put is sent, and tells whether it is.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            OSError: The other side is gone.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while self._unsent:
            if not self._wait(select.POLLOUT, deadline):
                return False
            self._send()
        return True

    def get(self, timeout: float | None = 0.0) -> Any:
        """Returns the next object of the other side; None if none came in time.

        Args:
            timeout: Seconds; None waits for as long as it takes.

        Raises:
            EOFError: The other side is gone, and there is nothing more of it.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while (data := self._take()) is None:
            if not self._wait(select.POLLIN, deadline):
                return None
            self._receive()
        return pickle.loads(data)

    def take_descriptor(self) -> int:
        """Returns the oldest descriptor that came along and was not taken yet."""
        return self._descriptors.pop(0)

    def close(self) -> None:
        """Closes this end."""
        self._socket.close()

    def _send(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self._unsent:
                count = self._socket.send(self._unsent[:_CHUNK])
                del self._unsent[:count]

    def _receive(self) -> None:
        try:
            data, descriptors, _, _ = socket.recv_fds(self._socket, _CHUNK, 4)
        except BlockingIOError:
            return
        except ConnectionError:
            data, descriptors = b"", []
        for descriptor in descriptors:
            os.set_inheritable(descriptor, False)
        self._descriptors += descriptors
        if not data:
            raise EOFError("the other side is gone")
        self._received += data

    def _take(self) -> bytes | None:
        end = _HEADER + int.from_bytes(self._received[:_HEADER], "big")
        if len(self._received) < max(end, _HEADER + 1):
            return None
        data = bytes(self._received[_HEADER:end])
        del self._received[:end]
        return data

    def _wait(self, events: int, deadline: float | None) -> bool:
        poll = select.poll()
        poll.register(self._socket, events)
        left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
        return bool(poll.poll(left))
