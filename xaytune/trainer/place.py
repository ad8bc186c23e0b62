"""Where a run is, beyond what its TrainState tells."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Place:
    """Where a run is.

    Attributes:
        epoch_begun: Whether ``epoch_start`` was fired for the current epoch.
        epoch_finished: Whether that was trained to its end.
        evaluated_at: The global step of the newest evaluation; -1 before the first.
        saved: The position of the newest checkpoint.
        in_step: Whether a step was started and is not done: its batches are not trained.
        before_step: The random states when the step was begun, where a handler might save within it.
        begun: Whether `fit` was called before.
        to_restore: The random states of a run that goes on, until it is where it was: events that it has had
            before are fired again, and their handlers may draw.
        ahead: How many steps the model is ahead of what handlers are told of.
    """

    epoch_begun: bool = False
    epoch_finished: bool = False
    evaluated_at: int = -1
    saved: tuple[int, int, bool] | None = None
    in_step: bool = False
    before_step: dict[str, Any] | None = None
    begun: bool = False
    to_restore: dict[str, Any] | None = None
    ahead: int = 0
