"""The contract suite of trackers."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from xaytune.errors import SpecError
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

__all__ = ["TrackerContract"]

# What a configuration and metrics may hold.
_CONFIG = {
    "lr": 0.1,
    "net.width": 8,
    "optimizer": "sgd",
    "amp": True,
    "momentum": None,
    "top": math.inf,
    "é": [1, 2],
}


class TrackerContract(ABC):
    """What every tracker does; override :meth:`make_tracker` and :meth:`logged`."""

    @abstractmethod
    def make_tracker(self) -> Tracker:
        """Returns a new tracker; a second one finds what the first has kept."""

    @abstractmethod
    def logged(self, trial: TrackedTrial) -> Mapping[str, Sequence[tuple[int, float]]]:
        """Returns what was kept of a trial, once its tracker was closed: steps and values by metric."""

    def trial(self, folder: Path, number: int = 0, attempt: int = 0) -> TrackedTrial:
        """Returns a trial of a sweep in a folder."""
        id = f"{folder.name}-{number:05d}"
        return TrackedTrial(
            sweep=folder.name, id=id, number=number, attempt=attempt, config=_CONFIG, folder=folder
        )

    def track(self, trial: TrackedTrial, steps: Sequence[int], status: str = "completed") -> None:
        """Lets a tracker have a trial from its beginning to its end: the loss at each step is its inverse."""
        tracker = self.make_tracker()
        tracker.begin(trial.sweep)
        tracker.open(trial)
        half = len(steps) // 2
        for some in (steps[:half], [], steps[half:]):
            tracker.log([Point(step, 1e9 + step, {"loss": 1 / step, "eval/acc": float(step)}) for step in some])
        tracker.close(status, "in words", 0.5)

    def test_every_metric_is_kept_with_its_step(self, tmp_path: Path) -> None:
        self.track(self.trial(tmp_path), range(1, 8))
        kept = self.logged(self.trial(tmp_path))
        assert list(kept["eval/acc"]) == [(step, float(step)) for step in range(1, 8)]
        assert [step for step, _ in kept["loss"]] == list(range(1, 8))
        assert [value for _, value in kept["loss"]] == pytest.approx([1 / step for step in range(1, 8)])

    def test_each_trial_is_a_run_of_its_own(self, tmp_path: Path) -> None:
        for number, steps in enumerate(([1, 2], [3])):
            self.track(self.trial(tmp_path, number), steps)
        assert [step for step, _ in self.logged(self.trial(tmp_path, 0))["loss"]] == [1, 2]
        assert [step for step, _ in self.logged(self.trial(tmp_path, 1))["loss"]] == [3]

    def test_a_trial_that_resumes_continues_its_run(self, tmp_path: Path) -> None:
        self.track(self.trial(tmp_path), [1, 2, 3], "paused")
        self.track(self.trial(tmp_path, attempt=1), [4, 5])
        assert [step for step, _ in self.logged(self.trial(tmp_path))["loss"]] == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize("status", ["completed", "stopped", "failed"])
    def test_a_run_may_end_in_every_way_and_without_a_metric(self, tmp_path: Path, status: str) -> None:
        self.track(self.trial(tmp_path), [], status)
        assert not self.logged(self.trial(tmp_path)).get("loss")

    def test_values_that_are_not_finite_are_taken(self, tmp_path: Path) -> None:
        tracker = self.make_tracker()
        tracker.begin(tmp_path.name)
        tracker.open(self.trial(tmp_path))
        tracker.log([Point(1, 1e9, {"loss": math.nan, "grad_norm": math.inf}), Point(2, 1e9, {"loss": 0.5})])
        tracker.close("failed", None, None)
        assert (2, 0.5) in self.logged(self.trial(tmp_path))["loss"]

    def test_an_option_that_it_does_not_have_is_refused(self) -> None:
        tracker: type[Any] = type(self.make_tracker())
        with pytest.raises(SpecError, match="unknown option 'there_is_no_such_option'"):
            tracker(there_is_no_such_option=1)
