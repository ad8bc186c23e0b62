"""Ctrl-C and its like, where they must not raise at any moment."""

from __future__ import annotations

import signal
import threading
from typing import Any

_raised = False
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt(signum: int, frame: object) -> None:
    """Raises KeyboardInterrupt. Where Python drops that, as in a finalizer, :class:`Interrupts` knows of it."""
    global _raised
    _raised = True
    raise KeyboardInterrupt


class Interrupts:
    """Takes Ctrl-C, SIGTERM and SIGHUP (the terminal is gone) as a wish, which its owner looks for. A context.

    Where SIGHUP is ignored, as under ``nohup``, it stays so; SIGINT, which shells ignore for what runs in the
    background of a script, is taken all the same.

    Args:
        raises: Whether the second one raises KeyboardInterrupt.

    Attributes:
        asked: Whether there is one.
    """

    def __init__(self, *, raises: bool = True) -> None:
        self.asked = False
        self._raises = raises
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        self.asked = self.asked or _raised
        if threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            taken = [number for number in _SIGNALS if not (ignored and number == signal.SIGHUP)]
            self._before = {number: signal.signal(number, self._interrupt) for number in taken}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, signum: int, frame: object) -> None:
        # A terminal that goes is told of more than once.
        if self._raises and self.asked and signum != signal.SIGHUP:
            raise KeyboardInterrupt
        self.asked = True
