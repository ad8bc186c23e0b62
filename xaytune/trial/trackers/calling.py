"""How long a tracker is waited for."""

from __future__ import annotations

import queue
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

# Seconds in which a server must answer when a sweep starts; else it is taken to be down.
_SERVER_S = 8.0


class Caller:
    """Calls functions on a thread of its own, one after another, and waits for each for so long at most.

    Args:
        timeout_s: Seconds; infinity: without end.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = min(timeout_s, threading.TIMEOUT_MAX)
        self._calls: queue.SimpleQueue[Callable[[], Any] | None] = queue.SimpleQueue()
        self._returned: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
        threading.Thread(target=self._work, daemon=True).start()

    def call(self, function: Callable[[], Any]) -> Any:
        """Calls a function, and returns what it returns.

        Raises:
            TimeoutError: It takes too long. Nothing more may be called then.
            Exception: What it raises.
        """
        self._calls.put(function)
        try:
            value, error = self._returned.get(timeout=self._timeout_s)
        except queue.Empty:
            raise TimeoutError(f"it did not answer within {self._timeout_s:g} s") from None
        if isinstance(error, Exception):
            raise error
        if error is not None:  # it is not to end more than the call
            raise RuntimeError(f"{type(error).__name__}: {error}") from error
        return value

    def end(self) -> None:
        """Ends the thread, after what was called."""
        self._calls.put(None)

    def _work(self) -> None:
        while (function := self._calls.get()) is not None:
            try:
                self._returned.put((function(), None))
            except BaseException as error:
                self._returned.put((None, error))


def check_server(url: str) -> None:
    """Checks that a server answers, whatever it says.

    Raises:
        OSError: It cannot be reached.
    """
    try:
        urllib.request.urlopen(url, timeout=_SERVER_S).close()
    except urllib.error.HTTPError:
        pass  # it answers
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise OSError(f"{url} cannot be reached: {reason}") from error
