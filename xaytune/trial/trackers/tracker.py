"""What a tracker does, and what it learns of a trial."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from xaytune.sweep.configurable import Configurable

__all__ = ["Point", "TrackedTrial", "Tracker"]


@dataclass(frozen=True)
class TrackedTrial:
    """The trial that a run of a tracker is of.

    Attributes:
        sweep: Name of its sweep.
        id: Unlike that of any other trial of any sweep, and the same for all its attempts.
        number: Its number.
        attempt: Times that it was started before.
        config: Its configuration, by dotted name.
        global_step: The step of the checkpoint that it goes on from; 0 where it begins.
        folder: The sweep's folder on this node. What a tracker writes to `trackers/` in it is kept with the sweep.
    """

    sweep: str
    id: str
    number: int
    attempt: int
    config: Mapping[str, Any]
    folder: Path
    global_step: int = 0

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


class Tracker(Configurable):
    """An experiment tracker, in which each trial is a run: ``trackers: [package.module:Class]`` in a spec.

    ``Class(project="x")`` in Python and ``{tracker: package.module:Class, project: x}`` in a file mean the same:
    its options are checked, by its `options_model`, before the sweep begins. In each trial's process one is made,
    and called in the order of these methods. :class:`xaytune.testing.TrackerContract` tests one of one's own.

    Attributes:
        environment: Prefixes of the variables of the environment that it is set up by: they reach the trials on
            all nodes.
    """

    environment: ClassVar[tuple[str, ...]] = ()

    def begin(self, sweep: str) -> None:
        """Makes what the trials of a sweep share; called once, where the sweep is started.

        Args:
            sweep: The sweep's name.

        Raises:
            Exception: It cannot be used: the sweep does not begin.
        """

    def open(self, trial: TrackedTrial) -> None:
        """Begins the run of a trial; one that is restarted (``trial.attempt > 0``) continues its run."""
        raise NotImplementedError

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""
        raise NotImplementedError

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Ends the run.

        Args:
            status: ``completed``, ``stopped``, ``failed``, or ``paused`` (another attempt follows).
            reason: Why it ended so, where there is more to say.
            best: The best value that the sweep's metric reached.
        """
        raise NotImplementedError
