"""What a tracker does, and what it is told of a trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

__all__ = ["OpenTracker", "Point", "TrackedTrial", "Tracker"]


@dataclass(frozen=True)
class TrackedTrial:
    """The trial that a run of a tracker is of.

    Attributes:
        sweep: Name of its sweep.
        id: Unlike that of any other trial of any sweep, and the same for all its attempts.
        number: Its number.
        attempt: Times that it was begun before.
        config: Its configuration, by dotted name.
        folder: The sweep's folder on this node.
    """

    sweep: str
    id: str
    number: int
    attempt: int
    config: Mapping[str, Any]
    folder: Path

    @property
    def name(self) -> str:
        """What people know it by."""
        return f"{self.sweep}-{self.number:05d}"


@dataclass(frozen=True)
class Point:
    """Metrics at a step.

    Attributes:
        global_step: Optimizer steps done.
        time: Unix seconds.
        metrics: What was measured there.
    """

    global_step: int
    time: float
    metrics: Mapping[str, float]


class Tracker(Protocol):
    """A run of a tracker, of one trial."""

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Ends the run.

        Args:
            status: ``completed``, ``stopped``, ``failed``, or ``paused`` (another attempt follows).
            reason: Why it ended so, where there is more to say.
            best: The best value that the sweep's metric reached.
        """


OpenTracker = Callable[[TrackedTrial], Tracker]
