"""The search method: what to do next. All that decides in a sweep stands behind this class.

A search method is plain Python: no Ray, no clock, no files, no threads. It is given events and returns decisions,
and its state follows from the events alone: the same events give the same decisions. So it is tested in
milliseconds, rebuilt from a journal by giving it the events again, and simulated in virtual time.

The life of a trial, as a method sees it::

    next()          -> NewTrial(config)         the trial gets the next number, from 0
    on_result(...)  -> [Continue | Stop | Pause | Exploit, ...]      at each of its decision points
    next()          -> Resume(trial)            a paused trial is to train again; on_resume(trial) when it does
    on_end(...)     -> [...]                    it has ended, however it did

What a method draws at random it draws from generators of its own, seeded by the spec and advanced by events only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from xaytune.sweep.time_axis import DecisionPoints

__all__ = [
    "Action",
    "Continue",
    "Decision",
    "Done",
    "End",
    "Exploit",
    "KeepCheckpoint",
    "NewTrial",
    "Next",
    "Pause",
    "Result",
    "Resume",
    "SearchMethod",
    "Stop",
    "Wait",
]


@dataclass(frozen=True)
class Result:
    """What a trial was worth at a decision point.

    Attributes:
        time: Its age: epochs or steps finished, as the method's decision points count them.
        value: The sweep's metric there; None where it is not finite.
        metrics: The other metrics of the same step.
        seconds: Seconds that the trial has trained; None where that is not known.
        due: Whether this is a decision point. A metric that is not finite is reported at any time.
    """

    time: int
    value: float | None
    metrics: Mapping[str, float] = field(default_factory=dict)
    seconds: float | None = None
    due: bool = True


@dataclass(frozen=True)
class End:
    """How a trial ended.

    Attributes:
        status: ``completed``, ``stopped`` (early, by whatever decision), ``failed``, or ``infeasible`` (this
            configuration can never be trained here, for want of memory).
        best: The best finite value that its metric reached; None where there was none.
        last: What it was worth where it ended. ``last.due`` tells whether it ended by itself at a decision point:
            it was not judged there, and counts there.
    """

    status: Literal["completed", "stopped", "failed", "infeasible"]
    best: float | None = None
    last: Result | None = None


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What happens to a trial at a decision point, and why.

    Attributes:
        trial: Its number.
        reason: Why, in words and numbers.
        cutoff: The value that it was compared with; None where there was none.
        compared: How many other trials that is of.
        details: Further numbers that tell why, by name: they are kept in the journal, and shown by ``why``.
        word: What the journal calls it.
    """

    word: ClassVar[str] = "continue"

    trial: int
    reason: str
    cutoff: float | None = None
    compared: int = 0
    details: Mapping[str, Any] = field(default_factory=dict)


class Continue(Decision):
    """The trial trains on."""


@dataclass(frozen=True, kw_only=True)
class Stop(Decision):
    """The trial, which runs or is paused, ends through its own loop.

    Attributes:
        status: What it ends as: ``completed`` where it trained all that it was to.
    """

    word: ClassVar[str] = "stop"

    status: Literal["completed", "stopped"] = "stopped"


class Pause(Decision):
    """The trial leaves its place to others, until :meth:`SearchMethod.next` says :class:`Resume`."""

    word: ClassVar[str] = "pause"


@dataclass(frozen=True, kw_only=True)
class Exploit(Decision):
    """The trial is paused, and resumes from the checkpoint of another, with another configuration.

    Where it runs it leaves its place, as with :class:`Pause`; where it is paused already it stays so. Either way
    it trains again when :meth:`SearchMethod.next` says :class:`Resume`.

    Attributes:
        donor: The other trial. :class:`KeepCheckpoint` was returned for it before.
        config: The new configuration.
    """

    donor: int
    config: dict[str, Any]


@dataclass(frozen=True)
class KeepCheckpoint:
    """The newest checkpoint of a trial is kept for others to resume from (a donor checkpoint)."""

    trial: int


Action = Continue | Stop | Pause | Exploit | KeepCheckpoint


@dataclass(frozen=True)
class NewTrial:
    """A new trial.

    Attributes:
        config: Its configuration.
        reason: Why this one, where there is something to say.
    """

    config: dict[str, Any]
    reason: str | None = None


@dataclass(frozen=True)
class Resume:
    """A paused trial resumes; or one that was stopped or completed is continued."""

    trial: int


@dataclass(frozen=True)
class Wait:
    """There is nothing to begin until another result comes."""


@dataclass(frozen=True)
class Done:
    """There is nothing to begin any more."""

    reason: str | None = None


Next = NewTrial | Resume | Wait | Done


class SearchMethod(ABC):
    """Decides which configurations are tried, and which trials train on.

    Attributes:
        points: When trials are judged.
        adaptive: Whether it learns from how trials did. If so, fewer trials are begun at once where they are
            fused.
    """

    points: DecisionPoints
    adaptive: bool = True

    @abstractmethod
    def next(self) -> Next:
        """Says what a free worker is to do.

        Only :class:`NewTrial` changes the state of the method: after any other answer it may be asked again.
        :class:`Resume` is returned again until :meth:`on_resume` is called.
        """

    @abstractmethod
    def adopt(self, config: Mapping[str, Any]) -> None:
        """Begins a trial that a journal tells of, when a method is rebuilt from it.

        What :meth:`next` would have drawn is drawn, so that random generators stand where they stood; where it was
        another configuration (by another version of a library), the given one counts.

        Args:
            config: The configuration that the trial has.
        """

    def on_resume(self, trial: int) -> None:  # noqa: B027
        """Learns that a paused trial trains again: it is called before :meth:`next` is asked again."""

    @abstractmethod
    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Judges a trial.

        Returns:
            First what happens to the trial itself; then what this means for others.
        """

    @abstractmethod
    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Learns that a trial has ended.

        Returns:
            What this means for other trials.
        """

    def recall(self, decision: Decision) -> None:  # noqa: B027
        """Learns what was decided on a trial in fact, when a method is rebuilt from a journal.

        It is called only where the method would decide otherwise now: the journal was written by another version.
        """

    def set_max_t(self, max_t: int) -> None:  # noqa: B027
        """Learns how many epochs or steps trials train.

        It is called once, before any trial is judged, where its decision points are
        :class:`~xaytune.sweep.time_axis.LevelPoints` without levels.
        """

    def fall_back(self, reason: str) -> None:  # noqa: B027
        """Learns that it takes too long to decide: what is cheaper is to be done from now on.

        The driver measures that, not the method, and keeps it in the journal like other events.
        """
