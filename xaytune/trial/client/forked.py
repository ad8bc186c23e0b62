"""A process that the template has started, as its actor sees it: what it says, and its exit."""

from __future__ import annotations

import contextlib
import select
import time
from typing import Any

from xaytune.trial.client.template_client import Template
from xaytune.trial.common.exits import Exit

# Seconds that a process has to be gone which has only to exit, or was killed.
_EXIT_S = 5.0


class Forked:
    """A process, and the channel to it.

    Args:
        template: What starts it.

    Attributes:
        pid: The process.
        notes: What to tell of how it was started.

    Raises:
        TemplateError: The template cannot be started.
        OSError: It is there, and can start no process.
    """

    def __init__(self, template: Template) -> None:
        self._template = template
        self.pid, self.notes, self._channel = template.start_trial()

    def put(self, message: object) -> None:
        """Says something; what it does not take at once is sent while it is listened to."""
        with contextlib.suppress(OSError):  # it is gone, which is noticed where it is listened to
            self._channel.put(message)

    def get(self, timeout: float) -> Any:
        """Returns what it says next, an :class:`Exit` after the last; None if there was nothing in time.

        Args:
            timeout: Seconds.
        """
        deadline = time.monotonic() + timeout
        while True:
            exited = self._exit(0)  # asked before the channel is read: what the process said before is there
            try:
                said = self._channel.get(0)
            except EOFError:
                said, exited = None, exited or self._exit(_EXIT_S)
            if said is not None or exited is not None:
                return said if said is not None else exited
            if (left := deadline - time.monotonic()) <= 0:
                return None
            self._wait(left)

    def close(self, timeout: float) -> None:
        """Waits until it is gone, and kills it where that takes longer than so many seconds."""
        if self._exit(timeout) is None:
            self._template.kill_trial()
            self._exit(_EXIT_S)
        self._channel.close()

    def _exit(self, timeout: float) -> Exit | None:
        return self._template.exit_of_trial(self.pid, timeout)

    def _wait(self, timeout: float) -> None:
        """Waits for something to read, and for room where something is left to be sent."""
        with contextlib.suppress(OSError):
            self._channel.flush(0)
        poll = select.poll()
        poll.register(self._channel, select.POLLIN | (select.POLLOUT if self._channel.busy else 0))
        poll.register(self._template, select.POLLIN)
        poll.poll(timeout * 1000)
