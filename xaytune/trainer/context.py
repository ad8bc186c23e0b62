"""What the Trainer asks of the trial that it runs for, and when it evaluates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Protocol

from xaytune.trainer.callbacks import CallbackManager

EvalEvery = Literal["epoch"] | int


class RunContext(Protocol):
    """What the Trainer asks of the trial that it runs for."""

    @property
    def callbacks(self) -> CallbackManager:
        """The handlers of this run."""

    @property
    def checkpoint_dir(self) -> Path | None:
        """Where this run's checkpoints are kept, and found again when it is resumed; None keeps none."""

    @property
    def metric(self) -> str | None:
        """The metric of the sweep, for ReduceLROnPlateau; None outside of one."""

    @property
    def mode(self) -> str | None:
        """Whether a ``"max"`` or a ``"min"`` of it is better; None outside of a sweep."""

    @property
    def taken_over_at(self) -> int | None:
        """The step of another trial's checkpoint that it went on from; None if it never did."""

    @property
    def may_pause(self) -> bool | None:
        """Whether it may be paused where it is judged; None if it does not say: then it is saved there."""

    @property
    def conductor(self) -> Callable[[Any], None] | None:
        """Trains a Trainer beside others, in place of its own `fit`."""

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
