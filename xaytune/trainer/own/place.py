"""Where a loop of one's own is: which loop, which body, which batch; and the way back there when it is resumed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xaytune.trainer.data import ResumableLoader
from xaytune.trainer.own.generators import Generators

logger = logging.getLogger(__name__)


@dataclass
class StepLoop:
    """A loop of steps within the body of an epoch.

    Attributes:
        source: Its batches, or how many steps it has.
        data: The batches, with their place; None for a number of steps.
        done: Bodies that were finished.
        parts: Those of them that are parts of a step which is not done: batches whose gradients accumulate.
        logged: Whether the step of the body that is running was counted.
        random: The random states to go on with, where the run was resumed within it.
        random_when_loaded: Those to go on with when its next batch is loaded, where that had been loaded.
    """

    source: int | Iterable[Any]
    data: ResumableLoader | None
    done: int = 0
    parts: int = 0
    logged: bool = False
    random: dict[str, Any] | None = None
    random_when_loaded: dict[str, Any] | None = None

    def items(self) -> Iterator[Any]:
        """Yields what is left of the source."""
        if isinstance(self.source, int):
            return iter(range(self.done, self.source))
        assert self.data is not None
        return self.data.epoch()

    def finish_body(self) -> None:
        """Counts a body as finished."""
        self.done += 1
        if self.data is not None:
            self.data.count_trained()


@dataclass
class EpochLoop:
    """A loop of epochs.

    Attributes:
        index: Loops of epochs that the run had before it.
        total: Epochs that it has.
        first: Epochs that the run had before it.
        done: Epochs that were finished.
        resumed: Whether the run was resumed within it, or at its end.
        closed: Whether it was left by ``break``, ``return`` or an exception.
        left: Whether it was left so by the user, and not because the run was stopped.
        in_body: Whether a body is running, or was left and is not ended yet.
        steps: The newest loop of steps in this body, if it is not over.
        inner: Loops of steps in this body that are over.
        stepped: Whether a step was counted in this epoch.
        plain: Whether steps of this body were counted outside of a loop of steps: their place is not known.
        cut: Whether the run was stopped within this body.
        random: The random states when this body began.
    """

    index: int
    total: int
    first: int
    done: int = 0
    resumed: bool = False
    closed: bool = False
    left: bool = False
    in_body: bool = False
    steps: StepLoop | None = None
    inner: int = 0
    stepped: bool = False
    plain: bool = False
    cut: bool = False
    random: dict[str, Any] | None = None

    @property
    def over(self) -> bool:
        """Whether there is nothing left to train."""
        return self.left or self.done >= self.total

    def finish_body(self) -> None:
        """Counts a body as finished."""
        self.done, self.inner, self.steps, self.random = self.done + 1, 0, None, None

    def leave_steps(self, *, finished: bool) -> None:
        """Learns that the user has left the loop of steps that runs, which is over unless the run was stopped."""
        if self.steps is not None and self.steps.logged:
            self.steps.finish_body()
        if finished:
            self.finish_steps()

    def finish_steps(self) -> None:
        """Counts a loop of steps as over."""
        if self.steps is not None and self.steps.data is not None:
            self.steps.data.finish_epoch()
        self.steps, self.inner = None, self.inner + 1


@dataclass
class OwnPlace:
    """Where a run is.

    Attributes:
        loop: The newest loop of epochs.
        step_body: The loop of steps whose body is running.
        resumed: The checkpoint that the run goes on from, until its place is reached.
        evaluated: Whether the model was evaluated in this body before the step.
    """

    loop: EpochLoop | None = None
    step_body: StepLoop | None = None
    resumed: Mapping[str, Any] | None = None
    evaluated: bool = False
    # The checkpoint, until its place within the body of an epoch is reached.
    _body: Mapping[str, Any] | None = None
    _drawn: dict[str, Any] | None = None  # the random states after an evaluation that will be made again
    _epochs: int = 0  # how many were begun
    _loaders: dict[int, ResumableLoader] = field(default_factory=dict)  # by their loop's number in the body
    _saved_loaders: dict[int, Any] = field(default_factory=dict)
    _generators: Generators = field(default_factory=Generators)
    _returned_to: EpochLoop | None = None  # the loop whose body the saved loaders belong to

    @property
    def in_body(self) -> bool:
        """Whether the body of an epoch is running, or was left and is not ended yet."""
        return self.loop is not None and self.loop.in_body

    @property
    def returning(self) -> bool:
        """Whether the run was resumed, and is not yet where it was saved."""
        return self.resumed is not None or self._body is not None

    @property
    def within_body(self) -> bool:
        """Whether the user's code is within the body of an epoch."""
        return self.loop is not None and self.loop.in_body and not self.loop.closed

    def enter(self, total: int) -> EpochLoop:
        """Begins a loop of epochs, and returns to the place of a checkpoint where that is in it."""
        loop = EpochLoop(0 if self.loop is None else self.loop.index + 1, total, self._epochs)
        self.loop = loop
        saved = self.resumed
        if saved is None:
            return loop
        place = saved["place"]
        if loop.index < place["loop"]:
            loop.left = True  # it was over before the run was resumed
            return loop
        loop.resumed = True
        loop.first, loop.done, loop.left = place["first"], place["done"], place["left"]
        self.resumed, self._epochs = None, loop.first + loop.done
        self._saved_loaders, self._returned_to = dict(saved["loaders"]), loop
        self._generators.load(saved)
        if place["in_body"]:
            self._body = saved
        elif place["plain"]:
            logger.warning(
                "the run was stopped within epoch %d, whose batches did not come from trial.steps(): that epoch "
                "is trained again from its first batch",
                loop.first + loop.done,
            )
        return loop

    def begin_body(self) -> dict[str, Any] | None:
        """Begins the body of an epoch, and returns the random states to begin it with, if it was begun before."""
        loop = self.loop
        assert loop is not None
        loop.in_body, loop.stepped, loop.plain, loop.cut = True, False, False, False
        self._epochs = loop.first + loop.done + 1
        return self._body["body_random"] if self._body is not None else None

    def end_body(self) -> None:
        """Ends the body of an epoch."""
        assert self.loop is not None
        self.loop.in_body, self.step_body, self._body = False, None, None

    def begin_steps(self, source: int | Iterable[Any]) -> StepLoop | None:
        """Begins a loop of steps; None for one that was over before the run was resumed."""
        loop = self.loop
        assert loop is not None
        data = None if isinstance(source, int) else ResumableLoader(source)
        steps = loop.steps = StepLoop(source, data)
        saved = self._saved_loaders.pop(loop.inner, None)
        if data is not None:
            self._loaders[loop.inner] = data
            returned = loop is self._returned_to  # a later loop may have loaders of its own
            within = self._body is not None and loop.inner == self._body["place"]["inner"]
            self._generators.see(data.generators, loop.index, loop.inner, returned=returned, within=within)
            if saved is not None and returned:
                self._return(data, saved)
        if self._body is None:
            return steps
        place = self._body["place"]
        if loop.inner < place["inner"]:
            loop.finish_steps()
            return None
        steps.done = place["steps"]
        steps.random = self._body["random"]
        if place["evaluated"]:
            self._drawn = steps.random
        if place.get("loaded"):  # absent in older checkpoints
            steps.random, steps.random_when_loaded = saved["random"] | {"generators": []}, steps.random
        self._body = None
        return steps

    def _return(self, data: ResumableLoader, saved: Mapping[str, Any]) -> None:
        """Puts a loader back where it was; where its epoch begins anew, at that epoch's first batch."""
        data.tell_of_missing_generators(saved["random"])
        data.load_state_dict(saved["place"] if self._body is not None else saved["place"] | {"taken": 0})

    def count_step(self) -> None:
        """Notes that a step was counted."""
        assert self.loop is not None
        self.loop.stepped = True
        self.evaluated, self._drawn, self._body = False, None, None
        if self.step_body is not None:
            self.step_body.logged = True

    def drawn(self) -> dict[str, Any] | None:
        """Returns the random states after an evaluation that was made before the run was resumed, once."""
        drawn, self._drawn = self._drawn, None
        return drawn

    def position(self) -> tuple[Any, ...]:
        """Returns a value that is another one at each place where the run can be saved."""
        loop = self.loop
        assert loop is not None
        steps = loop.steps.done if loop.steps is not None else None
        return loop.index, loop.first, loop.done, loop.left, loop.in_body, loop.inner, steps

    def state_dict(self) -> dict[str, Any]:
        """Returns the place, in tensors and plain values."""
        loop = self.loop
        assert loop is not None
        return {
            "place": {
                "loop": loop.index,
                "first": loop.first,
                "done": loop.done,
                "left": loop.left,
                "in_body": loop.in_body and not loop.plain,
                "plain": loop.in_body and loop.plain,
                "inner": loop.inner,
                "steps": loop.steps.done if loop.steps is not None else 0,
                "evaluated": self.evaluated,
                "loaded": bool(loop.steps and loop.steps.data and loop.steps.data.is_ahead),
            },
            "body_random": loop.random,
            # What is not begun again yet is as it was saved.
            "loaders": self._saved_loaders
            | {
                index: {"place": data.state_dict(), "random": data.random_states()}
                for index, data in self._loaders.items()
            },
            "generators": self._generators.state(self._loaded_ahead()),
        }

    def _loaded_ahead(self) -> dict[int, Any]:
        """Returns the states that generators had before a batch was loaded which is not trained yet."""
        steps = self.loop.steps if self.loop is not None else None
        if steps is None or steps.data is None or not steps.data.is_ahead:
            return {}
        states = steps.data.random_states()["generators"]
        return {id(one): state for one, state in zip(steps.data.generators, states, strict=True)}
