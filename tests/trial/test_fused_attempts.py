"""What an actor hears of the process of many trials."""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.trial.conftest import Node, is_gone
from xaytune.messages import Assignment, DecisionDue, Ended, Heartbeat, Message, Started, StopRequest
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trial.client.fused_attempts import FusedTrials
from xaytune.trial.common.output import file_of

pytestmark = pytest.mark.slow


def test_a_process_that_dies_with_something_unheard_is_heard_and_then_told_as_lost(tmp_path: Path) -> None:
    node = Node(tmp_path, points=DecisionPoints(milestones=(1, 2)))
    try:
        trials = FusedTrials(node.template, node.task, dict(os.environ))
        trials.assign(Assignment(trial=0, seed=7, config={}))
        (started,) = trials.next_messages(60)
        assert isinstance(started, Started)
        readable = select.poll()
        readable.register(trials._process._channel, select.POLLIN)
        assert readable.poll(60_000), "the trial asks for a decision"
        os.kill(trials.pid, signal.SIGKILL)
        deadline = time.monotonic() + 10
        while not is_gone(trials.pid) and time.monotonic() < deadline:
            time.sleep(0.01)
        heard: list[Message] = []
        while not any(isinstance(message, Ended) for message in heard) and time.monotonic() < deadline:
            heard += trials.next_messages(0.2)
        assert any(isinstance(message, DecisionDue) for message in heard)
        last = heard[-1]
        assert isinstance(last, Ended)
        assert last.failure is not None
        assert "killed by SIGKILL" in last.failure.error
        trials.close()
    finally:
        node.template.end()


def test_a_trial_trains_while_recipes_begin_and_each_is_told_as_begun_when_it_does(
    node: Node, tmp_path: Path
) -> None:
    recipe = "tests.trial.recipes:trains_after_a_while"
    task = dataclasses.replace(node.task, recipe=recipe, sweep_dir=str(tmp_path))
    trials = FusedTrials(node.template, task, dict(os.environ))
    for trial in range(2):
        trials.assign(Assignment(trial=trial, seed=7, config={}))
    heard: list[Message] = []
    deadline = time.monotonic() + 60
    while sum(isinstance(message, Ended) for message in heard) < 2 and time.monotonic() < deadline:
        heard += trials.next_messages(0.2)
    assert [message.pid for message in heard if isinstance(message, Started)] == [trials.pid] * 2
    assert (tmp_path / file_of(1)).read_text() == "{0}\n"
    trials.close()


def test_a_setting_of_torch_that_one_recipe_changes_is_its_own_and_told_before_trials_end(
    node: Node, tmp_path: Path
) -> None:
    recipe, points = "tests.trial.recipes:changes_the_default_dtype", DecisionPoints(milestones=(2, 4))
    task = dataclasses.replace(node.task, points=points, recipe=recipe, sweep_dir=str(tmp_path))
    trials = FusedTrials(node.template, task, dict(os.environ))
    for trial in range(6):
        trials.assign(Assignment(trial=trial, seed=7, config={}))
    heard: list[Message] = []
    deadline = time.monotonic() + 60
    while sum(isinstance(message, Ended) for message in heard) < 6 and time.monotonic() < deadline:
        heard += trials.next_messages(0.2)
    ends = {message.trial: message for message in heard if isinstance(message, Ended)}
    assert [ends[trial].status for trial in range(6)] == ["completed"] * 6
    assert [ends[trial].fused > 0 for trial in range(6)] == [False] + [True] * 5
    told = [note for message in heard if not isinstance(message, Ended) for note in message.notes]
    assert "fused: trained alone: its recipe changes a setting of torch for the whole process" in told
    assert not [note for message in heard for note in message.notes if "loss or gradients" in note]
    trials.close()


def test_a_loop_of_its_own_tells_how_far_it_is_and_follows_a_request_to_stop(node: Node, tmp_path: Path) -> None:
    recipe = "tests.trial.recipes:loops_until_stopped"
    trials = FusedTrials(
        node.template, dataclasses.replace(node.task, recipe=recipe, sweep_dir=str(tmp_path)), dict(os.environ)
    )
    for trial in range(2):
        trials.assign(Assignment(trial=trial, seed=7, config={}))
    heard: list[Message] = []
    deadline = time.monotonic() + 30
    while sum(isinstance(message, Ended) for message in heard) < 2 and time.monotonic() < deadline:
        new = trials.next_messages(0.2)
        for trial in {message.trial for message in new if isinstance(message, Heartbeat)}:
            trials.request_stop(trial, StopRequest("enough"))
        heard += new
    ends = [message for message in heard if isinstance(message, Ended)]
    assert [(end.trial, end.status, end.reason) for end in ends] == [
        (trial, "stopped", "enough") for trial in (0, 1)
    ]
    trials.close()


def test_a_request_to_stop_is_of_the_attempt_that_was_assigned_before_it(node: Node, tmp_path: Path) -> None:
    recipe, points = "tests.trial.recipes:is_judged_beside_a_loop", DecisionPoints(milestones=(1,))
    task = dataclasses.replace(node.task, points=points, recipe=recipe, sweep_dir=str(tmp_path))
    trials = FusedTrials(node.template, task, dict(os.environ))
    for trial in range(2):
        trials.assign(Assignment(trial=trial, seed=7, config={}))
    deadline = time.monotonic() + 30
    while not (tmp_path / "loops").exists() and time.monotonic() < deadline:  # the other one waits by then
        time.sleep(0.01)
    trials.release(0)
    trials.assign(Assignment(trial=0, seed=7, config={}, attempt=1))
    trials.request_stop(0, StopRequest("budget spent"))
    trials.request_stop(1, StopRequest("enough"))
    heard: list[Message] = []
    while sum(isinstance(message, Ended) for message in heard) < 2 and time.monotonic() < deadline:
        heard += trials.next_messages(0.2)
    ends = {message.trial: message for message in heard if isinstance(message, Ended)}
    assert (ends[0].attempt, ends[0].status, ends[0].reason) == (1, "stopped", "budget spent")
    trials.close()
