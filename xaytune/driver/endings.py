"""How a sweep ends before its time: what for, and what becomes of the trials that run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xaytune.records.state import SweepState
from xaytune.trial.messages import StopRequest

__all__ = ["Ending", "outcome_of"]


@dataclass(frozen=True)
class Ending:
    """The end of a sweep that is not finished.

    Attributes:
        state: What the journal says of the sweep.
        reason: Why, in words.
        request: What the trials that run are asked to do.
    """

    state: Literal["completed", "interrupted", "failed"]
    reason: str
    request: StopRequest

    @classmethod
    def interrupted(cls) -> Ending:
        """Ctrl-C, or SIGTERM: the sweep can be resumed."""
        return cls("interrupted", "interrupted by the user", StopRequest("the sweep was interrupted", "paused"))

    @classmethod
    def failed(cls, reason: str) -> Ending:
        """Nothing good can come of it: what is to be mended is in the reason."""
        return cls("failed", reason, StopRequest("the sweep was ended", "paused"))

    @classmethod
    def budget_spent(cls, reason: str) -> Ending:
        """It has had what it was given."""
        return cls("completed", reason, StopRequest(reason))


def outcome_of(sweep: SweepState, metric: str) -> tuple[str, str | None]:
    """Returns how a sweep ended that nothing ended before its time, and why if it failed."""
    if all(trial.status == "failed" for trial in sweep.trials.values()):
        return "failed", "every trial failed"
    if sweep.best is None:
        return "failed", f"no trial reported a finite {metric!r}"
    return "completed", None
