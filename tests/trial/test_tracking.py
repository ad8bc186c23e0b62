"""What trackers are given: each value once, at the step where it was measured, also by a run that was resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.trial.json_lines import logged_by
from tests.trial.reported_loop import Loop
from xaytune.messages import PAUSE, Assignment, DecisionDue, Message, StopRequest
from xaytune.records.history import Row
from xaytune.sweep.options import TrackerSpec
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.current import set_current_trial
from xaytune.trainer.own import OwnLoop
from xaytune.trial.common.metrics import capture
from xaytune.trial.run.runner import RecipeRun
from xaytune.trial.run.trial import Trial
from xaytune.trial.trackers import tracking
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker


class InMemory(Tracker):
    """Keeps what it is given; it may refuse a metric, as a server does."""

    def __init__(self, refused: str = "") -> None:
        self.points: list[Point] = []
        self.ended: list[str] = []
        self._refused = refused

    def open(self, trial: TrackedTrial) -> None:
        pass

    def log(self, points: Sequence[Point]) -> None:
        if any(self._refused in point.metrics for point in points):
            raise ValueError(f"{self._refused} is refused")
        self.points += points

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        self.ended.append(status)

    def values(self, name: str) -> list[tuple[int, float]]:
        return [(point.global_step, point.metrics[name]) for point in self.points if name in point.metrics]


class Killed(BaseException):
    """The process ends here."""


def _track(
    trackers: dict[str, Tracker], loop: OwnLoop, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> tracking.Tracking:
    monkeypatch.setattr(tracking, "made", lambda spec: trackers[spec.name])
    trial = TrackedTrial(sweep="s", id="s-0", number=0, attempt=0, config={}, folder=folder)
    given = tracking.Tracking([TrackerSpec(tracker=name) for name in trackers], trial, 10)
    state = loop.state
    given.attach(
        loop,
        lambda: Row(state.epoch, state.step, state.global_step, {n: capture(v) for n, v in state.metrics.items()}),
        lambda: False,
    )
    return given


class _Counter:
    """Something to keep."""

    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def _train(loop: OwnLoop, killed_at: tuple[int, int] | None = None) -> None:
    loop.keep(counter=_Counter())
    for epoch in loop.epochs(4):
        for step in loop.steps(5):
            if (epoch, step) == killed_at:
                raise Killed
            loop.log(loss=float(epoch * 5 + step))
        if (epoch, 5) == killed_at:
            raise Killed
        loop.report(score=float(epoch))
    loop.finish()


@pytest.mark.parametrize("killed_at", [(1, 5), (2, 0), (2, 3)], ids=str)
def test_a_resumed_run_gives_every_step_and_no_evaluation_of_before(
    killed_at: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = InMemory()
    loop = OwnLoop(checkpoint_dir=tmp_path, save_every_s=0)
    given = _track({"mlflow": tracker}, loop, tmp_path, monkeypatch)
    with pytest.raises(Killed):
        _train(loop, killed_at)
    given.close("paused", None, None)
    loop = OwnLoop(checkpoint_dir=tmp_path, save_every_s=0)
    given = _track({"mlflow": tracker}, loop, tmp_path, monkeypatch)
    _train(loop)
    given.close("completed", None, None)
    assert tracker.values("loss") == [(step + 1, float(step)) for step in range(20)]
    assert tracker.values("score") == [(5 * (epoch + 1), float(epoch)) for epoch in range(4)]


def _reports_one_name(loop: OwnLoop) -> None:
    for epoch in loop.epochs(3):
        for _ in loop.steps(2):
            loop.log(loss=float(epoch))
        loop.report(loss=9.0, score=200)


def _fires_events(loop: OwnLoop) -> None:
    state = loop.state
    loop.callbacks.fire("train_start", state)
    for epoch in range(3):
        for _ in range(2):
            state.global_step += 1
            state.metrics["loss"] = float(epoch)
            loop.callbacks.fire("step_end", state)
        loop.callbacks.fire("eval_start", state)
        state.metrics |= {"loss": 9.0, "score": 200}
        loop.callbacks.fire("eval_end", state)
    loop.callbacks.fire("train_end", state)


@pytest.mark.parametrize("train", [_reports_one_name, _fires_events])
def test_each_evaluation_is_given_though_it_measures_the_same_and_so_are_the_steps_between(
    train: Callable[[OwnLoop], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, loop = InMemory(), OwnLoop()
    given = _track({"mlflow": tracker}, loop, tmp_path, monkeypatch)
    train(loop)
    given.close("completed", None, None)
    assert tracker.values("score") == [(2, 200), (4, 200), (6, 200)]
    assert tracker.values("loss") == [
        *[(1, 0.0), (2, 0.0), (2, 9.0)],
        *[(3, 1.0), (4, 1.0), (4, 9.0)],
        *[(5, 2.0), (6, 2.0), (6, 9.0)],
    ]
    assert type(loop.state.metrics["score"]) is int, "a tracker changes nothing of what is measured"


def _merges() -> Iterator[tuple[str, Mapping[str, float]]]:
    latest: dict[str, float] = {}
    for epoch in range(2):
        yield from [("step_end", latest), ("step_end", latest)]
        latest = {"score": 0.5 + epoch}
        yield "eval_end", latest


def _sets_the_same() -> Iterator[tuple[str, Mapping[str, float]]]:
    for _ in range(2):
        yield from [("step_end", {"score": 7}), ("step_end", {"score": 7}), ("eval_end", {"score": 7})]


def _keeps_the_best() -> Iterator[tuple[str, Mapping[str, float]]]:
    best = {"score": 0.5}
    for _ in range(2):
        yield from [("step_end", {}), ("step_end", {}), ("eval_end", best)]


@pytest.mark.parametrize(
    ("measure", "given"),
    [
        (_merges, [(2, 0.5), (4, 1.5)]),
        (_sets_the_same, [(step, 7) for step in range(1, 5)]),
        (_keeps_the_best, [(2, 0.5), (4, 0.5)]),
    ],
)
def test_a_value_is_given_where_an_evaluation_or_a_step_has_set_it_whichever_object_it_is(
    measure: Any, given: list[tuple[int, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, loop = InMemory(), OwnLoop()
    tracked = _track({"mlflow": tracker}, loop, tmp_path, monkeypatch)
    for event, metrics in measure():
        loop.state.global_step += event == "step_end"
        loop.state.metrics |= metrics
        loop.callbacks.fire(event, loop.state)
    tracked.close("completed", None, None)
    assert tracker.values("score") == given


def test_what_is_reported_now_and_then_is_given_there_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker, loop = InMemory(), OwnLoop()
    given = _track({"mlflow": tracker}, loop, tmp_path, monkeypatch)
    best = 0.5
    for epoch in loop.epochs(5):
        loop.report(best=best, **({"test": epoch} if epoch % 2 == 0 else {}))
    loop.finish()
    given.close("completed", None, None)
    assert tracker.values("best") == [(step, best) for step in range(1, 6)]
    assert tracker.values("test") == [(1, 0), (3, 2), (5, 4)]


class _Pausing:
    """A driver that pauses a trial wherever it is judged."""

    busy = False

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        pass

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest:
        return PAUSE

    def stop_request(self) -> None:
        pass


def _reports(config: dict[str, Any], trial: Trial) -> None:
    for _ in trial.epochs(3):
        for step in trial.steps(2):
            trial.log(loss=float(step))
        trial.report(score=11.0)


def _reports_the_same(config: dict[str, Any], trial: Trial) -> None:
    for epoch in trial.epochs(3):
        trial.log(loss=float(epoch))
        trial.report(score=11)


def _logs(config: dict[str, Any], trial: Trial) -> None:
    for step in trial.steps(3):
        trial.log(loss=float(step), **({"score": 11.0} if step == 1 else {}))


@pytest.mark.parametrize(
    ("recipe", "axis", "scores"),
    [
        (_reports, "epoch", [(2, 11.0)]),
        (_reports, "global_step", [(2, 11.0)]),
        (_reports_the_same, "global_step", [(1, 11.0), (2, 11.0)]),
        (_logs, "global_step", [(2, 11.0)]),
    ],
)
def test_the_value_for_which_a_trial_is_paused_is_given(
    recipe: Any, axis: Any, scores: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracker = InMemory()
    monkeypatch.setattr(tracking, "made", lambda spec: tracker)
    judged = Loop(axis, (1 if axis == "epoch" else 2,), tmp_path, pausing=True)
    task = replace(judged.task, trackers=(TrackerSpec(tracker="mlflow"),))
    ended = RecipeRun(task, Assignment(trial=0, seed=0, config={}), _Pausing(), recipe=recipe).run()
    set_current_trial(None)
    assert ended.status == "paused"
    assert tracker.ended == ["paused"]
    assert (tracker.values("loss"), tracker.values("score")) == ([(1, 0.0), (2, 1.0)], scores)


def test_a_tracker_that_refuses_a_metric_is_told_how_the_trial_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusing, other = InMemory(refused="score"), InMemory()
    loop = OwnLoop()
    given = _track({"mlflow": refusing, "wandb": other}, loop, tmp_path, monkeypatch)
    _train(loop)
    given.close("completed", None, None)
    assert refusing.ended == other.ended == ["completed"]
    assert [step for step, _ in other.values("score")] == [5, 10, 15, 20]


def _train_on(config: dict[str, Any], trial: Trial) -> TrainState:
    """Pays no heed to being told to stop."""
    state = TrainState()
    trial.callbacks.fire("train_start", state)
    for step in range(1, 6):
        state.epoch, state.global_step = step - 1, step
        state.metrics["loss"] = 1.0 / step
        trial.callbacks.fire("step_end", state)
        trial.callbacks.fire("eval_start", state)
        state.metrics["score"] = float(step)
        trial.callbacks.fire("eval_end", state)
        trial.callbacks.fire("epoch_end", state)
    trial.callbacks.fire("train_end", state)
    return state


def test_what_a_loop_trains_after_it_was_told_to_stop_is_given_to_no_tracker(tmp_path: Path) -> None:
    link = Loop("epoch", (2,), tmp_path)
    link.answer = StopRequest("weak")
    task = replace(link.task, trackers=(TrackerSpec(tracker="tests.trial.json_lines:JsonLines"),))
    ended = RecipeRun(task, Assignment(trial=0, seed=0, config={}), link, recipe=_train_on).run()
    assert (ended.status, ended.global_step) == ("stopped", 2)
    (file,) = (tmp_path / "trackers").iterdir()
    assert logged_by(file) == {"loss": [(1, 1.0), (2, 0.5)], "score": [(1, 1.0), (2, 2.0)]}
