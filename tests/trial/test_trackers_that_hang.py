"""Trackers never hold up or fail a trial."""

from __future__ import annotations

import math
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from xaytune.errors import SpecError
from xaytune.records.history import Row
from xaytune.sweep.options import TrackerSpec
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.own import OwnLoop
from xaytune.trial.trackers import tracking
from xaytune.trial.trackers.calling import Caller, check_server
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

HANGS = threading.Event()  # never set


class Hanging(Tracker):
    """A tracker of a server that has gone: it does not answer any more, from its opening or from its first log."""

    def __init__(self, at: str) -> None:
        self.taken: list[Point] = []
        self._at = at

    def open(self, trial: TrackedTrial) -> None:
        if self._at == "open":
            HANGS.wait()

    def log(self, points: Sequence[Point]) -> None:
        if self._at == "log":
            HANGS.wait()
        self.taken += points

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        if self._at == "close":
            HANGS.wait()


@pytest.fixture
def silent_server() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.mark.parametrize("at", ["open", "log", "close"])
def test_a_tracker_that_hangs_is_given_up_in_the_time_that_is_set_and_the_trial_trains_on(
    at: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = {"mlflow": Hanging(at), "wandb": Hanging("never")}
    monkeypatch.setattr(tracking, "made", lambda spec: made[spec.name])
    notes: list[str] = []
    trial = TrackedTrial(sweep="s", id="s-0", number=0, attempt=0, config={}, folder=tmp_path)
    given = tracking.Tracking([TrackerSpec(tracker=name) for name in made], trial, 0.2, notes.append)
    loop, state = OwnLoop(), TrainState()
    rows: list[Row] = []
    given.attach(loop, lambda: rows[-1], lambda: False)
    for step in range(1, 4):
        state.global_step = step
        rows.append(Row(0, step, step, {"loss": 1.0}))
        loop.callbacks.fire("step_end", state)
        loop.callbacks.fire("epoch_end", state)
    given.close("completed", None, 1.0)
    assert notes == ["mlflow is given up by a trial, which trains on: TimeoutError, see its output"]
    assert [point.global_step for point in made["wandb"].taken] == [1, 2, 3]


def test_a_tracker_may_be_waited_for_without_end() -> None:
    caller = Caller(math.inf)
    assert caller.call(lambda: "answered") == "answered"
    caller.end()


def test_a_server_that_cannot_be_reached_is_told_when_the_sweep_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", url)
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(SpecError, match=rf"trackers\.0: wandb: {url} cannot be reached: .*refused"):
        tracking.begin([TrackerSpec(tracker="wandb")], "sweep")


@pytest.mark.slow
def test_a_server_that_is_silent_is_told_within_ten_seconds(silent_server: str) -> None:
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"cannot be reached: .*timed out"):
        check_server(silent_server)
    assert time.monotonic() - begun < 10


def test_no_thread_of_a_tracker_outlives_its_trial(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    trial = TrackedTrial(sweep="s", id="s-0", number=0, attempt=0, config={}, folder=tmp_path)
    given = tracking.Tracking([TrackerSpec(tracker="tensorboard")], trial, 30.0)
    callers = set(threading.enumerate()) - before
    assert callers
    given.close("completed", None, 0.5)
    for thread in callers:
        thread.join(30)
        assert not thread.is_alive()
