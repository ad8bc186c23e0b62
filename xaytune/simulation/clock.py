"""Virtual time."""

from __future__ import annotations


class VirtualClock:
    """A clock that stands still until it is set forward; a simulated sweep begins at 0, in unix seconds."""

    def __init__(self) -> None:
        self._elapsed = 0.0

    def now(self) -> float:
        """Returns unix seconds."""
        return self._elapsed

    def monotonic(self) -> float:
        """Returns the seconds since the simulated sweep began."""
        return self._elapsed

    def set_forward(self, to: float) -> None:
        """Lets the time be so many seconds after the beginning."""
        self._elapsed = max(self._elapsed, to)
