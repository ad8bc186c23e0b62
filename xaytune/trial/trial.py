"""The trial, as a recipe sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from xaytune.trainer.callbacks import CallbackManager
from xaytune.trial.messages import DecisionPoints
from xaytune.trial.reporter import Reporter

__all__ = ["Trial"]


class Trial:
    """A trial of a sweep: what a recipe gets beside its configuration.

    Attributes:
        number: The trial's number in its sweep, from 0.
        config: Its configuration.
        seed: Its own seed, derived from the sweep's; python, numpy and torch are seeded with it already.
        callbacks: Its own handlers. A loop that fires its events here is reported, judged and stopped.
        checkpoint_dir: Where its checkpoints belong. A loop of one's own writes them with
            :func:`xaytune.trainer.checkpoint.save`, fires ``checkpoint_saved``, and resumes from the newest
            that it finds here when it starts.
    """

    def __init__(
        self,
        number: int,
        config: dict[str, Any],
        seed: int,
        callbacks: CallbackManager,
        checkpoint_dir: Path,
        points: DecisionPoints,
        reporter: Reporter,
    ) -> None:
        self.number = number
        self.config = config
        self.seed = seed
        self.callbacks = callbacks
        self.checkpoint_dir = checkpoint_dir
        self._reporter = reporter
        self._points = points

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        """Takes the means to save the run: schedulers that pause trials have it saved where they judge it."""
        self._reporter.save_checkpoint = save_checkpoint

    def discard(self, checkpoint: Path) -> None:
        """Lets a checkpoint be deleted as soon as a later one is recorded."""
        self._reporter.discard(checkpoint)

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        """Tells whether the scheduler judges the trial when so many epochs, or steps, are finished.

        A loop that evaluates there is judged by what it is worth at that very moment.
        """
        time = epoch if self._points.time_attr == "epoch" else global_step
        return time is not None and self._points.after(time - 1) == time
