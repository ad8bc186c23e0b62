"""What a trial and its actor say to each other: decisions, stops and pauses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.trial.conftest import Node, finish, is_gone
from xaytune.messages import DecisionDue, Heartbeat, Progress, StopRequest
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis

pytestmark = pytest.mark.slow

BY_STEP = DecisionPoints(TimeAxis("global_step"), (2, 4))


def rows_of(messages: list[Progress]) -> list[int]:
    steps = []
    for message in messages:
        if message.history is not None:
            steps += pa.ipc.open_stream(message.history).read_all()["global_step"].to_pylist()
    return steps


def test_a_trial_that_is_stopped_at_a_decision_trains_no_further_step(node: Node, tmp_path: Path) -> None:
    outcome = node.train(
        tmp_path, points=BY_STEP, answer=lambda message: StopRequest("weak"), recipe="scores_steps"
    )
    asked = [message for message in outcome.messages if isinstance(message, DecisionDue)]
    assert [(message.global_step, message.due) for message in asked] == [(2, True)]
    assert (outcome.ended.status, outcome.ended.reason, outcome.ended.global_step) == ("stopped", "weak", 2)


def test_every_step_is_told_once(node: Node, tmp_path: Path) -> None:
    outcome = node.train(tmp_path, points=BY_STEP, recipe="scores_steps")
    told = [message for message in outcome.messages if isinstance(message, Progress)]
    assert rows_of(told) == list(range(1, 7))
    assert outcome.ended.best is not None
    assert (outcome.ended.best.value, outcome.ended.best.global_step) == (6.0, 6)


def test_a_stop_between_two_decisions_gets_to_a_trial_that_trains(node: Node, tmp_path: Path) -> None:
    process = node.begin(tmp_path, "waits")
    process.next_message(0.5)
    process.request_stop(StopRequest("the budget is spent"))
    ended = finish(process, tmp_path).ended
    assert (ended.status, ended.reason) == ("stopped", "the budget is spent")


def test_a_trial_that_is_paused_fires_no_end_and_resumes_as_another_process(node: Node, tmp_path: Path) -> None:
    points = DecisionPoints(milestones=(1, 2), pausing=True)
    pause = StopRequest("makes room", "paused")
    first = node.train(tmp_path, "saves", points=points, answer=lambda message: pause)
    assert (first.ended.status, first.ended.reason, first.ended.epoch) == ("paused", "makes room", 1)
    assert first.output == "finally\n"
    decision = next(message for message in first.messages if isinstance(message, DecisionDue))
    assert decision.checkpoints == {1: "checkpoints/00000/step-00000001.pt"}
    attempt: dict[str, Any] = {"attempt": 1, "checkpoints": (1,), "last_judged": 1, "judged_step": 2}
    second = node.train(tmp_path, "saves", points=points, **attempt)
    assert second.ended.status == "completed"
    assert second.output.endswith("train_end\nfinally\n")
    assert second.pid != first.pid
    assert "has a checkpoint began again from its first step" in second.output  # that recipe does not load it


def test_a_trial_that_was_stopped_while_it_was_paused_ends_at_once(node: Node, tmp_path: Path) -> None:
    ended = node.train(tmp_path, stop=StopRequest("weak")).ended
    assert (ended.status, ended.reason) == ("stopped", "weak")


def test_closing_a_trial_that_waits_pauses_it(node: Node, tmp_path: Path) -> None:
    process = node.begin(tmp_path, "saves", points=DecisionPoints(milestones=(1,), pausing=True))
    while not isinstance(process.next_message(10), DecisionDue):
        pass
    process.close()
    assert is_gone(process.pid)
    assert (tmp_path / "output" / "00000.txt").read_text() == "finally\n"


def test_a_heartbeat_of_the_training_says_how_far_it_is(node: Node, tmp_path: Path) -> None:
    process = node.begin(tmp_path, "waits", heartbeat_s=0.05)
    heard = [process.next_message(10) for _ in range(3)]
    steps = [message.global_step for message in heard if isinstance(message, Heartbeat)]
    assert steps == sorted(set(steps))
    assert len(steps) == 3
    process.close()


def test_what_was_trained_is_told_before_threads_of_the_recipe_are_waited_for(node: Node, tmp_path: Path) -> None:
    process = node.begin(tmp_path, "writes_in_threads", {"until": "told"})
    rows: list[int] = []
    while 6 not in rows:
        told = process.next_message(10)
        assert isinstance(told, Heartbeat)
        rows += rows_of([told])
    (tmp_path / "told").touch()
    ended = finish(process, tmp_path).ended
    assert (ended.status, ended.global_step, ended.metrics["score"]) == ("completed", 6, 3.0)
    assert ended.history is None


@pytest.fixture
def spawning(new_node: Callable[..., Node], monkeypatch: pytest.MonkeyPatch) -> Node:
    """A node where trials are not forked."""
    monkeypatch.setenv("XAYTUNE_START_METHOD", "spawn")
    return new_node()


def test_where_nothing_can_be_forked_the_same_is_promised(spawning: Node, tmp_path: Path) -> None:
    polluted, clean = (spawning.train(tmp_path, "pollute", trial=number) for number in range(2))
    assert clean.output.splitlines()[0] == polluted.output.splitlines()[0]
    process = spawning.begin(tmp_path, "leaves_children", {"hangs": True})
    while not (tmp_path / "hangs").exists():
        process.next_message(0.1)
    spawning.template.close()
    left = [int(pid) for pid in (tmp_path / "children").read_text().split()]
    assert all(is_gone(pid) for pid in (process.pid, *left))
