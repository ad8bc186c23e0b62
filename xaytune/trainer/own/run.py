"""The run behind a loop of one's own: fires its events, counts, and saves it at its place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from xaytune.trainer import random_state
from xaytune.trainer.callbacks import CallbackManager, Event, Pause, TrainState, fire_end
from xaytune.trainer.data import check_not_begun, with_workers_of_each_epoch
from xaytune.trainer.metrics import measured, plain_metrics
from xaytune.trainer.own.optimizers import OptimizerWatch
from xaytune.trainer.own.place import EpochLoop, OwnPlace, StepLoop
from xaytune.trainer.own.saves import Saves
from xaytune.trainer.plain import check_dicts

logger = logging.getLogger(__name__)


class OwnRun:
    """One run, from ``train_start`` to ``train_end``.

    A body's events are fired where it ends, or where the user's next call comes: then a checkpoint that a handler
    saves holds all that the body did.

    Args:
        callbacks: Its handlers.
        saves: Its checkpoints.
        trains_on: Is told that another loop begins, before its first body.
        is_judged_before_step: Whether the run is judged where its next step is to be trained, if it reports there.

    Attributes:
        state: What handlers are given.
        place: Where it is.
        begun: Whether its first loop has begun.
        optimizers: A watch on the steps of the optimizers that are kept.
    """

    def __init__(
        self,
        callbacks: CallbackManager,
        saves: Saves,
        trains_on: Callable[[TrainState], object],
        is_judged_before_step: Callable[[], bool],
    ) -> None:
        self.state = TrainState()
        self.place = OwnPlace()
        self.saves = saves
        self._callbacks, self._trains_on = callbacks, trains_on
        self._is_judged_before_step = is_judged_before_step
        self._memory: dict[str, Any] | None = None
        self._reported: dict[str, Any] = {}  # metrics whose eval_start and eval_end are not fired yet
        self.evaluating: frozenset[str] = frozenset()  # what was reported, while its eval_end is fired
        self._step_counted = False  # whether a step was counted whose step_end is not fired yet
        self.begun = self._ended = False
        self._saved_at: tuple[Any, ...] | None = None
        self._told_of_training_on = self._told_of_reporting_again = False
        # By the user's loaders, those that stand in for them: with workers that are started anew each epoch.
        self._restarted: WeakKeyDictionary[Any, Iterable[Any]] = WeakKeyDictionary()
        self.optimizers = OptimizerWatch()

    @property
    def memory(self) -> dict[str, Any]:
        """A dict of the user's that is saved with the run."""
        if self._memory is None:
            saved = self.saves.newest
            self._memory = dict(saved["memory"]) if saved is not None else {}
        return self._memory

    @property
    def is_cut(self) -> bool:
        """Whether the run was stopped within the body of an epoch."""
        return self.place.loop is not None and self.place.loop.cut

    def epochs(self, total: int, steps: int | None = None) -> Iterator[int]:
        """Yields the index of each epoch of a loop that is left to train; with `steps`, it has so many."""
        loop = self._enter(total, steps)
        state = self.state
        try:
            while not loop.over and not state.should_stop:
                self._begin_body(loop)
                yield loop.done
                self._end_body(loop, finished=True)
        except GeneratorExit:
            # Python closes the generator where the user's loop is left, by break, return or an exception:
            # finish() is told of an exception; the next loop, and keep(), take it for a break.
            loop.closed, loop.left = True, not state.should_stop
            raise

    def steps(self, source: int | Iterable[Any]) -> Iterator[Any]:
        """Yields what is left of a loop of steps within the body of an epoch."""
        loop = self.place.loop
        assert loop is not None
        self.settle()
        steps = self.place.begin_steps(self._restartable(source))
        if steps is None:
            return
        place, state, fire = self.place, self.state, self._callbacks.fire
        items = self._items(steps)  # held until the run is saved at its end
        try:
            if not state.should_stop:
                for item in items:
                    if not steps.parts:
                        fire("step_start", state)
                    self.optimizers.stepped = False
                    place.step_body, steps.logged = steps, False
                    yield item
                    place.step_body = None
                    if not loop.cut:  # else a report at its top has stopped the run: its step does not count
                        self._end_step(steps)
                    if loop.cut or (state.should_stop and not steps.parts):
                        break
                else:
                    loop.finish_steps()
                    return
        except GeneratorExit:  # as that of epochs()
            if loop.steps is steps:  # else a variable has held it, and its epoch has ended since
                place.step_body = None
                loop.leave_steps(finished=not state.should_stop)
            raise
        self._cut(loop)

    def _items(self, steps: StepLoop) -> Iterator[Any]:
        """Yields what is left of a loop of steps, so that a checkpoint at the top of a body returns to it."""
        items = steps.items()
        if steps.random is not None:
            random_state.restore(steps.random)
        while True:
            if steps.data is not None and self.saves.wanted and self._is_judged_before_step():
                steps.data.note_state()
            try:
                item = next(items)
            except StopIteration:
                return
            if steps.random_when_loaded is not None:
                random_state.restore(steps.random_when_loaded)
                steps.random_when_loaded = None
            yield item

    def count(self, metrics: Mapping[str, Any]) -> None:
        """Counts a step; its event is fired by :meth:`settle`."""
        state = self.state
        for name, value in metrics.items():
            state.metrics[name] = value if type(value) is float else measured(name, value)
        state.step += 1
        state.global_step += 1
        self._step_counted = True
        self.place.count_step()

    def count_plainly(self, metrics: Mapping[str, Any]) -> None:
        """Counts a step within the body of an epoch, outside of a loop of steps."""
        loop = self.place.loop
        assert loop is not None
        self.settle()
        self._fire("step_start")
        self.count(metrics)
        loop.plain = True
        self.settle()
        if self.state.should_stop:
            self._cut(loop)

    def tell_of_training_on(self) -> None:
        """Says, once, that what is trained after a stop does not count."""
        if not self._told_of_training_on:
            logger.warning(
                "the trial was told to stop at step %d and trains on: what is trained from here counts no more; "
                "leave the loop where trial.log() or trial.report() returns True",
                self.state.global_step,
            )
        self._told_of_training_on = True

    def _tell_of_reporting_again(self, names: list[str]) -> None:
        """Says, once, that of two values at the same step the later one counts."""
        if not self._told_of_reporting_again:
            logger.warning(
                "trial.report() of %s again at step %d: the later value counts; report once, after the steps that "
                "it is of",
                ", ".join(names),
                self.state.global_step,
            )
        self._told_of_reporting_again = True

    def evaluate_before_step(self, metrics: Mapping[str, Any]) -> None:
        """Takes what was measured at the top of a step's body: it is judged before that step is trained."""
        loop = self.place.loop
        assert loop is not None
        self.place.evaluated = True
        self.settle()
        self._evaluate(metrics)
        if self.state.should_stop:
            self._cut(loop)

    def evaluate(self, metrics: Mapping[str, Any]) -> None:
        """Takes what was measured; it is judged where the body ends, or the next step begins."""
        if self.place.returning and self.begun:
            return  # it was judged before the run was resumed
        again = sorted(self._reported.keys() & metrics.keys())
        if again and not self.begun:
            raise RuntimeError(
                f"trial.report() of {', '.join(again)} again, outside of a loop: together they would count as one "
                "epoch, and nothing could be stopped in between; report within `for epoch in trial.epochs(N)`"
            )
        if again:
            self._tell_of_reporting_again(again)
        self._reported |= metrics
        if self.begun and not self.place.in_body:
            self.settle()

    def save_checkpoint(self) -> Path:
        """Saves the run, fires ``checkpoint_saved``, and returns the path."""
        return self._write(asked=True)

    def finish(self, error: BaseException | None) -> None:
        """Ends the run, if it was begun: ``error``, where there was one, and ``train_end``."""
        if self._ended or isinstance(error, Pause) or not (self.begun or self._reported):
            return
        try:
            if error is None:
                self._end_where_it_was_left()
                self._finish_loop()
            self.settle()
        except Pause:
            raise
        except BaseException as raised:
            self._fire_end(raised if error is None else error)
            raise
        self._fire_end(error)

    def _end_where_it_was_left(self) -> None:
        """Takes a loop that was left by ``break`` or ``return`` as trained to its end: no pause continues it."""
        loop = self.place.loop
        if loop is None or self.state.should_stop or self.place.resumed is not None:
            return
        if loop.in_body or loop.left:
            self.state.num_epochs = loop.first + loop.done + bool(self._reported)

    def settle(self) -> None:
        """Fires the events of what was counted and reported since the last call."""
        if self._step_counted:
            self._step_counted = False
            self._callbacks.fire("step_end", self.state)
        if self._reported:
            reported, self._reported = self._reported, {}
            self._evaluate(reported)

    def _enter(self, total: int, steps: int | None) -> EpochLoop:
        place, state = self.place, self.state
        if self.begun:
            self._finish_loop()
        else:
            self._memory = self.memory
            place.resumed = self.saves.newest
            del self.saves.newest  # it holds a copy of all that is kept: its memory is let go
        self.optimizers.watch(self.saves.begin())
        checkpoint = place.resumed
        loop = place.enter(total)
        if checkpoint is not None:
            self._resume_from(checkpoint, loop)
            self._reported.clear()  # before the first loop: it was judged before the run was resumed
        done = state.step if loop.resumed else 0
        state.num_epochs = loop.first + total
        state.max_steps = -1 if steps is None else state.global_step - done + steps
        self._begin_or_go_on(loop)
        if checkpoint is not None and loop.resumed:
            self._saved_at = place.position()
            random_state.restore(checkpoint["random"])
        return loop

    def _resume_from(self, checkpoint: Mapping[str, Any], loop: EpochLoop) -> None:
        """Takes the state of the saved run, and what it kept where its place is in this loop."""
        if loop.resumed:
            self.saves.restore(checkpoint)
        if not self.begun:
            self._restore_state(checkpoint)
            if loop.resumed and loop.over:
                saved = checkpoint["state"]
                self.state.epoch, self.state.step = saved["epoch"], saved["step"]

    def _begin_or_go_on(self, loop: EpochLoop) -> None:
        if not self.begun:
            self.begun = True
            self._fire("train_start")
        elif not (loop.resumed or loop.over or self.state.should_stop):
            self._trains_on(self.state)

    def _restore_state(self, saved: Mapping[str, Any]) -> None:
        state, found, place = self.state, saved["state"], saved["place"]
        state.epoch, state.step, state.global_step = place["first"] + place["done"], 0, found["global_step"]
        if place["in_body"]:
            state.step = found["step"]
        state.metrics.update(found["metrics"])

    def _begin_body(self, loop: EpochLoop) -> None:
        state = self.state
        random = self.place.begin_body()
        if random is None:
            state.epoch, state.step = loop.first + loop.done, 0
        loop.stepped = state.step > 0
        self._fire("epoch_start")
        if random is not None:
            random_state.restore(random)
        if self.saves.wanted:
            loop.random = random_state.capture()

    def _end_body(self, loop: EpochLoop, *, finished: bool) -> None:
        """Ends the body of an epoch; that is finished unless the run was stopped within it."""
        if loop.steps is not None and self.state.should_stop:  # left by break, for the stop that it was told of
            self.settle()
            self._cut(loop)
        elif loop.steps is not None:  # left by break, and a variable holds it
            loop.leave_steps(finished=True)
        self.place.end_body()
        if finished and not loop.cut:
            if not loop.stepped:
                self._fire("step_start")
                self.count({})
            loop.finish_body()
        self.settle()
        if not loop.cut and (loop.over or self.state.should_stop):
            self._save()
        self._fire("epoch_end")
        if not loop.cut and (self.state.should_stop or self.saves.cadence.due()):
            self._save(asked=self.state.should_stop)

    def finish_left_loop(self) -> None:
        """Ends the newest loop now, if it was left; does nothing within a body."""
        if self.place.in_body and not self.place.within_body:
            self._finish_loop()

    def _finish_loop(self) -> None:
        """Ends a loop that was left by ``break`` or ``return``."""
        loop = self.place.loop
        if not self.begun:  # there was a report without any loop: it is one epoch of one step
            for _ in self.epochs(1):
                pass
        elif loop is not None and loop.in_body:
            self._end_body(loop, finished=bool(self._reported))

    def _restartable(self, source: int | Iterable[Any]) -> int | Iterable[Any]:
        """Returns a source of batches; one that can be resumed, where the run is saved."""
        if isinstance(source, int) or not self.saves.wanted:
            return source
        check_not_begun(source)
        if not getattr(source, "persistent_workers", False):
            return source
        if (known := self._restarted.get(source)) is not None:
            return known
        restarted: Iterable[Any] = with_workers_of_each_epoch(source)
        if restarted is not source:
            self._restarted[source] = restarted
        return restarted

    def _end_step(self, steps: StepLoop) -> None:
        optimizers = self.optimizers
        accumulates = optimizers.sees_any and steps.data is not None and not optimizers.stepped
        if not steps.logged:
            if accumulates:
                steps.parts += 1
                steps.finish_body()
                return
            self.count({})
        steps.parts = 0
        steps.finish_body()
        self.settle()
        # Where a part of a step was logged, gradients accumulate, which are in no checkpoint.
        if self.saves.cadence.due() and not self.state.should_stop and not accumulates:
            self._save(asked=False)

    def _cut(self, loop: EpochLoop) -> None:
        """Ends the training of a run that was stopped within the body of an epoch."""
        if not loop.cut:
            self._save()
            loop.cut = True

    def _evaluate(self, metrics: Mapping[str, Any]) -> None:
        self._fire("eval_start")
        self.state.metrics.update(metrics)
        self.evaluating = frozenset(metrics)
        self._fire("eval_end")
        self.evaluating = frozenset()
        drawn = self.place.drawn()
        if drawn is not None:
            random_state.restore(drawn)

    def _save(self, *, asked: bool = True) -> None:
        if self.saves.wanted and self._saved_at != self.place.position():
            self._write(asked=asked)

    def _write(self, *, asked: bool) -> Path:
        state = self.state
        check_dicts(self.memory, "trial.memory")
        progress = {
            "state": {
                "step": state.step,
                "epoch": state.epoch,
                "global_step": state.global_step,
                "metrics": plain_metrics(state.metrics),
            },
            **self.place.state_dict(),
            "random": random_state.capture(),
            "memory": self.memory,
        }
        path = self.saves.write(progress, state.global_step, asked=asked)
        self._saved_at = self.place.position()
        self._fire("checkpoint_saved")
        return path

    def _fire_end(self, error: BaseException | None) -> None:
        self._ended = True
        fire_end(self._callbacks, self.state, error)

    def _fire(self, event: Event) -> None:
        self._callbacks.fire(event, self.state)
