"""Hugging Face: a callback makes a run of ``transformers.Trainer`` (or TRL's) the run of a trial.

Two lines of a program change::

    trainer = Trainer(model, args, callbacks=[XaytuneCallback(trial)], ...)
    trainer.train(resume_from_checkpoint=trial.latest_checkpoint)
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.optim.lr_scheduler import LambdaLR
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, IntervalStrategy, SaveStrategy

from xaytune.integrations.transformers_run import (
    ARGUMENTS,
    empty,
    follow_arguments,
    follow_functions,
    leave_out_next_step,
    steps_per_epoch,
)
from xaytune.trainer import checkpoint, checkpoint_files, random_state
from xaytune.trainer.cadence import Cadence
from xaytune.trainer.callbacks import Event, TrainState
from xaytune.trainer.context import RunContext
from xaytune.trainer.made_with import MadeWith, unwrapped
from xaytune.trainer.metrics import plain_metrics

__all__ = ["XaytuneCallback"]

# What a checkpoint holds beside what the Trainer saves.
_STATE = "xaytune.pt"


class XaytuneCallback(TrainerCallback):
    """Fires the trial's events, stops the Trainer where the trial is to stop, and keeps its checkpoints.

    Metrics are those that the Trainer logs, and what it evaluates. Where the trial is judged it evaluates, if
    ``eval_strategy`` is not ``"no"``, and saves, unless the trial is never paused. Checkpoints are the Trainer's
    own folders; in a trial they are written to a folder of the trial's, whatever ``output_dir`` says. Pass
    ``trial.latest_checkpoint`` as ``resume_from_checkpoint``. Other callbacks come before this one: it saves a run
    that one of them stops.

    Args:
        trial: The trial.
        save_every_s: Seconds between two checkpoints that nothing but the time asks for, at least.
    """

    def __init__(self, trial: RunContext, *, save_every_s: float = 10.0) -> None:
        self._trial = trial
        self._state = TrainState()
        self._cadence = Cadence(save_every_s, trial.discard)
        self._steps_per_epoch = 0
        self._streams = False  # whether an epoch ends where the data does, which nobody knows before
        self._made_with = MadeWith()
        self._arguments: dict[str, float] = {}
        self._epoch_random: dict[str, Any] | None = None  # when the epoch began
        self._resumed: dict[str, Any] | None = None  # until its epoch is where it was
        # The Trainer logs, evaluates and saves after its hooks: events wait for what they are to hold.
        self._waiting: list[Event] = []
        self._in_evaluation = False
        self._trainer_evaluates = False  # whether the Trainer is about to evaluate
        self._beside: dict[str, Any] | None = None  # the random states before one that only the trial needs
        self._evaluated_at = -1
        # An evaluation may be of several data sets, which are told by the names of their metrics.
        self._latest_data_set: frozenset[str] | None = None
        self._last_data_set: frozenset[str] | None = None
        self._wanted: bool | None = None  # whether the next checkpoint was asked for, or is only due
        self._users = False  # whether the next checkpoint is the user's too
        self._saved: Path | None = None  # of this step
        self._told = False  # whether `checkpoint_saved` was fired for it

    def on_init_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Gives the trial a folder of its own; an optimizer that is there already is the user's."""
        for name in ("optimizer", "lr_scheduler"):
            self._made_with.add(name, kwargs.get(name))
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
        if args.save_strategy == SaveStrategy.BEST and self._trial.may_pause:
            raise ValueError(
                'save_strategy="best" saves at no other time, and this scheduler may pause a trial wherever it is '
                'judged: write save_strategy="epoch", or "no"'
            )
        if self._trial.checkpoint_dir is not None:
            self._trial.attach(self._take_saved)
        run, loader = self._state, kwargs["train_dataloader"]
        self._steps_per_epoch, self._streams = steps_per_epoch(args, state, loader)
        self._arguments = {name: float(getattr(args, name)) for name in ARGUMENTS}
        # The Trainer counts the steps of a run by epochs too, whose last epoch is no broken off one.
        run.num_epochs, run.max_steps = state.num_train_epochs, args.max_steps
        run.global_step = state.global_step
        run.epoch, run.step = divmod(state.global_step, self._steps_per_epoch)
        if run.epoch >= run.num_epochs:
            run.epoch, run.step = run.num_epochs - 1, self._steps_per_epoch
        if state.global_step == self._trial.taken_over_at:
            state.best_metric = state.best_global_step = state.best_model_checkpoint = None  # of another trial
        for logged in state.log_history:
            run.metrics.update(_metrics(logged))
        if state.global_step > 0:
            self._resume(args, **kwargs)
        self._fire("train_start", control)
        if run.should_stop:
            empty(args, loader)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begins an epoch: its batches are drawn now."""
        run, resumed, loader = self._state, self._resumed, kwargs["train_dataloader"]
        self._settle(control)
        if run.should_stop and run.step == 0:  # before it begins: it has no batches
            return
        if resumed is not None:
            random_state.restore(resumed["epoch_random"])
            self._resumed = resumed if "random" in resumed else None
        elif self._streams:
            loader.skip_batches = 0
            run.epoch, run.step = run.epoch + (self._epoch_random is not None), 0
        elif not run.should_stop:
            run.epoch, run.step = divmod(state.global_step, self._steps_per_epoch)
        self._epoch_random = random_state.capture()
        self._fire("epoch_start", control)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Begins an optimizer step."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None and "random" in resumed:  # else the Trainer has restored them
            random_state.restore(resumed["random"])
        self._settle(control)
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
        self._expect(control)
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
        if not self._in_evaluation and self._steps_per_epoch:
            self._in_evaluation = True
            self._fire("eval_start", control)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Any = None,
        **kwargs: Any,
    ) -> None:
        """Takes what was measured; the trial is judged by it, after it is saved where it may be paused."""
        if not self._in_evaluation:
            return
        measured = _metrics(metrics or {})
        self._state.metrics.update(measured)
        # Each data set has a prefix, and its time: other metrics may be there now and then only.
        names = frozenset(name for name in measured if name.endswith("_runtime"))
        if not self._trainer_evaluates:  # a callback of the user's has asked for it
            self._in_evaluation = False
            if self._latest_data_set is not None:  # unless that one was taken for the Trainer's, and this is it
                self._latest_data_set = names
            self._fire("eval_end", control)
            return
        if self._beside is not None:  # else the rungs would change the training
            random_state.restore(self._beside)
            leave_out_next_step(kwargs["lr_scheduler"])
        if control.should_training_stop:  # as another callback has decided, by these metrics
            self._want_saved(control, asked=True)
        self._latest_data_set = names
        saves = self._trial.checkpoint_dir is not None and args.save_strategy != SaveStrategy.BEST
        if saves and self._last_data_set is None and not control.should_save:
            self._want_saved(control, asked=False, always=True)  # the Trainer saves after the last data set
        if not (saves and control.should_save) and self._last_data_set in (None, self._latest_data_set):
            self._end_evaluation(state)
            self._settle(control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """Adds what was saved to the trial's checkpoints, if it is the trial's."""
        if self._trainer_evaluates and self._in_evaluation:
            self._last_data_set = self._last_data_set or self._latest_data_set
            self._end_evaluation(state)
        asked, users, self._wanted = bool(self._wanted), self._users or self._wanted is None, None
        self._users = False
        if self._trial.checkpoint_dir is not None:
            source = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            with self._cadence.saving():
                checkpoint.save(self._state_dict(), source / _STATE)
                self._saved = checkpoint_files.add_folder(source, self._trial.checkpoint_dir, state.global_step)
                (source / _STATE).unlink()
            self._cadence.wrote(self._saved, asked=asked)
            self._told = False
            if not users and state.best_model_checkpoint != str(source):
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
            if self._state.step:  # else the epoch was not begun
                self._fire("epoch_end", control)
            return
        judged = self._trial.decision_due(epoch=self._state.epoch + 1)
        self._prepare(args, state, control, judged=judged)
        if self._evaluated_at == state.global_step:
            control.should_evaluate = False
        self._expect(control)
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
        over = 0 < state.max_steps <= state.global_step or control.should_training_stop
        self._beside = None
        if judged and args.eval_strategy != IntervalStrategy.NO:
            ends_epoch = self._state.step == self._steps_per_epoch  # then it is the Trainer's own, made earlier
            if not (control.should_evaluate or (ends_epoch and args.eval_strategy == IntervalStrategy.EPOCH)):
                self._beside = random_state.capture()
            control.should_evaluate = True
        self._want_saved(control, asked=over or (judged and self._trial.may_pause is not False))

    def _expect(self, control: TrainerControl) -> None:
        """Notes whether the Trainer evaluates now."""
        self._last_data_set = self._last_data_set or self._latest_data_set
        self._latest_data_set = None
        self._trainer_evaluates = bool(control.should_evaluate)

    def _end_evaluation(self, state: TrainerState) -> None:
        """All data sets are evaluated."""
        self._in_evaluation = self._trainer_evaluates = False
        self._evaluated_at = state.global_step
        self._waiting.insert(0, "eval_end")

    def _resume(self, args: TrainingArguments, **kwargs: Any) -> None:
        """Goes on where a checkpoint was written, with the arguments of this run."""
        folder = self._trial.checkpoint_dir
        latest = checkpoint_files.newest_whole(folder) if folder is not None else None
        if latest is None or not (latest / _STATE).is_file():
            return
        saved = checkpoint.load(latest / _STATE)
        optimizer, scheduler, run = kwargs["optimizer"], unwrapped(kwargs["lr_scheduler"]), self._state
        run.metrics.update(saved.get("metrics", {}))
        self._made_with.follow(saved["made_with"])
        rates = self._made_with.rates("optimizer")
        if rates is None:
            follow_arguments(optimizer, self._arguments, saved["arguments"])
            rates = [group.get("initial_lr", group["lr"]) for group in optimizer.param_groups]
        if isinstance(scheduler, LambdaLR) and "lr_scheduler" not in self._made_with:
            follow_functions(scheduler, rates)
        loader = kwargs["train_dataloader"]
        if not self._streams or not hasattr(loader, "base_dataloader"):
            self._resumed = {"epoch_random": saved["epoch_random" if run.step > 0 else "random"]}
            return
        self._resumed = saved
        run.epoch, run.step = saved["epoch"], saved["step"]
        trained = run.step * args.gradient_accumulation_steps
        if next(itertools.islice(loader.base_dataloader, trained, None), None) is None:  # it was the last one
            del saved["random"]
        else:
            args.ignore_data_skip = True  # the Trainer would skip the batches of all passes
            loader.skip_batches = trained

    def _state_dict(self) -> dict[str, Any]:
        return {
            "arguments": self._arguments,
            "made_with": self._made_with.state_dict(),
            "epoch": self._state.epoch,
            "step": self._state.step,
            "metrics": plain_metrics(self._state.metrics),
            "epoch_random": self._epoch_random,
            "random": random_state.capture(),
        }

    def _want_saved(self, control: TrainerControl, *, asked: bool, always: bool = False) -> None:
        if self._trial.checkpoint_dir is None or (self._saved is not None and not always):
            return
        if asked or always or self._cadence.due():
            self._users |= bool(control.should_save) and self._wanted is None
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
