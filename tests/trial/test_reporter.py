"""When a trial asks for a decision, and with which value; and what it tells."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

from xaytune.records.history import Row
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints, LevelPoints, TimeAxis
from xaytune.trainer.callbacks import CallbackManager, Pause, TrainState
from xaytune.trial.messages import Assignment, DecisionDue, Ended, Length, Message, StopRequest, Task
from xaytune.trial.reporter import Reporter


class Loop:
    """A loop that fires its events, four steps an epoch, and notes each decision as (time, value, due).

    It is its own link to a driver, which answers as it is told to.
    """

    busy = False

    def __init__(
        self,
        time_attr: Any,
        milestones: tuple[int, ...] | None,
        folder: Path,
        *,
        pausing: bool = False,
        heartbeat_s: float = 1000,
        points: DecisionPoints | None = None,
        assignment: Assignment | None = None,
        **state: Any,
    ) -> None:
        self.callbacks = CallbackManager()
        self.state = TrainState(**state)
        self.decisions: list[tuple[int, float, bool]] = []
        self.told: list[tuple[Any, list[Row]]] = []
        self.answer: StopRequest | None = None
        self.asked: StopRequest | None = None
        self.axis = TimeAxis(time_attr)
        task = Task(
            sweep="s",
            sweep_id="1",
            sweep_dir=str(folder),
            remote=None,
            recipe="module:recipe",
            objective=Objective("score", "max"),
            seed=0,
            points=points or DecisionPoints(self.axis, milestones, pausing=pausing),
            heartbeat_s=heartbeat_s,
        )
        assignment = assignment or Assignment(trial=0, seed=0, config={})
        self.reporter = Reporter(task, assignment, folder / "checkpoints" / "00000", self)
        self.reporter.attach(self.callbacks)

    def tell(self, message: Message, rows: Sequence[Row]) -> None:
        self.told.append((message, list(rows)))

    def ask(self, message: DecisionDue, rows: Sequence[Row]) -> StopRequest | None:
        self.tell(message, rows)
        time = self.axis.of(epoch=message.epoch, global_step=message.global_step)
        self.decisions.append((time, message.metrics["score"], message.due))
        return self.answer

    def stop_request(self) -> StopRequest | None:
        return self.asked

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

    def end(self) -> Ended:
        self.callbacks.fire("train_end", self.state)
        ended, rows = self.reporter.end("completed", None)
        self.tell(ended, rows)
        return ended


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


def test_a_stop_request_is_followed_at_the_next_step(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start().steps(1)
    loop.reporter.stopping.take(StopRequest("enough"))
    loop.steps(1)
    assert loop.state.should_stop


def test_the_best_value_is_the_best_that_was_reached_not_the_last(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    for epoch, score in enumerate((0.1, 0.9, float("nan"), 0.3)):
        loop.steps(2, loss=epoch).evaluate(score).end_epoch()
    best = loop.end().best
    assert best is not None
    assert (best.value, best.epoch, best.global_step, best.metrics) == (0.9, 2, 4, {"loss": 1.0, "score": 0.9})


@pytest.mark.filterwarnings("error")
def test_metrics_are_taken_as_they_stand_when_the_step_ends(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    running = torch.zeros(())
    seen = []
    for value in (1.0, 2.0):
        running += value
        loop.steps(1, running=running, words="not a number", with_graph=torch.ones((), requires_grad=True))
        seen.append(loop.reporter.untold.rows[-1].metrics["running"])
    assert seen == [1.0, 3.0]
    ended = loop.end()
    assert ended.metrics["with_graph"] == 1.0
    assert "words" not in ended.metrics


def test_what_is_no_number_is_left_out_and_named_once(tmp_path: Path) -> None:
    odd: dict[Any, Any] = {
        "array": torch.ones(3),
        "list": [0.5],
        "text": "0.5",
        "complex": 0.5j,
        "huge": 10**400,
        5: None,
    }
    loop = Loop("epoch", (), tmp_path).start()
    loop.state.metrics.update(odd, one=torch.ones(1), decimal=Decimal("0.5"), bool=True, score=0.1)
    ended = loop.steps(2).end()
    assert ended.metrics == {"one": 1.0, "decimal": 0.5, "bool": 1.0, "score": 0.1}
    assert sorted(ended.notes) == sorted(
        f"the metric {name!r} is left out: a metric is a number, a tensor or an array of one number"
        for name in odd
    )


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


def test_heartbeats_are_sent_by_the_training_and_every_row_is_told_once(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path, heartbeat_s=0).start()
    while len(loop.told) < 3:
        loop.steps(1, score=0.5)
    loop.busy = True  # nothing is sent while the last is on its way
    loop.steps(1000)
    assert len(loop.told) == 3
    loop.end()
    steps = [row.global_step for _, rows in loop.told for row in rows]
    assert steps == list(range(1, loop.state.global_step + 1))


def test_a_stop_between_decisions_is_followed_within_a_moment(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    loop.asked = StopRequest("the budget is spent")
    while not loop.state.should_stop:
        loop.steps(1)


def test_what_is_trained_after_a_verdict_does_not_count_and_is_said(tmp_path: Path) -> None:
    loop = Loop("epoch", (1,), tmp_path, num_epochs=3).start()
    loop.answer = StopRequest("weak")
    for epoch in range(3):  # it never looks at should_stop
        loop.steps(2, score=epoch / 10).end_epoch()
    ended = loop.end()
    assert (ended.epoch, ended.global_step, ended.metrics["score"]) == (1, 2, 0.0)
    assert ended.best is not None
    assert ended.best.value == 0.0
    assert [row.global_step for _, rows in loop.told for row in rows] == [1, 2]
    assert [note for message, _ in loop.told for note in message.notes] == [
        "a trial trained on after it was told to stop: what it trained then does not count; leave the loop where "
        "state.should_stop is True"
    ]


def test_what_is_trained_after_a_handler_stopped_the_run_does_not_count_but_its_last_evaluation_does(
    tmp_path: Path,
) -> None:
    loop = Loop("epoch", (), tmp_path, num_epochs=3).start().steps(2)
    loop.state.stop_training()
    loop.steps(1).evaluate(0.5).end_epoch().steps(4).evaluate(0.9).end_epoch()
    ended = loop.end()
    assert (ended.epoch, ended.global_step, ended.metrics) == (0, 3, {"score": 0.5})


def test_a_loop_that_ignores_a_pause_has_trained_what_it_trained(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path, num_epochs=2).start().steps(2)
    loop.reporter.stopping.take(StopRequest("interrupted", "paused"))
    loop.steps(2, score=0.1).end_epoch().steps(4, score=0.9).end_epoch()
    assert loop.reporter.ignored_pause(loop.state)
    ended = loop.end()
    assert (ended.epoch, ended.global_step, ended.metrics["score"], ended.notes) == (2, 8, 0.9, ())


@pytest.mark.parametrize("evaluates", [False, True])
def test_a_loop_by_epochs_alone_has_a_row_for_each_and_its_best_value(tmp_path: Path, evaluates: bool) -> None:
    loop = Loop("epoch", (1, 3), tmp_path)
    for score in (0.5, 0.9, 0.6, 0.6):
        if evaluates:
            loop.evaluate(score)
        loop.state.metrics["score"] = score
        loop.end_epoch()
    ended = loop.end()
    assert loop.decisions == [(1, 0.5, True), (3, 0.6, True)]
    assert [row.metrics["score"] for _, rows in loop.told for row in rows] == [0.5, 0.9, 0.6, 0.6]
    assert ended.best is not None
    assert (ended.best.value, ended.best.epoch, ended.epoch, ended.global_step) == (0.9, 2, 4, 4)


def test_a_loop_by_epochs_alone_may_count_its_steps_itself_and_resumes_where_it_was_saved(tmp_path: Path) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(20,))
    for assignment, before in ((None, 0), (resumed, 20)):
        loop = Loop("epoch", (), tmp_path, assignment=assignment, epoch=before // 10, global_step=before)
        for score in (0.5, 0.6):
            loop.state.global_step += 10
            loop.state.metrics["score"] = score
            loop.end_epoch()
        ended = loop.end()
        rows = [(row.global_step, row.metrics["score"]) for _, rows in loop.told for row in rows]
        assert rows == [(before + 10, 0.5), (before + 20, 0.6)]
        assert (ended.resumed_at, ended.epoch) == (before, before // 10 + 2)


def test_a_loop_by_epochs_alone_hears_of_a_stop_between_decisions(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path)
    loop.asked = StopRequest("the budget is spent")
    loop.end_epoch()
    assert loop.state.should_stop


def test_steps_that_only_evaluations_tell_of_have_rows(tmp_path: Path) -> None:
    loop = Loop("global_step", (20,), tmp_path).start()
    for step in (10, 20, 30):
        loop.state.global_step = step
        loop.evaluate(step / 100)
    assert loop.decisions == [(20, 0.2, True)]
    loop.end()
    assert [(row.global_step, row.metrics["score"]) for _, rows in loop.told for row in rows] == [
        (10, 0.1),
        (20, 0.2),
        (30, 0.3),
    ]


def test_a_loop_that_never_sets_the_epoch_is_told_at_its_second(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path).start().steps(4, score=0.1).end_epoch()
    loop.state.epoch = 0
    loop.steps(4)
    with pytest.raises(ValueError, match=r"state\.epoch 0, and that epoch had ended before: set state\.epoch"):
        loop.callbacks.fire("epoch_end", loop.state)


def test_a_loop_that_counts_epochs_from_one_is_told_at_its_first_step(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path, epoch=1)
    with pytest.raises(ValueError, match=r"the first step of all has state\.epoch 1"):
        loop.steps(1)


@pytest.mark.parametrize("steps", [[0], [1, 1], [2, 1]])
def test_a_loop_that_does_not_count_its_steps_is_told_at_once(tmp_path: Path, steps: list[int]) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    for step in steps[:-1]:
        loop.state.global_step = step
        loop.callbacks.fire("step_end", loop.state)
    loop.state.global_step = steps[-1]
    with pytest.raises(
        ValueError, match=rf"state\.global_step {steps[-1]} after step .*count each optimizer step"
    ):
        loop.callbacks.fire("step_end", loop.state)


def test_a_run_that_begins_within_another_is_refused_and_the_rows_of_that_stay(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    loop.steps(2, score=0.5)
    with pytest.raises(RuntimeError, match="train_start was fired after the first step"):
        loop.callbacks.fire("train_start", TrainState())
    assert [row.global_step for row in loop.reporter.untold.rows] == [1, 2]


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_loop_that_resumes_with_the_index_of_its_last_epoch_is_judged_as_one_with_their_number(
    tmp_path: Path, epoch: int
) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(12,), last_judged=3, judged_step=12)
    loop = Loop("epoch", (1, 3, 5), tmp_path, assignment=resumed, epoch=epoch, global_step=12).start()
    loop.state.epoch = 3
    loop.steps(4, score=0.4).end_epoch().steps(4, score=0.5).end_epoch()
    assert loop.decisions == [(5, 0.5, True)]


def test_a_loop_that_resumes_with_an_epoch_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(12,), last_judged=3, judged_step=12)
    loop = Loop("epoch", (1, 3, 5), tmp_path, assignment=resumed, global_step=12).start()
    with pytest.raises(
        ValueError, match=r"it resumes after step 12, where 3 epochs were finished, with state\.epoch 0"
    ):
        loop.steps(1)


def test_a_loop_that_is_restored_after_train_start_keeps_the_history_before(tmp_path: Path) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(4, 8))
    loop = Loop("epoch", (), tmp_path, assignment=resumed).start()
    loop.state.epoch, loop.state.global_step = 2, 8
    ended = loop.steps(4).end_epoch().end()
    assert (ended.resumed_at, ended.epoch) == (8, 3)


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
