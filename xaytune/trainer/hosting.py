"""What a run asks of whoever drives its loop, and what it tells a host that trains it beside others."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, NamedTuple, Protocol

from xaytune.trainer.step import Step


class Evaluation(NamedTuple):
    """An evaluation that a run asks for; it is sent the metrics."""


# A run that asks for a step is sent a list of what was given by it, and by those of the `more` after it that were
# taken. An error may be the last: of a step that failed after others.
Loop = Generator[Step | Evaluation, Any, None]


class Host(Protocol):
    """What trains a run side by side with others, and meanwhile has its model and its random states."""

    def enter(self) -> None:
        """Makes the global random states those of the run."""

    def fetch(self) -> None:
        """Brings its model and its optimizer up to date too: what is changed in them now counts."""

    def leave(self) -> None:
        """The run has ended: all of it is its own again."""
