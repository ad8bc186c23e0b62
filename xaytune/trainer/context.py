"""What the Trainer asks of the trial that it runs for, and when it evaluates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, Protocol

from xaytune.trainer.callbacks import CallbackManager

__all__ = ["EvalEvery", "EvaluationTimes", "RunContext"]

EvalEvery = Literal["epoch"] | int


class RunContext(Protocol):
    """What the Trainer asks of the trial that it runs for.

    It may have five attributes more: ``metric`` and ``mode`` of the sweep, for ReduceLROnPlateau;
    ``taken_over_at``, the step of another's checkpoint that it went on from; ``may_pause``, whether it may be
    paused where it is judged; and ``conductor``, which trains a Trainer beside others, in place of its own `fit`.
    """

    @property
    def callbacks(self) -> CallbackManager:
        """The handlers of this run."""

    @property
    def checkpoint_dir(self) -> Path | None:
        """Where this run's checkpoints are kept, and found again when it is resumed; None keeps none."""

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        """Takes the means to save the run, where a decision asks for it."""

    def discard(self, checkpoint: Path) -> None:
        """Deletes a checkpoint that the run needs no longer, as soon as a later one is known to be safe."""

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        """Tells whether the run is judged when so many epochs, or optimizer steps, are finished."""


class EvaluationTimes:
    """When a run evaluates: where its user asks for it, and where its trial is judged.

    Args:
        every: ``"epoch"``, or a number of optimizer steps.
        trial: The trial of the run.
    """

    def __init__(self, every: EvalEvery, trial: RunContext | None) -> None:
        self._every, self._trial = every, trial

    def asked_after_step(self, global_step: int) -> bool:
        """Tells whether the user asks for an evaluation after so many steps."""
        return self._every != "epoch" and global_step % self._every == 0

    def after_step(self, global_step: int) -> bool:
        """Tells whether there is an evaluation after so many steps."""
        judged = self._trial is not None and self._trial.decision_due(global_step=global_step)
        return judged or self.asked_after_step(global_step)

    def asked_after_epoch(self) -> bool:
        """Tells whether the user asks for an evaluation after each epoch."""
        return self._every == "epoch"

    def after_epoch(self, epochs: int) -> bool:
        """Tells whether there is an evaluation after so many epochs."""
        return self._every == "epoch" or (self._trial is not None and self._trial.decision_due(epoch=epochs))
