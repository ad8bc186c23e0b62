"""Hugging Face: a callback makes a run of ``transformers.Trainer`` (or TRL's) the run of a trial.

Two lines of a program change::

    trainer = Trainer(model, args, callbacks=[XaytuneCallback(trial)], ...)
    trainer.train(resume_from_checkpoint=trial.latest_checkpoint)
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy

from xaytune.trainer import native
from xaytune.trainer.cadence import Cadence
from xaytune.trainer.callbacks import Event, TrainState
from xaytune.trainer.context import RunContext

__all__ = ["XaytuneCallback"]


class XaytuneCallback(TrainerCallback):
    """Fires the trial's events, stops the Trainer where the trial is to stop, and keeps its checkpoints.

    Metrics are those that the Trainer logs, and what it evaluates. Where the trial is judged it evaluates, if
    ``eval_strategy`` is not ``"no"``, and saves, unless the trial is never paused. Checkpoints are the Trainer's
    own folders; in a trial they are written to a folder of the trial's, whatever ``output_dir`` says. Pass
    ``trial.latest_checkpoint`` as ``resume_from_checkpoint``.

    Args:
        trial: The trial.
        save_every_s: Seconds between two checkpoints that nothing but the time asks for, at least.
    """

    def __init__(self, trial: RunContext, *, save_every_s: float = 10.0) -> None:
        self._trial = trial
        self._state = TrainState()
        self._cadence = Cadence(save_every_s, trial.discard)
        self._steps_per_epoch = 0
        # The Trainer logs, evaluates and saves after its hooks: events wait for what they are to hold.
        self._waiting: list[Event] = []
        self._evaluating = False
        self._evaluated_at = -1
        self._wanted: bool | None = None  # whether the next checkpoint was asked for, or is only due
        self._users = False  # whether the next checkpoint is the user's too
        self._saved: Path | None = None  # of this step
        self._told = False  # whether `checkpoint_saved` was fired for it

    def on_init_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Gives the trial a folder of its own."""
        if self._trial.checkpoint_dir is not None:
            args.output_dir = str(self._trial.checkpoint_dir / "transformers")

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins the run.

        Raises:
            ValueError: Its checkpoints could not be resumed from.
        """
        if args.save_only_model:
            raise ValueError("a trial cannot resume from what save_only_model=True saves: leave it out")
        if self._trial.checkpoint_dir is not None:
            self._trial.attach(self._take_saved)
        run, loader = self._state, kwargs["train_dataloader"]
        self._steps_per_epoch = _steps_per_epoch(args, state, loader)
        # The Trainer counts the steps of a run by epochs too, whose last epoch is no broken off one.
        run.num_epochs, run.max_steps = state.num_train_epochs, args.max_steps
        run.global_step = state.global_step
        run.epoch, run.step = divmod(state.global_step, self._steps_per_epoch)
        if run.epoch >= run.num_epochs:
            run.epoch, run.step = run.num_epochs - 1, self._steps_per_epoch
        for logged in state.log_history:
            run.metrics.update(_metrics(logged))
        self._fire("train_start", control)
        if run.should_stop:
            _empty(args, loader)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins an epoch."""
        self._settle(control)
        if not self._state.should_stop:
            self._state.epoch, self._state.step = divmod(state.global_step, self._steps_per_epoch)
        self._fire("epoch_start", control)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins an optimizer step."""
        self._fire("step_start", control)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Counts an optimizer step; it is told with what the Trainer logs of it."""
        run = self._state
        run.step, run.global_step = run.step + 1, state.global_step
        self._saved = None
        judged = self._trial.decision_due(global_step=state.global_step)
        # At an epoch's last step it is saved after the evaluation: resumed, the next epoch begins at once.
        if judged or run.step < self._steps_per_epoch:
            self._prepare(args, state, control, judged=judged)
        self._waiting.append("step_end")
        if not control.should_log:
            self._settle(control)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **_: Any
    ) -> None:
        """Takes what was logged of a step."""
        if self._waiting == ["step_end"]:
            self._state.metrics.update(_metrics(logs or {}))
            self._settle(control)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins an evaluation with its first batch."""
        if not self._evaluating and self._steps_per_epoch:
            self._evaluating = True
            self._fire("eval_start", control)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **_: Any
    ) -> None:
        """Takes what was measured; the trial is judged by it, after it is saved where it may be paused."""
        if not self._evaluating:
            return
        self._evaluating, self._evaluated_at = False, state.global_step
        self._state.metrics.update(_metrics(metrics or {}))
        self._waiting.insert(0, "eval_end")
        if not control.should_save:
            self._settle(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Adds what was saved to the trial's checkpoints, if it is the trial's."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None and self._trial.checkpoint_dir is not None:
            source = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            with self._cadence.saving():
                self._saved = native.add_folder(source, self._trial.checkpoint_dir, state.global_step)
            self._cadence.wrote(self._saved, asked=wanted)
            self._told = False
            if not self._users and state.best_model_checkpoint != str(source):
                shutil.rmtree(source)
        self._settle(control)
        if self._saved is not None and not self._told:
            self._take_saved()

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ends an epoch; it counts once the Trainer has evaluated and saved, which comes after this."""
        if self._state.should_stop:
            control.should_evaluate = False
            self._fire("epoch_end", control)
            return
        judged = self._trial.decision_due(epoch=self._state.epoch + 1)
        self._prepare(args, state, control, judged=judged)
        if self._evaluated_at == state.global_step:
            control.should_evaluate = False
        self._waiting.append("epoch_end")
        if not control.should_evaluate and not control.should_save:
            self._settle(control)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Ends the run."""
        self._settle(control)
        self._fire("train_end", control)
        self._steps_per_epoch = 0

    def _prepare(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, *, judged: bool
    ) -> None:
        """Has the Trainer evaluate and save what it will do after this hook anyway, or the trial needs."""
        over = 0 < state.max_steps <= state.global_step
        if judged and args.eval_strategy != IntervalStrategy.NO:
            control.should_evaluate = True
        self._want_saved(control, asked=over or (judged and getattr(self._trial, "pausing", True)))

    def _want_saved(self, control: TrainerControl, *, asked: bool) -> None:
        if self._trial.checkpoint_dir is None or self._saved is not None:
            return
        if asked or self._cadence.due():
            self._users = bool(control.should_save) and self._wanted is None
            self._wanted = asked or bool(self._wanted)
            control.should_save = True

    def _take_saved(self) -> Path:
        """Tells of the checkpoint of this step, which the Trainer has written before the trial is judged."""
        if self._saved is None:
            raise RuntimeError(
                "the Trainer saves after its callbacks: a checkpoint cannot be had at this moment, only where the "
                "trial is judged"
            )
        self._told = True
        self._trial.callbacks.fire("checkpoint_saved", self._state)
        return self._saved

    def _settle(self, control: TrainerControl) -> None:
        """Fires the events that have waited."""
        while self._waiting:
            self._fire(self._waiting.pop(0), control)

    def _fire(self, event: Event, control: TrainerControl) -> None:
        stopped = self._state.should_stop
        self._trial.callbacks.fire(event, self._state)
        if not self._state.should_stop:
            return
        control.should_training_stop = True
        if not stopped and event not in ("train_start", "train_end"):
            control.should_evaluate = False
            self._want_saved(control, asked=True)


def _metrics(logged: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the metrics of what the Trainer logs, but for its counts."""
    return {
        name: value
        for name, value in logged.items()
        if isinstance(value, (int, float)) and name not in ("epoch", "step", "total_flos")
    }


def _steps_per_epoch(args: TrainingArguments, state: TrainerState, loader: Any) -> int:
    """Returns the optimizer steps of an epoch, as the Trainer counts them."""
    try:
        batches = len(loader)
    except TypeError:  # a stream: the Trainer takes all of it for one epoch
        return int(state.max_steps)
    return max(math.ceil(batches / args.gradient_accumulation_steps), 1)


def _empty(args: TrainingArguments, loader: Any) -> None:
    """Leaves a run nothing to train: the Trainer looks whether it is to stop only after a step."""
    loader.base_dataloader = DataLoader[Any]([])  # type: ignore[arg-type]
    args.ignore_data_skip = True
