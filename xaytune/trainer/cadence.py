"""When a run is saved although nobody asks for it, and which of these checkpoints stay."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

# The largest share of the time that such saves take.
_SHARE: Final = 0.05


class Cadence:
    """Saves every now and then, so that little is lost with a process; the newest two of these checkpoints stay.

    Args:
        every_s: Seconds between two saves, at least; 0 saves wherever that is possible, whatever it costs.
        discard: Deletes a checkpoint.
    """

    def __init__(self, every_s: float, discard: Callable[[Path], None]) -> None:
        self._every_s, self._discard = every_s, discard
        self._next = time.monotonic() + every_s
        self._written: list[Path] = []  # by the cadence alone, oldest first

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._next

    @contextlib.contextmanager
    def saving(self) -> Iterator[None]:
        """Measures what a save takes: the next one waits for as long as that deserves."""
        begun = time.monotonic()
        yield
        now = time.monotonic()
        self._next = now + (max(self._every_s, (now - begun) / _SHARE) if self._every_s else 0.0)

    def wrote(self, path: Path, *, asked: bool) -> None:
        """Takes note of a checkpoint; one that was `asked` for is not the cadence's to discard."""
        if path in self._written:
            self._written.remove(path)
        if asked:
            return
        self._written.append(path)
        while len(self._written) > 2:  # the older one is for the case that the newest is damaged
            self._discard(self._written.pop(0))
