"""What a trial tells of itself: each row once, its best value, and only what counts."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trial.reported_loop import Loop
from xaytune.messages import Assignment, StopRequest


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
        seen.append(loop.reporter.unreported.rows[-1].metrics["running"])
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


def test_a_metric_that_evaluations_do_not_give_is_told_after_the_first_epoch_that_has_one(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path, heartbeat_s=0).start()
    loop.steps(2, loss=1.0).end_epoch()
    assert not any(message.notes for message, _ in loop.told)
    loop.steps(2, loss=1.0).evaluate(0.5, "scores").end_epoch().steps(1)
    assert [note for message, _ in loop.told for note in message.notes] == [
        "an epoch was evaluated, and 'score' is not among its metrics; did you mean 'scores'?"
    ]


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


def test_a_heartbeat_at_the_end_of_an_epoch_tells_epochs_and_metrics_of_the_same_step(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path, heartbeat_s=0).start()
    told = []
    for epoch in range(1, 4):
        loop.busy = True
        loop.steps(4).evaluate(float(epoch))
        loop.reporter._next_look, loop.busy = 0.0, False
        loop.end_epoch()
        told.append((loop.told[-1][0].epoch, loop.told[-1][0].metrics.get("score")))
    assert told == [(0, None), (1, 1.0), (2, 2.0)]


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


def test_a_run_that_begins_again_below_a_checkpoint_tells_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints" / "00000"
    folder.mkdir(parents=True)
    (folder / "step-00000008.pt").touch()
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(8,))
    loop = Loop("epoch", (), tmp_path, assignment=resumed).start().steps(3)
    (folder / "step-00000003.pt").touch()
    loop.callbacks.fire("checkpoint_saved", loop.state)
    assert loop.end().checkpoints == {3: "checkpoints/00000/step-00000003.pt"}


@pytest.mark.parametrize("saves", ["before epoch_end", "after epoch_end"])
def test_a_checkpoint_of_an_epoch_of_one_step_is_told_before_the_next_step(tmp_path: Path, saves: str) -> None:
    folder = tmp_path / "checkpoints" / "00000"
    folder.mkdir(parents=True)
    loop = Loop("epoch", (), tmp_path).start().steps(1, score=0.5)

    def save() -> None:
        (folder / "step-00000001.pt").touch()
        loop.callbacks.fire("checkpoint_saved", loop.state)

    if saves == "before epoch_end":
        save()
    loop.callbacks.fire("epoch_end", loop.state)
    if saves == "after epoch_end":
        save()
    message, rows = loop.told[-1]
    assert (list(message.checkpoints), [row.global_step for row in rows]) == ([1], [1])
    loop.evaluate(0.9).steps(1)
    ended = loop.end()
    _, rows = loop.told[-1]
    assert [(row.global_step, row.metrics["score"]) for row in rows] == [(1, 0.9), (2, 0.9)]
    assert ended.resumed_at == 0, "what was told of step 1 counts no more"


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


def test_the_row_of_a_step_that_is_evaluated_where_the_run_resumes_has_that_evaluation(tmp_path: Path) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(12,))
    loop = Loop("epoch", (), tmp_path, assignment=resumed, epoch=2, step=4, global_step=12, metrics={"loss": 0.5})
    ended = loop.start().evaluate(0.7).end_epoch().steps(2, loss=0.4).end()
    rows = [row for _, told in loop.told for row in told]
    assert [(row.global_step, row.metrics["loss"], row.metrics["score"]) for row in rows] == [
        (12, 0.5, 0.7),
        (13, 0.4, 0.7),
        (14, 0.4, 0.7),
    ]
    assert ended.resumed_at == 11, "the row that the attempt before has told of step 12 counts no more"
