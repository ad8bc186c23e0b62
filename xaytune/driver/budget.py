"""The budget of a sweep."""

from __future__ import annotations

from xaytune.sweep.spec import BudgetSpec

__all__ = ["spent"]


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
