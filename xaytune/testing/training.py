"""The contract of whatever trains: the Trainer, a loop of one's own, or an adapter of another library's trainer.

A test inherits :class:`TrainingContract` and names a recipe::

    class TestMyTrainer(TrainingContract):
        recipe = "tests.my_recipes:train"
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import re
import signal
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from xaytune.trainer.callbacks import EVENTS, Event, Pause, TrainState
from xaytune.trainer.own import OwnLoop
from xaytune.trainer.random_state import seed_everything

__all__ = ["JudgedRun", "TrainingContract", "weights_of"]

# Each event by a letter; what else there may be between two of them is in the grammar below.
_LETTERS = dict(zip(EVENTS, "TtEeSsVvCX", strict=True))
_EVALUATION = "(?:VvC*)?"
_STEP = f"S{_EVALUATION}sC*{_EVALUATION}"
_STOPPED_AT_THE_TOP_OF_A_STEP = "(?:SVvC*)?"
_ORDER = re.compile(f"TC*(?:E{_EVALUATION}(?:{_STEP})*{_STOPPED_AT_THE_TOP_OF_A_STEP}{_EVALUATION}C*eC*)*t")
# An exception may come anywhere.
_BROKEN_OFF = re.compile("T[EeSsVvC]*Xt")


class JudgedRun(OwnLoop):
    """A trial without a sweep: told to stop, or paused, where it is judged at a given time.

    Attributes:
        events: Those that were fired, in their order.
        history: The global step of each ``step_end``.
        judged: The times at which it was judged.

    Args:
        folder: Its checkpoints.
        by: What time is counted in: ``"epoch"``, or ``"global_step"``, which is judged where an evaluation ends.
        times: When it is judged.
        stop_at: The time at which it is told to stop; 0 is when training starts.
        pause_at: The time at which it is saved, and unwound by a :class:`~xaytune.trainer.callbacks.Pause`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        by: str = "epoch",
        times: Iterable[int] = (),
        stop_at: int | None = None,
        pause_at: int | None = None,
    ) -> None:
        super().__init__(checkpoint_dir=folder, save_every_s=0.0)
        self.events: list[Event] = []
        self.history: list[int] = []
        self.judged: list[int] = []
        self._by, self._times = by, {*times, *(time for time in (stop_at, pause_at) if time)}
        self._stop_at, self._pause_at = stop_at, pause_at
        self._save: Callable[[], Path] | None = None
        for event in EVENTS:
            self.callbacks.on(event)(lambda state, event=event: self.events.append(event))
        self.callbacks.on("step_end", last=True)(lambda state: self.history.append(state.global_step))
        self.callbacks.on("train_start", last=True)(self._start)
        judged_at: Event = "epoch_end" if by == "epoch" else "eval_end"
        self.callbacks.on(judged_at, last=True)(self._judge)

    def attach(self, save_checkpoint: Callable[[], Path]) -> None:
        """Takes the means to save the run."""
        self._save = save_checkpoint

    def decision_due(self, *, epoch: int | None = None, global_step: int | None = None) -> bool:
        """Tells whether a time is judged."""
        return (epoch if self._by == "epoch" else global_step) in self._times

    def order(self) -> str:
        """The events, a letter each: T and t train, E and e epoch, S and s step, V and v eval, C save, X error."""
        return "".join(_LETTERS[event] for event in self.events)

    def _start(self, state: TrainState) -> None:
        if self._stop_at == 0:
            state.stop_training()

    def _judge(self, state: TrainState) -> None:
        time = state.epoch + 1 if self._by == "epoch" else state.global_step
        if time not in self._times or time in self.judged or state.should_stop:
            return
        self.judged.append(time)
        if time == self._pause_at:
            assert self._save is not None, "a run that may be paused attaches the means to save it"
            self._save()
            raise Pause
        if time == self._stop_at:
            state.stop_training()


def weights_of(*modules: torch.nn.Module) -> Tensor:
    """Returns all parameters of modules in one row, in a copy."""
    return torch.cat([p.detach().flatten().clone() for module in modules for p in module.parameters()])


class TrainingContract:
    """What every kind of training promises.

    Attributes:
        recipe: ``"module:function"``; the function gets a :class:`JudgedRun`, resumes from its folder, trains at
            least two epochs of two steps, and returns its weights as one tensor. It evaluates at the end of each
            epoch and, where it is judged by steps, at each step that is judged; it saves at each step.
        steps_by_optimizers: Optimizers that step in one step.
        exact_stop: Whether a run that is told to stop trains not one step more; else that only counts no more.
        judged_by: What runs are judged by.
        kills: Random steps at which a run is killed.
        rounding: How far weights may be from those of a run that nothing disturbs; 0 is the same bits.
    """

    recipe: ClassVar[str]
    steps_by_optimizers: ClassVar[int] = 1
    exact_stop: ClassVar[bool] = True
    judged_by: ClassVar[tuple[str, ...]] = ("epoch", "global_step")
    kills: ClassVar[int] = 2
    rounding: ClassVar[float] = 0.0

    @pytest.fixture(scope="class", autouse=True)
    def one_thread(self) -> Iterator[None]:
        """Runs in this process add up in the order of those that are killed: a fork has one thread."""
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(before)

    @pytest.fixture(scope="class")
    def undisturbed(self, tmp_path_factory: pytest.TempPathFactory) -> tuple[JudgedRun, Tensor, int]:
        """A run that nothing disturbs, its weights, and how many steps its optimizers took."""
        run = JudgedRun(tmp_path_factory.mktemp("undisturbed"))
        weights, taken = self._train(run)
        return run, weights, taken

    @pytest.fixture(scope="class")
    def judged(
        self, undisturbed: tuple[JudgedRun, Tensor, int], tmp_path_factory: pytest.TempPathFactory
    ) -> dict[tuple[str, int], tuple[JudgedRun, Tensor]]:
        """Runs that are judged in their middle and train on, with their weights; by when they are judged."""
        folder, found = tmp_path_factory.mktemp("judged"), {}
        for by, at in self._middles(undisturbed[0]):
            run = JudgedRun(folder / by, by=by, times=[at])
            found[by, at] = run, self._train(run)[0]
        return found

    def test_events_come_in_their_order(self, undisturbed: tuple[JudgedRun, Tensor, int]) -> None:
        order = undisturbed[0].order()
        assert _ORDER.fullmatch(order), order
        assert "V" in order, "nothing was evaluated"

    def test_the_history_has_every_optimizer_step(self, undisturbed: tuple[JudgedRun, Tensor, int]) -> None:
        run, _, taken = undisturbed
        assert run.history == list(range(1, taken + 1))

    def test_what_is_told_to_stop_trains_not_one_step_more(
        self, undisturbed: tuple[JudgedRun, Tensor, int], tmp_path: Path
    ) -> None:
        steps, epochs = undisturbed[0].history[-1], undisturbed[0].order().count("E")
        for by, at in self._middles(undisturbed[0]):
            run = JudgedRun(tmp_path / by, by=by, stop_at=at)
            _, taken = self._train(run)
            assert run.judged == [at]
            assert len(run.history) == (at if by == "global_step" else steps * at // epochs)
            assert taken == len(run.history) or not self.exact_stop
            assert _ORDER.fullmatch(run.order()), run.order()

    def test_what_is_told_to_stop_before_its_first_step_trains_none(self, tmp_path: Path) -> None:
        run = JudgedRun(tmp_path, stop_at=0)
        _, taken = self._train(run)
        assert run.history == []
        assert taken == 0 or not self.exact_stop
        assert _ORDER.fullmatch(run.order()), run.order()

    @pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
    def test_train_end_is_fired_once_after_error_where_a_run_raises(
        self, raised: type[BaseException], tmp_path: Path
    ) -> None:
        run = JudgedRun(tmp_path)

        @run.callbacks.on("step_end")
        def fail(state: TrainState) -> None:
            if state.global_step == 2:
                raise raised("broken")

        with pytest.raises((raised, SystemExit)):  # some libraries end the process at Ctrl-C
            self._train(run)
        assert _BROKEN_OFF.fullmatch(run.order()), run.order()

    def test_a_run_that_is_killed_and_resumed_ends_with_the_same_bits(
        self, undisturbed: tuple[JudgedRun, Tensor, int], tmp_path: Path
    ) -> None:
        run, weights, _ = undisturbed
        for step in random.Random(self.recipe).sample(range(1, run.history[-1]), self.kills):
            folder = tmp_path / str(step)
            self._killed(folder, step)
            resumed = JudgedRun(folder)
            assert self._same(self._train(resumed, seed=99)[0], weights), f"killed at step {step}"
            assert resumed.history[-1] == run.history[-1]
            if step > 1:
                assert resumed.history[0] > 1, "it was restarted"

    def test_a_run_that_is_paused_and_resumed_ends_with_the_same_bits(
        self, judged: dict[tuple[str, int], tuple[JudgedRun, Tensor]], tmp_path: Path
    ) -> None:
        for (by, at), (straight, weights) in judged.items():
            paused = JudgedRun(tmp_path / by, by=by, pause_at=at)
            with pytest.raises(Pause):
                self._train(paused)
            assert "t" not in paused.order()
            resumed = JudgedRun(tmp_path / by, by=by, times=[at])
            resumed.judged.append(at)
            assert self._same(self._train(resumed, seed=99)[0], weights), f"paused at {by} {at}"
            assert paused.history + resumed.history == straight.history
            assert _ORDER.fullmatch(resumed.order()), resumed.order()

    def test_a_run_that_is_stopped_and_continued_ends_with_the_same_bits(
        self, judged: dict[tuple[str, int], tuple[JudgedRun, Tensor]], tmp_path: Path
    ) -> None:
        for (by, at), (_, weights) in judged.items():
            self._train(JudgedRun(tmp_path / by, by=by, stop_at=at))
            continued = JudgedRun(tmp_path / by, by=by, times=[at])
            assert self._same(self._train(continued, seed=99)[0], weights), f"stopped at {by} {at}"
            assert continued.history[0] > 1, "it was restarted"

    def test_a_damaged_checkpoint_is_passed_over(
        self, undisturbed: tuple[JudgedRun, Tensor, int], tmp_path: Path
    ) -> None:
        self._killed(tmp_path, undisturbed[0].history[-1] - 1)
        newest = sorted(tmp_path.glob("step-*"))[-1]
        largest = max([newest, *newest.rglob("*")], key=lambda path: path.stat().st_size if path.is_file() else -1)
        content = bytearray(largest.read_bytes())
        middle = len(content) // 2
        content[middle : middle + 64] = bytes(255 - byte for byte in content[middle : middle + 64])
        largest.write_bytes(content)
        run = JudgedRun(tmp_path)
        assert self._same(self._train(run, seed=99)[0], undisturbed[1])
        assert run.history[0] > 1, "it was restarted"

    def _middles(self, run: JudgedRun) -> list[tuple[str, int]]:
        """Times in the middle of a run."""
        middles = {"epoch": run.order().count("E") // 2, "global_step": run.history[-1] // 2}
        return [(by, middles[by]) for by in self.judged_by]

    def _same(self, weights: Tensor, others: Tensor) -> bool:
        if not self.rounding:
            return torch.equal(weights, others)
        return torch.allclose(weights, others, rtol=self.rounding, atol=self.rounding)

    def _train(self, run: JudgedRun, seed: int = 0) -> tuple[Tensor, int]:
        """Trains, and returns the weights, and how many steps were counted by the optimizers."""
        with self.counted_steps() as taken:
            weights = _train(self.recipe, run, seed)
        return weights, taken() // self.steps_by_optimizers

    @contextlib.contextmanager
    def counted_steps(self) -> Iterator[Callable[[], int]]:
        """A context that yields what tells how many steps optimizers took in it, by torch's hooks."""
        taken = 0

        def count(*_: Any) -> None:
            nonlocal taken
            taken += 1

        hook = register_optimizer_step_post_hook(count)
        try:
            yield lambda: taken
        finally:
            hook.remove()

    def _killed(self, folder: Path, step: int) -> None:
        """Trains in a process of its own, which is killed in the middle of a step."""
        child = os.fork()
        if child == 0:
            try:
                _train_until_killed(self.recipe, folder, step)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status), f"the process that was to be killed ended with {status}"
        assert os.WTERMSIG(status) == signal.SIGKILL


def _train(recipe: str, run: JudgedRun, seed: int) -> Tensor:
    """Trains as the process of a trial does."""
    module, _, function = recipe.partition(":")
    seed_everything(seed)
    try:
        weights: Tensor = getattr(importlib.import_module(module), function)(run)
    except BaseException as error:
        run.finish(error)
        raise
    run.finish()
    return weights


def _train_until_killed(recipe: str, folder: Path, step: int) -> None:
    torch.set_num_threads(1)  # those that were there do not outlive a fork
    run = JudgedRun(folder)

    @run.callbacks.on("step_start")
    def kill(state: TrainState) -> None:
        if state.global_step == step:
            os.kill(os.getpid(), signal.SIGKILL)

    _train(recipe, run, seed=0)
