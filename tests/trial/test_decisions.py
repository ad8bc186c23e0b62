"""When a trial asks for a decision, and with which value; and how it follows the answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from tests.trial.reported_loop import Loop
from xaytune.messages import Assignment, Length, StopRequest
from xaytune.sweep.time_axis import LevelPoints, TimeAxis
from xaytune.trainer.callbacks import Pause


def test_epochs_are_judged_at_the_milestones_with_the_value_of_that_epoch(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path).start()
    for epoch in range(4):
        loop.steps(4).evaluate(epoch / 10).end_epoch()
    assert loop.decisions == [(1, 0.0, True), (3, 0.2, True)]


def test_levels_follow_from_how_long_the_run_says_it_will_be(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path, points=LevelPoints(grace_period=3), num_epochs=8).start()
    assert loop.told == [(Length(trial=0, length=8), [])]
    for epoch in range(8):
        loop.steps(4).evaluate(epoch / 10).end_epoch()
    assert [time for time, _, _ in loop.decisions] == [3, 5]
    assert loop.end().due


def test_a_run_without_a_limit_says_so_where_levels_follow_from_that(tmp_path: Path) -> None:
    points = LevelPoints(TimeAxis("global_step"))
    loop = Loop("global_step", (), tmp_path, points=points, num_epochs=8).start()
    assert loop.told == [(Length(trial=0, length=0), [])]


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


@pytest.mark.parametrize("value", [5, 5.5, True], ids=str)
def test_a_resumed_run_is_judged_by_a_value_that_is_the_restored_one_again(value: float, tmp_path: Path) -> None:
    loop = Loop("epoch", (2, 3), tmp_path, epoch=1, global_step=4, metrics={"score": value}).start()
    loop.steps(4).end_epoch()
    assert loop.decisions == []
    loop.steps(4).evaluate(value).end_epoch()
    assert loop.decisions == [(3, value, True)]


def test_a_stop_request_is_followed_at_the_next_step(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start().steps(1)
    loop.reporter.stopping.take(StopRequest("enough"))
    loop.steps(1)
    assert loop.state.should_stop


def test_a_stop_that_answers_a_decision_is_followed_before_another_step(tmp_path: Path) -> None:
    loop = Loop("global_step", (2,), tmp_path).start()
    loop.answer = StopRequest("weak")
    loop.steps(2, score=0.1)
    assert (loop.state.global_step, loop.state.should_stop) == (2, True)


def test_a_pause_that_answers_a_decision_unwinds_the_run(tmp_path: Path) -> None:
    loop = Loop("epoch", (1,), tmp_path, pausing=True).start().steps(4).evaluate(0.1)
    loop.answer = StopRequest("makes room", "paused")
    with pytest.raises(Pause):
        loop.end_epoch()
    assert not loop.state.should_stop


def test_the_first_request_counts_but_for_one_that_only_pauses(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    for reason, status in (("wait", "paused"), ("weak", "stopped"), ("late", "stopped")):
        loop.reporter.stopping.take(StopRequest(reason, status))  # type: ignore[arg-type]
    assert loop.reporter.stopping.request == StopRequest("weak", "stopped")


def test_a_stop_between_decisions_is_followed_within_a_moment(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    loop.asked = StopRequest("the budget is spent")
    while not loop.state.should_stop:
        loop.steps(1)


def test_a_loop_by_epochs_alone_hears_of_a_stop_between_decisions(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path)
    loop.asked = StopRequest("the budget is spent")
    loop.end_epoch()
    assert loop.state.should_stop


@pytest.mark.parametrize(("stopped_at", "epochs"), [(2, 0), (6, 1), (8, 2)])
def test_an_epoch_that_an_evaluation_stopped_within_does_not_count(
    tmp_path: Path, stopped_at: int, epochs: int
) -> None:
    loop = Loop("global_step", (stopped_at,), tmp_path).start()
    loop.answer = StopRequest("weak")
    while not loop.state.should_stop:
        loop.steps(2).evaluate(0.1)
        if loop.state.should_stop or loop.state.global_step % 4 == 0:
            loop.end_epoch()
    assert loop.end().epoch == epochs


def fold(loop: Loop, number: int) -> None:
    """Trains three epochs, or steps, in a loop of its own; the metric says which fold it is of."""
    trial = loop.trial
    trial.keep(model=nn.Linear(1, 1))
    for index in (trial.steps if loop.axis.by_step else trial.epochs)(3):
        trial.log(loss=1.0)
        trial.report(score=number + index / 10)


@pytest.mark.parametrize("time_attr", ["epoch", "global_step"])
def test_loops_one_after_another_are_judged_where_each_ends_before_the_next_one_trains(
    tmp_path: Path, time_attr: str
) -> None:
    loop = Loop(time_attr, (1, 3, 6, 9), tmp_path)
    for number in range(3):
        fold(loop, number)
    loop.trial.finish()
    assert loop.decisions == [(1, 0.0, True), (3, 0.2, True), (6, 1.2, True)]
    assert loop.reporter.end("completed", None)[0].due


@pytest.mark.parametrize("time_attr", ["epoch", "global_step"])
def test_what_is_stopped_where_a_loop_ends_trains_nothing_of_the_next(tmp_path: Path, time_attr: str) -> None:
    loop = Loop(time_attr, (3,), tmp_path)
    fold(loop, 0)
    loop.answer = StopRequest("bad", "stopped")
    fold(loop, 1)
    assert (loop.decisions, loop.trial.state.global_step) == ([(3, 0.2, True)], 3)


@pytest.mark.parametrize("time_attr", ["epoch", "global_step"])
def test_what_is_paused_where_a_loop_ends_goes_on_with_the_next(tmp_path: Path, time_attr: str) -> None:
    loop = Loop(time_attr, (3, 6), tmp_path, pausing=True)
    fold(loop, 0)
    loop.answer = StopRequest("wait", "paused")
    with pytest.raises(Pause):
        fold(loop, 1)
    judged = Assignment(trial=0, seed=0, config={}, attempt=1, last_judged=3, judged_step=3, checkpoints=(3,))
    resumed = Loop(time_attr, (3, 6), tmp_path, pausing=True, assignment=judged)
    for number in range(3):
        fold(resumed, number)
    assert resumed.decisions == [(6, 1.2, True)]


def test_a_length_that_another_loop_adds_to_is_said_again(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path, points=LevelPoints())
    fold(loop, 0)
    fold(loop, 1)
    assert [told.length for told, _ in loop.told if isinstance(told, Length)] == [3, 6]
