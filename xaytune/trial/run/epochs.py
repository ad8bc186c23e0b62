"""Counting the epochs that a run has finished, by the events of its loop, whoever wrote it."""

from __future__ import annotations

from xaytune.trainer.callbacks import TrainState


class Epochs:
    """Epochs that a run has finished. What cannot be counted rightly is refused where it is noticed.

    Args:
        judged_epochs: Epochs that the trial had finished when an earlier attempt was judged last.
        judged_step: The step at which it was.

    Attributes:
        finished: How many.
    """

    def __init__(self, judged_epochs: int, judged_step: int) -> None:
        self.finished = 0
        self._judged = judged_epochs, judged_step
        self._began_at = 0  # the step at which the running epoch began, or was resumed
        self._whole = True  # whether it was not resumed
        self._length: int | None = None  # steps of a whole epoch

    def resume(self, state: TrainState) -> None:
        """Takes what ``train_start`` says was finished before."""
        self.finished = state.epoch
        self._began_at, self._whole = state.global_step, state.global_step == 0

    def begin(self, state: TrainState, before: int, *, by_step: bool) -> bool:
        """Takes in the first step of an attempt, or its first epoch where that has none.

        The index of its epoch is how many were finished before, whatever the loop said when it resumed.

        Args:
            state: The run.
            before: Steps that were trained before the attempt.
            by_step: Whether it is a step that has ended.

        Returns:
            Whether more epochs were finished before than was known.

        Raises:
            ValueError: The index cannot be right.
        """
        judged_epochs, judged_step = self._judged
        if by_step and state.epoch > 0 and state.global_step == 1:
            raise ValueError(
                f"the first step of all has state.epoch {state.epoch}: it is the index of the epoch, from 0"
            )
        if state.epoch < judged_epochs and state.global_step > judged_step:
            raise ValueError(
                f"it resumes after step {judged_step}, where {judged_epochs} epochs were finished, with "
                f"state.epoch {state.epoch}: restore the index of the epoch with the checkpoint"
            )
        self._began_at, self._whole = before, before == 0
        known, self.finished = self.finished, max(self.finished, state.epoch)
        return self.finished > known

    def are_without_step(self, state: TrainState) -> bool:
        """Whether the loop has counted no step since its last epoch ended."""
        return state.global_step == self._began_at and (self._whole or state.step == 0)

    def end(self, state: TrainState, *, cut: bool, cut_by_evaluation: bool) -> None:
        """Takes in that an epoch has ended.

        Args:
            state: The run.
            cut: Whether the run was told to stop when its last step had ended: the epoch is not finished.
            cut_by_evaluation: Whether it was told so by an evaluation after it: the epoch is finished then if it
                has as many steps as the one before.

        Raises:
            ValueError: It ended before: the loop does not set ``state.epoch``.
        """
        if state.epoch < self.finished:
            raise ValueError(
                f"epoch_end was fired with state.epoch {state.epoch}, and that epoch had ended before: set "
                "state.epoch to the index of each epoch, from 0, where it begins"
            )
        length = state.global_step - self._began_at if self._whole else None
        if not cut and (not cut_by_evaluation or length == self._length is not None):
            self.finished, self._length = state.epoch + 1, length or self._length
        self._began_at, self._whole = state.global_step, True
