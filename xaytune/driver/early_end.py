"""How a sweep ends before its time: what for, and what becomes of the trials that run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from xaytune.driver.failures import EarlyFailures
from xaytune.errors import SpecError, StorageError
from xaytune.messages import StopRequest
from xaytune.records.clock import Clock
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.sweep.options import BudgetSpec
from xaytune.sweep.spec import SweepSpec


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
        """Nothing good can come of it: the reason tells what is to be fixed."""
        return cls("failed", reason, StopRequest("the sweep was ended", "paused"))

    @classmethod
    def budget_spent(cls, reason: str) -> Ending:
        """It has had what it was given."""
        return cls("completed", reason, StopRequest(reason))


class EarlyEnd:
    """Notices what ends a sweep before its time: an error, trials that fail alike, or a budget that is spent.

    Args:
        spec: The sweep.
        clock: Tells the time.
        spent_s: Seconds that it ran before it was resumed.

    Attributes:
        error: What is to be raised, where it is that.
    """

    def __init__(self, spec: SweepSpec, clock: Clock, spent_s: float) -> None:
        self.error: SpecError | StorageError | None = None
        self._budget, self._clock, self._began = spec.budget, clock, clock.monotonic() - spent_s
        self._failures = EarlyFailures(spec)

    def fail(self, error: SpecError | StorageError | None) -> None:
        """Takes in an error that the sweep ends for, if there is one; the first counts."""
        self.error = self.error or error

    def add(self, record: TrialRecord, sweep: SweepState) -> None:
        """Learns how a trial ended."""
        self.fail(self._failures.add(record, sweep))

    def due(self, sweep: SweepState) -> Ending | None:
        """Returns how the sweep is to end now; None while it is not."""
        if self.error is not None:
            return Ending.failed(str(self.error))
        if (reason := self._failures.verdict(sweep)) is not None:
            return Ending.failed(reason)
        reason = spent(self._budget, sweep.epochs, self._clock.monotonic() - self._began)
        return Ending.budget_spent(reason) if reason is not None else None


def spent(budget: BudgetSpec, epochs: int, seconds: float) -> str | None:
    """Returns a message that says which budget of a sweep is spent; None while none is.

    Args:
        budget: What it may spend.
        epochs: Epochs that all trials have finished together.
        seconds: Seconds that it has run.
    """
    if budget.epochs is not None and epochs >= budget.epochs:
        return f"the budget of {budget.epochs} epochs is spent"
    if budget.time is not None and seconds >= budget.time:
        return f"the budget of {budget.time:g} s is spent"
    return None


def outcome_of(sweep: SweepState, metric: str) -> tuple[str, str | None]:
    """Returns how a sweep ended that nothing ended before its time, and why if it failed."""
    if all(trial.status == "failed" for trial in sweep.trials.values()):
        return "failed", "every trial failed"
    if sweep.best is None:
        return "failed", f"no trial reported a finite {metric!r}"
    return "completed", None
