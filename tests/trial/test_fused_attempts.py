"""What an actor hears of the process of many trials."""

from __future__ import annotations

import os
import select
import signal
import time
from pathlib import Path

import pytest

from tests.trial.conftest import Node, is_gone
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trial.fused_attempts import FusedTrials
from xaytune.trial.messages import Assignment, DecisionDue, Ended, Message

pytestmark = pytest.mark.slow


def test_a_process_that_dies_with_something_unheard_is_heard_and_then_told_as_lost(tmp_path: Path) -> None:
    node = Node(tmp_path, points=DecisionPoints(milestones=(1, 2)))
    try:
        trials = FusedTrials(node.template, node.task, dict(os.environ))
        trials.assign(Assignment(trial=0, seed=7, config={}))
        readable = select.poll()
        readable.register(trials._channel, select.POLLIN)
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
