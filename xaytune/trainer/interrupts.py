"""Ctrl-C: the first one stops a run through its own loop."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator

from xaytune.trainer.callbacks import TrainState


@contextlib.contextmanager
def interrupt_stops(*states: TrainState) -> Iterator[None]:
    """Makes the first Ctrl-C stop runs through their own loops, and raises it when the loops have ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    interrupted = False

    def stop(signum: int, frame: object) -> None:
        nonlocal interrupted
        interrupted = True
        for state in states:
            state.stop_training()
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if interrupted:
        raise KeyboardInterrupt
