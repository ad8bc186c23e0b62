"""Callbacks: the state of a run, and the handlers that its events call.

The loop of a run, with every event at its place::

    train_start
    for each epoch:
        epoch_start
        for each optimizer step:
            step_start
            (forward, backward, optimizer step)
            step_end
            eval_start, eval_end        where an evaluation is due
            checkpoint_saved            where a checkpoint was written
        epoch_end
    error                               only where the run raised
    train_end                           once, last, however the run ended

A run that is told to stop (``state.stop_training()``) finishes its step, writes its last checkpoint, and
fires what is left of ``checkpoint_saved``, ``epoch_end`` and ``train_end``.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import logging
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeVar, get_args

__all__ = [
    "EVENTS",
    "CallbackManager",
    "Event",
    "Handler",
    "Pause",
    "TrainState",
    "fire_end",
    "may_be_late",
    "metrics_only",
    "note_error",
    "words_of",
]

Event = Literal[
    "train_start",
    "train_end",
    "epoch_start",
    "epoch_end",
    "step_start",
    "step_end",
    "eval_start",
    "eval_end",
    "checkpoint_saved",
    "error",
]
EVENTS: Final[tuple[Event, ...]] = get_args(Event)


@dataclass
class TrainState:
    """What a run knows of itself. Every handler gets it, and a recipe returns it.

    Attributes:
        step: Optimizer steps done in the current epoch.
        epoch: Index of the current epoch, from 0.
        global_step: Optimizer steps done over all epochs.
        num_epochs: Epochs the run is to train.
        max_steps: Optimizer steps after which the run ends; -1 is no limit.
        metrics: Latest values by name (``loss``, ``eval_loss``, ``learning_rate``, ``grad_norm``, ``error``).
            A value may be a 0-d tensor: reading it as a number waits for the device.
        should_stop: True once the run was asked to stop.
    """

    step: int = 0
    epoch: int = 0
    global_step: int = 0
    num_epochs: int = 0
    max_steps: int = -1
    metrics: dict[str, Any] = field(default_factory=dict)
    should_stop: bool = False

    def stop_training(self) -> None:
        """Ends the run after the current step, through its own loop."""
        self.should_stop = True


class Pause(BaseException):
    """Unwinds a run that continues later, from its newest checkpoint: it has not ended, and fires nothing more."""


Handler = Callable[[TrainState], object]
F = TypeVar("F", bound=Handler)


def metrics_only(handler: F) -> F:
    """Marks a handler that looks at the state alone, not at the model, its optimizer or random numbers.

    Runs that are trained fused (:mod:`xaytune.trainer.fused`) spare what bringing these up to date takes; with a
    handler of ``error`` that is not marked they take one step at a time. A class of handlers has
    ``metrics_only = True``.
    """
    marked: Any = getattr(handler, "__func__", handler)  # a method is marked by its function
    marked.metrics_only = True
    return handler


def may_be_late(handler: F) -> F:
    """Marks a :func:`metrics_only` handler of steps that may be called when later steps were trained already.

    It is given the state as it was after its step, and does not stop the run. Runs that are trained fused
    then take several steps in a row.
    """
    marked: Any = getattr(handler, "__func__", handler)
    marked.may_be_late = True
    return handler


logger = logging.getLogger(__name__)

# What `every=N` counts: numbers that a resumed run carries on with, not calls since the process began.
_PROGRESS: Final[Mapping[str, Callable[[TrainState], int]]] = {
    "step_start": lambda state: state.global_step,
    "step_end": lambda state: state.global_step,
    "epoch_start": lambda state: state.epoch + 1,
    "epoch_end": lambda state: state.epoch + 1,
}


class CallbackManager:
    """Keeps handlers by event and calls them in the order of their registration."""

    def __init__(self) -> None:
        self._ordinary: dict[Event, list[Handler]] = {event: [] for event in EVENTS}
        self._last: dict[Event, list[Handler]] = {event: [] for event in EVENTS}
        # Tuples, replaced whole: a handler may register another one while its event is being fired.
        self._calls: dict[Event, tuple[Handler, ...]] = dict.fromkeys(EVENTS, ())
        self._looking: set[Event] = set()
        self._prompt: set[Event] = set()
        self._remembering: dict[str, Handler] = {}  # by the metric that each keeps what it remembers in

    def on(self, event: Event, *, every: int = 1, last: bool = False) -> Callable[[F], F]:
        """Registers the decorated function for an event.

        A handler with a method ``has_ended(state)`` is asked where a run goes on: it may have ended it before.
        If it has ``remembers_in``, the metric in which it keeps what it remembers, no other may have the same.

        Args:
            event: One of :data:`EVENTS`.
            every: Call the handler only where the event's progress is divisible by this: ``global_step`` for
                step events, the number of the epoch (from 1) for epoch events, times fired for the others.
            last: Call the handler after all that are not ``last``, also those registered later.

        Returns:
            A decorator that returns the function unchanged.

        Raises:
            ValueError: The event does not exist, `every` is not a positive integer, or the handler would share
                what it remembers with another one.
            TypeError: The handler cannot be called with the state alone.
        """
        _check_event(event)
        if isinstance(every, bool) or not isinstance(every, int) or every < 1:
            raise ValueError(f"every must be a positive integer (got {every!r})")

        def register(handler: F) -> F:
            _check_handler(event, handler)
            self._check_remembers_alone(handler)
            chosen = self._last if last else self._ordinary
            chosen[event].append(handler if every == 1 else _every(event, every, handler))
            self._calls[event] = (*self._ordinary[event], *self._last[event])
            if not getattr(handler, "metrics_only", False):
                self._looking.add(event)
            if not getattr(handler, "may_be_late", False):
                self._prompt.add(event)
            if hasattr(handler, "has_ended"):
                self.on("train_start", last=True)(_stopping_again(handler))
            return handler

        return register

    def _check_remembers_alone(self, handler: Handler) -> None:
        metric: str | None = getattr(handler, "remembers_in", None)
        if metric is None:
            return
        known = self._remembering.setdefault(metric, handler)
        if known is not handler:
            raise ValueError(
                f"{handler!r} would share what it remembers, {metric!r}, with {known!r}, another handler of this "
                "run: give one of them a name of its own, name=..."
            )

    def metrics_suffice(self, event: Event) -> bool:
        """Tells whether all handlers of an event look at the state alone; see :func:`metrics_only`."""
        return event not in self._looking

    def all_may_be_late(self, event: Event) -> bool:
        """Tells whether all handlers of an event may be called later; see :func:`may_be_late`."""
        return event not in self._prompt

    def fire(self, event: Event, state: TrainState) -> None:
        """Calls the handlers of an event; what a handler raises passes through.

        Raises:
            ValueError: The event does not exist.
        """
        handlers = self._calls.get(event)
        if handlers is None:
            _check_event(event)
            return
        for handler in handlers:
            handler(state)


def note_error(state: TrainState, error: BaseException) -> None:
    """Puts what was raised into ``metrics["error"]``, as text, unless a metric is called so."""
    if isinstance(state.metrics.get("error", ""), str):
        state.metrics["error"] = f"{type(error).__name__}: {words_of(error)}"


def words_of(error: BaseException) -> str:
    """Returns the text of an error; none where it cannot be told as text."""
    try:
        return str(error)
    except Exception:  # whatever its __str__ does
        return ""


def fire_end(callbacks: CallbackManager, state: TrainState, error: BaseException | None) -> None:
    """Fires ``error``, where there was one, and ``train_end``, whatever the handlers of ``error`` do."""
    try:
        if error is not None:
            note_error(state, error)
            callbacks.fire("error", state)
    finally:
        callbacks.fire("train_end", state)


def _check_event(event: str) -> None:
    if event not in EVENTS:
        near = difflib.get_close_matches(str(event), EVENTS, n=1, cutoff=0.0)
        raise ValueError(f"there is no event {event!r}; did you mean {near[0]!r}? Events: {', '.join(EVENTS)}")


def _check_handler(event: Event, handler: Handler) -> None:
    if not callable(handler):
        raise TypeError(f"a handler of {event!r} must be callable with the TrainState (got {handler!r})")
    if _takes_one_argument(handler):
        return
    try:
        inspect.signature(handler).bind(TrainState())
    except TypeError as error:
        raise TypeError(
            f"the handler {getattr(handler, '__name__', handler)!r} of {event!r} must take the TrainState "
            f"and nothing else: {error}"
        ) from None
    except ValueError:
        return  # a builtin without a signature: calling it will tell


def _takes_one_argument(handler: Handler) -> bool:
    """Whether a plain function or method does, which is seen much faster than by its signature."""
    code = getattr(getattr(handler, "__func__", handler), "__code__", None)
    if code is None or code.co_kwonlyargcount:
        return False
    return bool(code.co_argcount - isinstance(handler, types.MethodType) == 1)


def _every(event: Event, every: int, handler: Handler) -> Handler:
    progress = _PROGRESS.get(event)
    if progress is None:
        fired = itertools.count(1)
        return lambda state: handler(state) if next(fired) % every == 0 else None
    return lambda state: handler(state) if progress(state) % every == 0 else None


def _stopping_again(handler: Any) -> Handler:
    """Returns what stops a run that a handler has ended before, such as EarlyStopping."""

    @metrics_only
    def stop(state: TrainState) -> None:
        if state.global_step > 0 and handler.has_ended(state):
            logger.warning("%r ended the run before, at step %d: nothing is trained", handler, state.global_step)
            state.stop_training()

    return stop
