"""What every executor does: whatever trains the trials, a sweep whose decisions are scripted is the same."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from xaytune.records.journal import FILE_NAME, Event, read_events
from xaytune.search.extension import Extension
from xaytune.search.method import (
    Action,
    Continue,
    Done,
    End,
    NewTrial,
    Next,
    Pause,
    Result,
    Resume,
    SearchMethod,
    Wait,
)
from xaytune.search.method import Stop as StopTrial
from xaytune.sweep.algorithms import Options
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.time_axis import DecisionPoints
from xaytune.trial.run.trial import Trial

EPOCHS, WORKERS = 4, 2
_TRAINS, _STOPS, _RESUMES, _STOPS_WHILE_PAUSED, _DIVERGES = range(5)


def value(trial: int, epoch: int) -> float:
    """What a trial is worth after so many epochs."""
    return math.nan if trial == _DIVERGES and epoch == 2 else trial + epoch / 10


def train(config: Mapping[str, Any], trial: Trial) -> None:
    """A recipe of four epochs of a step."""
    trial.keep(model=torch.nn.Linear(1, 1))
    for epoch in trial.epochs(EPOCHS):
        trial.log(loss=1.0)
        trial.report(m=value(config["number"], epoch + 1))


class Scripted(Extension, SearchMethod):
    """Decides on each trial what its number stands for."""

    options_model = Options
    points = DecisionPoints(milestones=(1, 3), pausing=True)

    def setup(self) -> None:
        """Begins without trials."""
        self._begun = 0
        self._paused: set[int] = set()
        self._ended: set[int] = set()

    def next(self) -> Next:
        if self._begun < _DIVERGES or (self._begun == _DIVERGES and _STOPS_WHILE_PAUSED in self._paused):
            config = {"number": self._begun}
            self._begun += 1
            return NewTrial(config)
        if _RESUMES in self._paused and _DIVERGES in self._ended:
            return Resume(_RESUMES)
        return Done() if len(self._ended) > _DIVERGES else Wait()

    def adopt(self, config: Mapping[str, Any]) -> None:
        self._begun += 1

    def on_resume(self, trial: int) -> None:
        self._paused.discard(trial)

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        if trial == _STOPS or result.value is None:
            return [StopTrial(trial=trial, reason="weak")]
        if trial in (_RESUMES, _STOPS_WHILE_PAUSED) and result.time == 1:
            self._paused.add(trial)
            return [Pause(trial=trial, reason="waits")]
        if trial == _RESUMES:
            return [StopTrial(trial=trial, reason="enough", status="completed")]
        return [Continue(trial=trial, reason="strong")]

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        self._ended.add(trial)
        return [StopTrial(trial=_STOPS_WHILE_PAUSED, reason="late")] if trial == _DIVERGES else []


# What the journal tells of each trial: events with their epochs, and what was decided, or how it ended.
_BEGINS = [("trial", None, None), ("start", None, None)]
STORIES: dict[int, list[tuple[Any, ...]]] = {
    _TRAINS: [
        *_BEGINS,
        ("result", 1, 0.1),
        ("verdict", 1, "continue"),
        ("result", 3, 0.3),
        ("verdict", 3, "continue"),
        ("end", 4, ("completed", None)),
    ],
    _STOPS: [
        *_BEGINS,
        ("result", 1, 1.1),
        ("verdict", 1, "stop"),
        ("stop", None, "weak"),
        ("end", 1, ("stopped", "weak")),
    ],
    _RESUMES: [
        *_BEGINS,
        ("result", 1, 2.1),
        ("verdict", 1, "pause"),
        ("pause", None, "waits"),
        ("start", None, None),
        ("result", 3, 2.3),
        ("verdict", 3, "stop"),
        ("stop", None, "enough"),
        ("end", 3, ("completed", "enough")),
    ],
    _STOPS_WHILE_PAUSED: [
        *_BEGINS,
        ("result", 1, 3.1),
        ("verdict", 1, "pause"),
        ("pause", None, "waits"),
        ("stop", None, "late"),
        ("start", None, None),
        ("end", 1, ("stopped", "late")),
    ],
    _DIVERGES: [
        *_BEGINS,
        ("result", 1, 4.1),
        ("verdict", 1, "continue"),
        ("result", 2, None),
        ("verdict", 2, "stop"),
        ("stop", None, "weak"),
        ("end", 2, ("stopped", "weak")),
    ],
}


class ExecutorContract(ABC):
    """Inherited by a class for each executor; override :meth:`execute`."""

    workers = WORKERS

    @abstractmethod
    def execute(self, spec: SweepSpec, folder: Path) -> None:
        """Runs a sweep, so many trials at once, in a folder."""

    @pytest.fixture(scope="class")
    def events(self, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Event]:
        """The journal of the sweep."""
        folder = tmp_path_factory.mktemp("executed") / "sweep"
        method = f"{__name__}:{Scripted.__name__}"
        spec = {"recipe": f"{__name__}:train", "metric": "m", "mode": "max", "num_samples": 5}
        space = {"number": {"randint": [0, 5]}}
        limits = {"max_concurrent_trials": self.workers, "resources_per_trial": {"cpu": 1}}
        self.execute(
            SweepSpec.parse({**spec, **limits, "space": space, "scheduler": {"algorithm": method}}), folder
        )
        return list(read_events(folder / FILE_NAME))

    @pytest.mark.parametrize("trial", STORIES)
    def test_each_trial_has_its_story(self, events: list[Event], trial: int) -> None:
        assert [_told(event) for event in events if _is_of(event, trial)] == STORIES[trial]

    def test_a_trial_continues_from_where_it_was_paused(self, events: list[Event]) -> None:
        attempts = [e["attempt"] for e in events if e["event"] == "start" and e["trial"] == _RESUMES]
        assert attempts == [0, 1]
        (end,) = (event for event in events if event["event"] == "end" and event["trial"] == _RESUMES)
        assert end["global_step"] == 3

    def test_no_more_trials_run_at_once_than_there_is_room_for(self, events: list[Event]) -> None:
        running: set[int] = set()
        for event in events:
            if event["event"] == "start":
                running.add(event["trial"])
                assert len(running) <= self.workers
            elif event["event"] in ("end", "pause"):
                running.discard(event["trial"])
        assert not running

    def test_the_sweep_is_completed_when_no_trial_is_left(self, events: list[Event]) -> None:
        assert (events[-1]["event"], events[-1]["state"]) == ("sweep", "completed")


def _is_of(event: Event, trial: int) -> bool:
    """Whether an event is one of a trial's story: checkpoints and progress come when they come."""
    return event.get("trial") == trial and event["event"] in (
        *("trial", "start", "result", "verdict", "pause", "stop", "end"),
    )


def _told(event: Event) -> tuple[Any, ...]:
    name = event["event"]
    if name == "result":
        return name, event["epoch"], event["value"]
    if name == "verdict":
        return name, event["epoch"], event["decision"]
    if name == "end":
        return name, event["epoch"], (event["status"], event["reason"])
    return name, None, event.get("reason")
