"""The trial, as a recipe sees it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from xaytune.messages import Assignment, Task
from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trainer.own import OwnLoop
from xaytune.trial.run.reporter import Reporter


class Trial(OwnLoop):
    """A trial of a sweep: what a recipe gets beside its configuration.

    A loop of one's own uses what it inherits: ``trial.keep``, ``trial.epochs``, ``trial.steps``, ``trial.log``,
    ``trial.report`` and the others of :class:`~xaytune.trainer.own.OwnLoop`.

    Attributes:
        number: The trial's number in its sweep, from 0.
        config: Its configuration.
        seed: Its own seed, derived from the sweep's; python, numpy and torch are seeded with it already.
        mode: Whether a ``"max"`` or a ``"min"`` of the sweep's metric is better.
        callbacks: Its own handlers. A loop that fires its events here is reported, judged and stopped.
        checkpoint_dir: Where its checkpoints belong.
        shared: What the sweep's ``setup`` returned: one object, which all trials of a node share without a copy
            until they write to it. None where there is no setup.
        taken_over_at: The step of another trial's checkpoint that it went on from; None if it never did.
        conductor: Trains Trainers of this trial beside those of others; None where they train by themselves.
    """

    checkpoint_dir: Path

    def __init__(
        self,
        task: Task,
        assignment: Assignment,
        callbacks: CallbackManager,
        checkpoint_dir: Path,
        reporter: Reporter,
        shared: Any = None,
    ) -> None:
        super().__init__(callbacks, checkpoint_dir, metric=task.objective.metric, shared=shared)
        self.number = assignment.trial
        self.config = assignment.config
        self.seed = assignment.seed
        self.mode = task.objective.mode
        self.taken_over_at = assignment.taken_over_at
        self._reporter = reporter

    def __reduce__(self) -> NoReturn:
        """Refuses to be sent to another process, such as one that is spawned, or copied."""
        raise TypeError(
            "a trial can be neither pickled nor copied, for it belongs to the process of its recipe (got trial "
            f"{self.number}): give other processes what they need of it, such as trial.config, and hand what they "
            "measure to that process, through a queue"
        )

    @property
    def may_pause(self) -> bool:
        """Whether the scheduler may pause the trial where it judges it: it is saved there."""
        return self._reporter.points.pausing

    @property
    def is_pausing(self) -> bool:
        """Whether the run stops only to be resumed."""
        return self._reporter.stopping.pauses

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        """Takes the means to save the run: schedulers that pause trials have it saved where they judge it."""
        self.check_process()
        self._reporter.save_checkpoint = save_checkpoint

    def check_process(self) -> None:
        """Checks that this is the process of the recipe: a fork of it does not speak for the trial."""
        self._reporter.check_process()

    def discard(self, checkpoint: Path) -> None:
        """Lets a checkpoint be deleted as soon as a later one is recorded."""
        self._reporter.unreported.discard(checkpoint)

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        """Tells whether the scheduler judges the trial when so many epochs, or steps, are finished.

        A loop that evaluates there is judged by what it is worth at that very moment.
        """
        time = global_step if self._reporter.points.axis.by_step else epoch
        return time is not None and self._reporter.points.after(time - 1) == time

    def trains_on(self, state: TrainState) -> None:
        """Has the trial judged where the loop before ended, if that seemed to be the end of the run."""
        self._reporter.train_on(state)
