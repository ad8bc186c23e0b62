"""A run of a Trainer: its loop, and its checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xaytune.trainer import random_state
from xaytune.trainer.arguments import require
from xaytune.trainer.callbacks import CallbackManager, Event, TrainState, fire_end
from xaytune.trainer.computed_schedules import only_computes
from xaytune.trainer.context import EvaluationTimes
from xaytune.trainer.evaluation import Evaluator
from xaytune.trainer.folder import CheckpointFolder
from xaytune.trainer.hosting import Evaluation, Host, Loop
from xaytune.trainer.interrupts import interrupt_stops
from xaytune.trainer.metrics import number, plain_metrics
from xaytune.trainer.parts import Parts
from xaytune.trainer.place import Place
from xaytune.trainer.step import Step, Stepped, Stepper

logger = logging.getLogger(__name__)

_STOPPED_LATE = (
    "a handler that is marked with may_be_late told the run to stop at step %d, when it had trained on to step %d "
    "already; do not mark a handler that stops the run"
)


class Run:
    """A run: it trains, evaluates and saves, and fires the events of `xaytune.trainer.callbacks`.

    Args:
        callbacks: Its handlers.
        state: Its state, at the beginning.
        parts: What has a state to save.
        stepper: Takes its steps.
        evaluator: Evaluates it; None evaluates nothing.
        times: When it evaluates.
        folder: Of its checkpoints; None keeps none.

    Attributes:
        callbacks, state, parts, stepper, evaluator: As they were given.
    """

    def __init__(
        self,
        callbacks: CallbackManager,
        state: TrainState,
        parts: Parts,
        stepper: Stepper,
        evaluator: Evaluator | None,
        times: EvaluationTimes,
        folder: CheckpointFolder | None,
    ) -> None:
        self.callbacks, self.state = callbacks, state
        self.parts, self.stepper, self.evaluator = parts, stepper, evaluator
        self._times, self._folder = times, folder
        self._place = Place()
        self._host: Host | None = None
        self._conductor: Callable[[Run], None] | None = None

    def fit(self) -> TrainState:
        """Trains until the run is over, and returns its state. Called again, it goes on where the run was stopped.

        Ctrl-C (where this runs in the main thread) stops the run after its current step, like
        ``state.stop_training()``, and is raised at the end; a second one is raised at once.

        Raises:
            CheckpointError: Every checkpoint that the run could resume from is damaged, or the newest is another
                run's.
            Exception: Whatever the model, the data or a handler raised, after ``error`` and ``train_end``.
        """
        if self._conductor is not None:
            self._conductor(self)
            return self.state
        with interrupt_stops(self.state):
            loop = self.loop()
            answer: Any = None
            with contextlib.suppress(StopIteration):
                request = next(loop)
                while True:
                    try:
                        answer = self.perform(request)
                    except BaseException as error:
                        request = loop.throw(error)
                    else:
                        request = loop.send(answer)
        return self.state

    def loop(self, host: Host | None = None) -> Loop:
        """Runs the loop, which asks for steps and evaluations by yielding them, and is sent what they gave.

        :meth:`fit` drives it with :meth:`perform`. An error in performing is to be thrown into it: it fires
        ``error`` and ``train_end``, and raises it again.

        Args:
            host: What performs them, if that keeps the model elsewhere.
        """
        self._host = host
        try:
            yield from self._loop()
        finally:
            self._host = None
            if host is not None:
                host.leave()

    def _loop(self) -> Loop:
        try:
            self._begin()
            self._fire_again("train_start")
            while not self._over():
                yield from self._train_epoch()
            self._save_last()
            self.parts.data.leave()
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            # Other BaseExceptions unwind a run that goes on elsewhere: a pause is not an end.
            if self._host is not None:
                self._host.fetch()
            fire_end(self.callbacks, self.state, error)
            raise
        self._fire("train_end")

    def perform(self, request: Step | Evaluation) -> list[Stepped] | dict[str, Any]:
        """Does what the loop asks for, of steps one."""
        if isinstance(request, Step):
            return [self.stepper(request)]
        assert self.evaluator is not None
        return self.evaluator()

    def save_checkpoint(self) -> Path:
        """Writes the whole state of the run to `checkpoint_dir`, fires ``checkpoint_saved``, returns the path.

        Saved in a handler of ``step_start`` or ``error``, the state is that before the step: a resumed run
        trains its batches.

        Raises:
            ValueError: The run has no `checkpoint_dir`, or is within a step, elsewhere than in such a handler.
            TypeError: Something in the state, which the message names, could not be read again.
            OSError: The file system refused.
        """
        if self._folder is None:
            raise ValueError("the Trainer has no checkpoint_dir to save a checkpoint in")
        path = self._folder.save(self.state_dict(), self.state.global_step)
        self._place.saved = self._position()
        self._fire("checkpoint_saved")
        return path

    def discard_checkpoint(self, path: Path) -> None:
        """Deletes a checkpoint of this run that a later one replaces, unless another handler saved it too."""
        if self._folder is not None:
            self._folder.discard(path)

    def state_dict(self) -> dict[str, Any]:
        """Returns the whole state of the run, in tensors and plain values.

        Raises:
            ValueError: The run is within a step, elsewhere than in a handler of ``step_start`` or ``error``.
        """
        place = self._place
        if self._host is not None:
            self._host.fetch()
        require(
            not place.ahead,
            "a handler that is marked with may_be_late cannot save a checkpoint: the model is some steps ahead",
        )
        require(
            not place.in_step or place.before_step is not None,
            "a checkpoint cannot be saved in the middle of a step: save it in a handler of step_end or step_start",
        )
        state = dataclasses.asdict(dataclasses.replace(self.state, metrics={}))
        return self.parts.state_dict(place.before_step if place.in_step else None) | {
            "state": state | {"metrics": plain_metrics(self.state.metrics)},
            "epoch_begun": place.epoch_begun,
            "epoch_finished": place.epoch_finished,
            "evaluated_at": place.evaluated_at,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Returns to a state that :meth:`state_dict` gave; `num_epochs` and `max_steps` stay this run's own.

        So do hyperparameters of the optimizer and of `lr_scheduler`, where they are not those that the saved run
        began with.

        Raises:
            ValueError: It lacks the state of something in `keep`.
        """
        self.parts.load_state_dict(saved)
        state, place = self.state, self._place
        for name in ("step", "epoch", "global_step", "metrics"):
            setattr(state, name, saved["state"][name])
        state.metrics.pop("error", None)
        place.epoch_finished, place.evaluated_at = saved["epoch_finished"], saved["evaluated_at"]
        place.epoch_begun = saved.get("epoch_begun", self.state.step > 0)
        place.saved, place.to_restore = self._position(), saved["random"]
        if place.epoch_finished and not self._over():
            self._next_epoch()

    def _begin(self) -> None:
        place = self._place
        place.in_step = False
        self.stepper.begin()
        if place.begun:  # fit was called before: it goes on
            self.state.should_stop = False
            place.to_restore = self.parts.randomness()
            self.state.metrics.pop("error", None)
        elif self._folder is not None and (saved := self._folder.newest()) is not None:
            self.load_state_dict(saved)
        place.begun = True
        if self.state.global_step and self._over() and not self.state.should_stop:
            anew = self._folder.how_to_begin_anew if self._folder is not None else "; make another Trainer"
            logger.warning(
                "the run was finished before, at step %d: nothing is trained%s", self.state.global_step, anew
            )

    def _train_epoch(self) -> Loop:
        state, place, data = self.state, self._place, self.parts.data
        if place.epoch_finished:
            self._next_epoch()
        if place.epoch_begun:
            self._fire_again("epoch_start")
        else:
            self._fire("epoch_start")
        place.epoch_begun, place.to_restore = True, None
        self.stepper.begin_epoch()
        if state.step > 0:
            yield from self._evaluate_after_step()  # a run that was broken off between a step and its evaluation
        exhausted = False
        batches = data.unread_epoch()
        while not self._over() and not exhausted:
            exhausted = not (yield from self._train_step(batches))
        require(
            state.step > 0 or not exhausted,
            "train_loader yielded no batch; it must yield its batches anew each epoch",
        )
        if not state.should_stop:
            yield from self._evaluate_after_epoch(exhausted)
        if exhausted:
            self._let_schedule_look()
            self.parts.schedule.after_epoch(state.metrics)
            data.finish_epoch()
            place.epoch_finished = True
        if self._over():
            self._save_last()
        self._fire("epoch_end")

    def _next_epoch(self) -> None:
        self.state.epoch, self.state.step = self.state.epoch + 1, 0
        self._place.epoch_begun = self._place.epoch_finished = False

    def _train_step(self, batches: Iterator[Any]) -> Generator[Step | Evaluation, Any, bool]:
        """Takes one optimizer step, and evaluates where that is due; False where there is no batch left."""
        state, place, parts = self.state, self._place, self.parts
        suffice = self.callbacks.metrics_suffice
        may_save = not (suffice("step_start") and suffice("error"))
        if self._host is not None and (may_save or parts.data.draws):
            self._host.enter()
        if may_save:
            place.before_step = parts.randomness()
        step = self.stepper.over(batches, parts.data)
        if step is None:
            return False
        if self._host is not None:
            more = 0 if may_save else self._steps_unseen()  # what a handler saves is the state before its own step
            step = step._replace(more=more, following=batches)
        place.in_step = True
        self._fire("step_start")
        taken = yield step
        for at, stepped in enumerate(taken):
            place.ahead = len(taken) - at - 1
            if at > 0:
                place.in_step = True
                self._fire("step_start")
            if isinstance(stepped, BaseException):
                raise stepped
            stops = state.should_stop
            self._end_step(stepped)
            if place.ahead and state.should_stop and not stops:
                logger.warning(_STOPPED_LATE, state.global_step, state.global_step + place.ahead)
        if not state.should_stop:
            yield from self._evaluate_after_step()
        return True

    def _end_step(self, stepped: Stepped) -> None:
        state, place, parts = self.state, self._place, self.parts
        state.metrics["learning_rate"] = _rate(parts.optimizer)
        state.metrics.update(stepped.metrics)
        if not stepped.skipped:
            if parts.schedule.by_step:
                self._let_schedule_look()
            parts.schedule.after_step(state.metrics)
        parts.data.count_trained()
        state.step += 1
        state.global_step += 1
        place.in_step, place.before_step = False, None
        self._fire("step_end")

    def _steps_unseen(self) -> int:
        """How many steps may be taken after the next one before anybody is to look at the run, or changes it."""
        late = self.callbacks.all_may_be_late("step_start") and self.callbacks.all_may_be_late("step_end")
        if not late or self.stepper.window > 1 or self.parts.schedule.by_step:
            return 0
        following = self.state.global_step + 1
        most = self.parts.data.alike_left()
        if self.state.max_steps >= 0:
            most = min(most, self.state.max_steps - following)
        return next((more for more in range(most) if self._times.after_step(following + more)), most)

    def _over(self) -> bool:
        state = self.state
        if state.should_stop or 0 <= state.max_steps <= state.global_step:
            return True
        return self._place.epoch_finished and 0 < state.num_epochs <= state.epoch + 1

    def _evaluate_after_step(self) -> Loop:
        step = self.state.global_step
        if self._times.after_step(step):
            yield from self._evaluate()
        if self._times.asked_after_step(step):
            self._let_schedule_look()
            self.parts.schedule.after_evaluation(self.state.metrics, step)

    def _evaluate_after_epoch(self, exhausted: bool) -> Loop:
        epochs, limit = self.state.epoch + 1, self.state.num_epochs
        last = self._over() or (exhausted and 0 < limit <= epochs)
        if last or self._times.after_epoch(epochs):
            yield from self._evaluate()
        if exhausted and self._times.asked_after_epoch():
            self._let_schedule_look()
            self.parts.schedule.after_evaluation(self.state.metrics, self.state.global_step)

    def _evaluate(self) -> Loop:
        if self.evaluator is None or self._place.evaluated_at == self.state.global_step:
            return
        self._fire("eval_start")
        self.state.metrics.update((yield Evaluation()))
        self._place.evaluated_at = self.state.global_step
        self._fire("eval_end")

    def _let_schedule_look(self) -> None:
        """Brings the run up to date for a schedule that may look at it, or draw random numbers."""
        if self._host is not None and not only_computes(self.parts.schedule.scheduler):
            self._host.fetch()

    def _save_last(self) -> None:
        if self._folder is not None and self._place.saved != self._position():
            self.save_checkpoint()

    def _position(self) -> tuple[int, int, bool]:
        return self.state.global_step, self._place.evaluated_at, self._place.epoch_finished

    def _fire(self, event: Event) -> None:
        if self._host is not None and not self.callbacks.metrics_suffice(event):
            self._host.fetch()
        self.callbacks.fire(event, self.state)

    def _fire_again(self, event: Event) -> None:
        """Fires an event that a run which goes on has had before: what is drawn for it now was drawn then."""
        self._fire(event)
        if self._place.to_restore is not None and not self.callbacks.metrics_suffice(event):
            random_state.restore(self._place.to_restore, self.parts.data.generators)


def _rate(optimizer: torch.optim.Optimizer) -> Any:
    rate = optimizer.param_groups[0]["lr"]
    if type(rate) is float:
        return rate
    return rate.detach().clone() if isinstance(rate, Tensor) else number(rate)
