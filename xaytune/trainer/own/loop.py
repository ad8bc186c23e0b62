"""A loop of one's own: what a Trainer gives, for a loop that stays the user's::

    trial.keep(model=model, optimizer=optimizer)
    for epoch in trial.epochs(27):
        for batch in trial.steps(train_loader):
            ...
            optimizer.step()
            trial.log(loss=loss)
        trial.report(accuracy=evaluate(model))

It fires the events of :mod:`xaytune.trainer.callbacks` in their order. A value given to :meth:`OwnLoop.report`
belongs to the steps that were counted before: one that is reported at the top of a step's body, before
:meth:`OwnLoop.log`, is evaluated there, between ``step_start`` and ``step_end``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np

from xaytune.trainer import checkpoint_files
from xaytune.trainer.callbacks import CallbackManager, Pause, TrainState, fire_end, metrics_only
from xaytune.trainer.metrics import measured
from xaytune.trainer.own.run import OwnRun
from xaytune.trainer.own.saves import Saves

T = TypeVar("T")


class OwnLoop:
    """A run whose loop is the user's own. By itself it stops for nobody, and without a folder it saves nothing.

    A trial of a sweep is one, which is judged. The arguments but `save_every_s` are attributes too.

    Attributes:
        seed: What a program may seed its random numbers with; 0 outside of a sweep.
        stop_reason: What :meth:`stop` was given.
        mode: Whether a ``"max"`` or a ``"min"`` of the metric is better; None outside of a sweep.
        taken_over_at: The step of another trial's checkpoint that it went on from; None if it never did.
        conductor: Trains Trainers of this run beside those of others; None where they train by themselves.

    Args:
        callbacks: The handlers of this run; new ones by default.
        checkpoint_dir: Where its checkpoints are; None where it is neither saved nor resumed.
        metric: The metric of the sweep: a report without it is refused.
        shared: What the sweep's ``setup`` returned; None without.
        save_every_s: Seconds between two checkpoints that nothing but the time asks for, at least; they take a
            twentieth of the time at most. With 0 there is one at each body's end.
    """

    def __init__(
        self,
        callbacks: CallbackManager | None = None,
        checkpoint_dir: Path | None = None,
        *,
        metric: str | None = None,
        shared: Any = None,
        save_every_s: float = 10.0,
    ) -> None:
        self.callbacks = callbacks if callbacks is not None else CallbackManager()
        self.checkpoint_dir = checkpoint_dir
        self.seed = 0
        self.shared = shared
        self.stop_reason: str | None = None
        self.metric = metric
        self.mode: str | None = None
        self.taken_over_at: int | None = None
        self.conductor: Callable[[Any], None] | None = None
        self._saves = Saves(self, save_every_s)
        self._run = OwnRun(self.callbacks, self._saves, self.trains_on, self._is_judged_before_step)
        self._training = self._run.state  # of what trains or trained last: this loop, or a Trainer
        self._open = False  # whether that has begun and not ended
        self._error_fired = False
        self.callbacks.on("train_start")(metrics_only(self._note_start))
        self.callbacks.on("error")(metrics_only(self._note_error))
        self.callbacks.on("train_end")(metrics_only(self._note_end))

    @property
    def may_pause(self) -> bool | None:
        """Whether the run may be paused where it is judged. Only a trial says."""
        return None

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        """Takes the means to save the run. A trial uses it where a decision asks for a checkpoint."""

    def discard(self, checkpoint: Path) -> None:
        """Deletes a checkpoint that the run needs no longer. A trial waits until a later one is recorded."""
        checkpoint_files.delete(checkpoint)

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        """Tells whether the run is judged when so many epochs, or steps, are finished. Only a trial ever is."""
        return False

    def trains_on(self, state: TrainState) -> None:
        """Learns that another loop begins, before its first body: the run was not over. A trial may be judged."""

    def check_process(self) -> None:
        """Checks that the run may be used in this process. Only a trial is bound to one."""

    def keep(self, **things: Any) -> None:
        """Saves and restores things with the run, besides its position, random states, metrics and memory.

        They are restored where the loop begins. Only a run that keeps something writes checkpoints: where a
        scheduler asks for one, where it ends, and every now and then. A loop that was left by ``break`` is ended
        first: the events of its last body are fired, and it is saved with what was kept until now.

        Args:
            things: By name: whatever has ``state_dict`` and ``load_state_dict``, or ``save`` and ``load`` of a
                folder, or ``save_state`` and ``load_state`` of one; or a random generator of python, numpy or
                torch. All that trains belongs here.

        Raises:
            RuntimeError: It is called within the body of a loop.
            TypeError: One of the things has none of these.
            OSError: The file system refused that checkpoint.
        """
        self._run.finish_left_loop()  # what it saves is what it has trained, not what takes its place
        if self._run.place.in_body:
            raise RuntimeError(
                "trial.keep() within the body of a loop: what is kept is restored where the loop begins; call it "
                "before the loop"
            )
        self._saves.keep(things)
        self._run.optimizers.watch(things.values())
        if self._saves.wanted:
            self.attach(self._run.save_checkpoint)

    @overload
    def epochs(self, epochs: int) -> Iterator[int]: ...
    @overload
    def epochs(self, epochs: Sequence[T]) -> Iterator[T]: ...
    def epochs(self, epochs: int | Sequence[Any]) -> Iterator[Any]:
        """Yields the index of each epoch that is left to train, from 0, until the run is to stop.

        An epoch is finished, saved where that is due, and judged when its body ends; one that is left by
        ``break`` is finished if a report was the last it did. A body that counts no step is one step. Loops one
        after another (folds) are one run: their epochs count on, and those that are over are skipped when the
        run is resumed; what code after them needs belongs in :attr:`memory`.

        Args:
            epochs: How many; or a sequence, such as ``range(1, 28)``, whose items are yielded instead.

        Raises:
            RuntimeError: It is called within the body of another loop.
            CheckpointError: Every checkpoint that the run could resume from is damaged.
            ValueError: The checkpoint lacks the state of something that is kept.
        """
        self._check_open("epochs")
        items = range(int(epochs)) if isinstance(epochs, (int, np.integer)) else epochs
        if isinstance(items, str) or not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise TypeError(
                f"trial.epochs() takes how many epochs, or a sequence such as range(1, 28) (got {epochs!r:.100})"
            )
        if self._run.place.within_body:
            raise RuntimeError(
                "trial.epochs() within the body of another loop: epochs do not nest; use trial.steps() there"
            )
        for index in self._run.epochs(len(items)):
            yield items[index]

    @overload
    def steps(self, source: int) -> Iterator[int]: ...
    @overload
    def steps(self, source: Iterable[T]) -> Iterator[T]: ...
    def steps(self, source: int | Iterable[Any]) -> Iterator[Any]:
        """Yields each batch, or index, that is left to train, until the run is to stop.

        A body is one optimizer step, which :meth:`log` counts, or the end of the body. Where gradients accumulate,
        a batch after which no optimizer that is kept has stepped is a part of the next step. Within the body of an
        epoch this is a part of that epoch; by itself it is the loop of a run by steps, which is one epoch.

        Where the run is resumed within it, batches that were trained are left out:
        ``trial.steps(enumerate(loader))`` yields the numbers that they have in the epoch,
        ``enumerate(trial.steps(loader))`` begins with 0. The loader of the former has no generator of its own.

        Args:
            source: What yields its batches anew each time it is iterated; or a number of steps.

        Raises:
            RuntimeError: It is called within the body of another loop of steps.
            ValueError: The run is saved, and ``enumerate`` has drawn from the loader's own generator.
        """
        self._check_open("steps")
        if isinstance(source, np.integer):
            source = int(source)
        is_loader = hasattr(source, "__iter__") or hasattr(source, "__getitem__")
        if isinstance(source, str) or not (is_loader or (type(source) is int and source >= 0)):
            raise TypeError(f"trial.steps() takes a loader, or how many steps (got {source!r:.100})")
        run = self._run
        if run.place.step_body is not None:
            raise RuntimeError(
                "trial.steps() within the body of another trial.steps(): steps do not nest. A loop that was left "
                "by break is over once nothing holds it: after bar = tqdm(trial.steps(loader)), del bar"
            )
        if run.place.within_body:
            yield from run.steps(source)
            return
        for _ in run.epochs(1, source if isinstance(source, int) else None):
            yield from run.steps(source)

    def log(self, *unnamed: Any, **metrics: Any) -> bool:
        """Counts an optimizer step: a row of the history.

        Args:
            unnamed: None; a metric has a name.
            metrics: Numbers, or tensors with one element, which are read when somebody needs them.

        Returns:
            Whether the run is known to stop. What is trained then counts no more. Loops of :meth:`epochs` and
            :meth:`steps` end by themselves.

        Raises:
            RuntimeError: It is called twice in the body of a loop of steps, or outside of all loops.
            TypeError: A metric is no number, or has no name.
        """
        if unnamed:
            raise _nameless("log", unnamed)
        self.check_process()
        run = self._run
        loop, steps = run.place.loop, run.place.step_body
        if loop is None or not loop.in_body:
            raise RuntimeError(
                "trial.log() outside of a loop: it counts a step of a body of trial.epochs() or trial.steps()"
            )
        if loop.cut:
            run.tell_of_training_on()
        elif steps is None:
            run.count_plainly(metrics)
        elif steps.logged:
            raise RuntimeError(
                "trial.log() twice in one body of trial.steps(): a body is one optimizer step; give one call all "
                "of its metrics"
            )
        else:
            run.count(metrics)
        return run.state.should_stop

    def report(self, *unnamed: Any, **metrics: Any) -> bool:
        """Says what an evaluation has measured, of the steps that were counted so far.

        At the top of a step's body it is judged at once, before that step is trained; elsewhere where the body
        ends, or the next step begins.

        Args:
            unnamed: None; a metric has a name.
            metrics: Numbers, or tensors with one element.

        Returns:
            Whether the run is known to stop: train no further. Loops of :meth:`epochs` and :meth:`steps` end by
            themselves.

        Raises:
            RuntimeError: Something else trains: a Trainer, or a loop that fires its events itself; or the same
                metric is reported again outside of a loop.
            TypeError: A metric is no number, or has no name.
            ValueError: The sweep's metric is not among them, and was never logged.
        """
        if unnamed:
            raise _nameless("report", unnamed)
        self._check_open("report")
        run, steps = self._run, self._run.place.step_body
        values = {name: measured(name, value) for name, value in metrics.items()}
        if self.metric is not None and self.metric not in {*values, *run.state.metrics}:
            near = difflib.get_close_matches(self.metric, values, n=1)
            raise ValueError(
                f"trial.report() was given {', '.join(values) or 'nothing'}, and the sweep's metric is "
                f"{self.metric!r}: report that in the same call, or name "
                f"{repr(near[0]) if near else 'what you report'} as the metric of the sweep"
            )
        if self.is_pausing and run.is_cut:
            return self.stopped  # of a part of an epoch: it is evaluated when all of it is trained
        if steps is not None and not steps.logged:
            run.evaluate_before_step(values)
        else:
            run.evaluate(values)
        return self.stopped

    def stop(self, why: str) -> None:
        """Ends the run through its own loop, after the step or epoch whose body is running, whatever trains it."""
        self.check_process()
        self.stop_reason = why
        self._training.stop_training()

    def finish(self, error: BaseException | None = None) -> None:
        """Ends the run, where it was begun: fires ``error``, if there was one, and ``train_end``, once.

        The process of a trial calls it when the user's code has returned or raised. It ends also a run whose
        events something else has fired, such as another library's trainer that raised.

        Args:
            error: What was raised. A :class:`~xaytune.trainer.callbacks.Pause` is not an end: nothing is fired.
        """
        self._run.finish(error)
        if self._open and not isinstance(error, Pause):
            fire_end(self.callbacks, self._training, None if self._error_fired else error)

    @property
    def is_pausing(self) -> bool:
        """Whether the run stops only to be resumed. Only a trial ever does."""
        return False

    @property
    def keeps_nothing(self) -> bool:
        """Whether a loop has begun of which nothing is kept: no checkpoint is written, and none is restored."""
        return self._run.begun and not self._saves.wanted

    @property
    def state(self) -> TrainState:
        """What handlers are given."""
        return self._run.state

    @property
    def evaluating(self) -> frozenset[str]:
        """The metrics that :meth:`report` was given, while ``eval_end`` is fired for them."""
        return self._run.evaluating

    @property
    def stopped(self) -> bool:
        """Whether the run was asked to stop; when it is over, whether it had been."""
        return self._training.should_stop

    @property
    def due(self) -> bool:
        """Whether the run is judged at this step or at the end of this epoch, or ends there: then evaluate."""
        state, loop, steps = self._run.state, self._run.place.loop, self._run.place.step_body
        if loop is None or not loop.in_body:
            return False
        step = state.global_step
        if steps is not None:
            if steps.parts and not steps.logged:
                return False
            return step == state.max_steps or self._is_judged_before_step()
        step += not loop.stepped
        last = loop.done + 1 == loop.total
        return last or self.decision_due(epoch=state.epoch + 1) or self.decision_due(global_step=step)

    @property
    def memory(self) -> dict[str, Any]:
        """A dict that is saved and restored with the run: numbers, strings, tensors, arrays, containers of them.

        Raises:
            RuntimeError: Something else trains, whose checkpoints do not hold it.
        """
        if self._is_anothers:
            raise RuntimeError(
                "trial.memory in a run that something else trains: it is saved with a loop of trial.epochs() or "
                "trial.steps() alone"
            )
        return self._run.memory

    @property
    def latest_checkpoint(self) -> Path | None:
        """The newest checkpoint in the run's folder that is whole; None if there is none."""
        if self.checkpoint_dir is None:
            return None
        return checkpoint_files.newest_whole(self.checkpoint_dir)

    def _is_judged_before_step(self) -> bool:
        """Whether the run is judged where its next step is to be trained, if it reports there."""
        return self.state.global_step > 0 and self.decision_due(global_step=self.state.global_step)

    @property
    def _is_anothers(self) -> bool:
        """Whether something else is training, such as a Trainer, and fires the events of the run."""
        return self._open and self._training is not self._run.state

    def _check_open(self, method: str) -> None:
        """Checks that nothing else is training, such as a Trainer: a RuntimeError names the method."""
        self.check_process()
        if self._is_anothers:
            raise RuntimeError(
                f"trial.{method}() in a run that something else trains: a Trainer reports what it evaluates; one "
                "that fires its events by hand sets state.metrics[NAME] before it fires eval_end or epoch_end"
            )

    def _note_start(self, state: TrainState) -> None:
        self.check_process()
        self._training, self._open = state, True
        if self.stop_reason is not None:  # before anything trained
            state.stop_training()

    def _note_error(self, state: TrainState) -> None:
        self._error_fired = True

    def _note_end(self, state: TrainState) -> None:
        self._open = False


def _nameless(call: str, unnamed: tuple[Any, ...]) -> TypeError:
    form = f"trial.{call}(val_loss=value) or trial.{call}(**metrics)"
    return TypeError(f"trial.{call}() takes metrics by name, {form} (got {unnamed[0]!r:.100} without a name)")
