"""What is left to do of a sweep that is resumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xaytune.records.state import TrialRecord
from xaytune.search.method import Action
from xaytune.sweep.time_axis import TimeAxis
from xaytune.trial.messages import Assignment, StopRequest

__all__ = ["Remaining", "next_attempt"]


@dataclass(frozen=True)
class Remaining:
    """What is left to do of a sweep.

    Attributes:
        unfinished: Numbers of the trials to restart first; those that the method paused are not among them.
        stops: Trials that were to stop, and have not yet.
        actions: What the method had decided that was not carried out any more.
    """

    unfinished: Sequence[int] = ()
    stops: Mapping[int, StopRequest] = field(default_factory=dict)
    actions: Sequence[Action] = ()


def next_attempt(record: TrialRecord, axis: TimeAxis, stop: StopRequest | None = None) -> Assignment:
    """Returns what a trial is given to do when it is started, restarted or resumed.

    Args:
        record: What is known of it.
        axis: What time is counted in.
        stop: Why it is to end at once, if it is to.
    """
    return Assignment(
        trial=record.number,
        seed=record.seed,
        config=record.config,
        attempt=record.attempts,
        checkpoints=tuple(sorted(record.checkpoints)),
        last_judged=axis.reached_by(record.results[-1]) if record.results else 0,
        judged_step=record.results[-1].global_step if record.results else 0,
        taken_over_at=record.taken_over_at,
        stop=stop,
    )
