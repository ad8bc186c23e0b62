"""When a trial asks for a verdict, and with which value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from xaytune.trainer.callbacks import CallbackManager, TrainState
from xaytune.trial.messages import DecisionPoints, Report, StopRequest
from xaytune.trial.reporter import Reporter


class Loop:
    """A loop that fires its events, four steps an epoch, and notes each decision as (time, value, due)."""

    def __init__(self, time_attr: Any, milestones: tuple[int, ...] | None, folder: Path, **state: Any) -> None:
        self.callbacks = CallbackManager()
        self.state = TrainState(**state)
        self.decisions: list[tuple[int, float, bool]] = []
        self.time_attr = time_attr
        points = DecisionPoints(time_attr, milestones)
        self.reporter = Reporter("score", True, points, folder, self.decide, lambda report: None)
        self.reporter.attach(self.callbacks)

    def decide(self, report: Report) -> None:
        time = report.epoch if self.time_attr == "epoch" else report.global_step
        self.decisions.append((time, report.metrics["score"], report.due))

    def start(self) -> Loop:
        self.callbacks.fire("train_start", self.state)
        return self

    def steps(self, count: int, **metrics: Any) -> Loop:
        for _ in range(count):
            self.state.global_step += 1
            self.state.metrics.update(metrics)
            self.callbacks.fire("step_end", self.state)
        return self

    def evaluate(self, score: Any) -> Loop:
        self.callbacks.fire("eval_start", self.state)
        self.state.metrics["score"] = score
        self.callbacks.fire("eval_end", self.state)
        return self

    def end_epoch(self) -> Loop:
        self.callbacks.fire("epoch_end", self.state)
        self.state.epoch += 1
        return self

    def end(self) -> Report:
        self.callbacks.fire("train_end", self.state)
        return self.reporter.last_report()


def test_epochs_are_judged_at_the_milestones_with_the_value_of_that_epoch(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path).start()
    for epoch in range(4):
        loop.steps(4).evaluate(epoch / 10).end_epoch()
    assert loop.decisions == [(1, 0.0, True), (3, 0.2, True)]


def test_steps_are_judged_at_the_evaluation_of_that_step_never_by_an_older_one(tmp_path: Path) -> None:
    loop = Loop("global_step", (4, 8), tmp_path).start()
    loop.steps(3).evaluate(0.3).steps(1).evaluate(0.4).steps(2).evaluate(0.6).steps(2)
    assert loop.decisions == [(4, 0.4, True)]  # at step 8 the newest value is that of step 6
    loop.steps(1).evaluate(0.9)
    assert loop.decisions[1:] == [(9, 0.9, True)]


def test_a_metric_of_every_step_is_judged_at_the_step_itself(tmp_path: Path) -> None:
    loop = Loop("global_step", (2, 5), tmp_path).start()
    for step in range(1, 7):
        loop.steps(1, score=step / 10)
    assert loop.decisions == [(2, 0.2, True), (5, 0.5, True)]


def test_a_milestone_without_a_value_is_judged_at_the_next_evaluation(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path).start()
    loop.steps(4).end_epoch().steps(4).evaluate(0.2).end_epoch()
    assert loop.decisions == [(2, 0.2, True)]


def test_milestones_of_none_judge_every_evaluation_once(tmp_path: Path) -> None:
    loop = Loop("epoch", None, tmp_path).start()
    loop.steps(4).evaluate(0.1).end_epoch().steps(4).end_epoch().steps(4).evaluate(0.3).end_epoch()
    assert loop.decisions == [(1, 0.1, True), (3, 0.3, True)]


def test_a_value_that_is_not_finite_is_reported_at_once_between_milestones(tmp_path: Path) -> None:
    loop = Loop("epoch", (3,), tmp_path).start()
    loop.steps(4).evaluate(0.1).end_epoch().steps(4).evaluate(float("inf")).end_epoch()
    assert loop.decisions == [(2, float("inf"), False)]


def test_the_end_of_a_run_at_a_milestone_is_told_with_its_last_report(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 2), tmp_path, num_epochs=2).start()
    loop.steps(4).evaluate(0.1).end_epoch().steps(4).evaluate(0.2).end_epoch()
    assert loop.decisions == [(1, 0.1, True)]
    report = loop.end()
    assert (report.epoch, report.metrics["score"], report.due) == (2, 0.2, True)


def test_an_epoch_that_was_broken_off_does_not_count(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 2), tmp_path).start()
    loop.steps(4).evaluate(0.1).end_epoch()
    loop.state.stop_training()
    loop.steps(1).end_epoch()
    report = loop.end()
    assert (report.epoch, report.global_step, report.due) == (1, 5, False)


def test_a_resumed_run_is_not_judged_again_nor_by_what_was_restored(tmp_path: Path) -> None:
    loop = Loop("global_step", (4, 8), tmp_path, global_step=5, metrics={"score": 0.5}).start()
    loop.steps(3)
    assert loop.decisions == []
    loop.evaluate(0.8)
    assert loop.decisions == [(8, 0.8, True)]


def test_a_stop_request_is_followed_at_the_next_step(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start().steps(1)
    loop.reporter.stop_request = StopRequest("enough")
    loop.steps(1)
    assert loop.state.should_stop


def test_the_best_value_is_the_best_that_was_reached_not_the_last(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    for epoch, score in enumerate((0.1, 0.9, float("nan"), 0.3)):
        loop.steps(2, loss=epoch).evaluate(score).end_epoch()
    best = loop.end().best
    assert best is not None
    assert (best.value, best.epoch, best.global_step, best.metrics) == (0.9, 2, 4, {"loss": 1.0, "score": 0.9})


def test_metrics_are_taken_as_they_stand_when_the_step_ends(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    running = torch.zeros(())
    seen = []
    for value in (1.0, 2.0):
        running += value
        loop.steps(1, running=running, words="not a number")
        seen.append(loop.reporter._rows[-1].metrics["running"])
    assert seen == [1.0, 3.0]
    assert "words" not in loop.end().metrics


def test_a_metric_of_several_numbers_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a metric must be one number: 'scores' has the shape \(3,\)"):
        Loop("epoch", (), tmp_path).start().steps(1, scores=torch.ones(3))
