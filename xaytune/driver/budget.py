"""The budget of a sweep."""

from __future__ import annotations

from xaytune.records.clock import Clock
from xaytune.sweep.spec import BudgetSpec

__all__ = ["Budget"]


class Budget:
    """Tells when a sweep has spent what it may.

    Args:
        budget: What it may spend.
        clock: Tells the time.
        spent_s: Seconds that it ran before it was resumed.
    """

    def __init__(self, budget: BudgetSpec, clock: Clock, spent_s: float) -> None:
        self._budget, self._clock = budget, clock
        self._began = clock.monotonic() - spent_s

    def spent(self, epochs: int) -> str | None:
        """Words which budget is spent; None while none is.

        Args:
            epochs: Epochs that all trials have finished together.
        """
        budget = self._budget
        if budget.epochs is not None and epochs >= budget.epochs:
            return f"the budget of {budget.epochs} epochs is spent"
        if budget.time is not None and self._clock.monotonic() - self._began >= budget.time:
            return f"the budget of {budget.time:g} s is spent"
        return None
