"""A sampler, a scheduler and a search method as a user may write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import Field

from xaytune.search.extension import Extension
from xaytune.search.method import Action, Done, End, NewTrial, Next, Result, SearchMethod, Stop
from xaytune.search.samplers.sampler import Sampler
from xaytune.search.schedulers.asha import AshaScheduler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.algorithms import Options
from xaytune.sweep.time_axis import DecisionPoints


class KeepOptions(Options):
    keep: int = Field(default=1, ge=1)
    at: int = 3


class KeepTheFirst(Scheduler):
    """Stops all but the first trials at one time."""

    options_model = KeepOptions
    options: KeepOptions

    @property
    def points(self) -> DecisionPoints:
        return DecisionPoints(milestones=(self.options.at,))

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        if trial >= self.options.keep:
            return [Stop(trial=trial, reason=f"only {self.options.keep} trials are kept")]
        return self.keep_training(trial, "it is kept")


class KindAsha(AshaScheduler):
    """As the one that is built in."""


class Middle(Sampler):
    """Draws at random, but for numbers the middle of their domain."""

    adaptive: ClassVar[bool] = False

    def ask(self, trial: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        return self.setting.space.configure(lambda p: fixed.get(p.name, 0.5))


class OneTrial(Extension, SearchMethod):
    """Tries one configuration."""

    options_model = KeepOptions
    points = DecisionPoints(milestones=())

    def setup(self) -> None:
        self.begun = False

    def next(self) -> Next:
        if self.begun:
            return Done()
        self.begun = True
        return NewTrial({"x": 0.5})

    def adopt(self, config: Mapping[str, Any]) -> None:
        self.begun = True

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        return []

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        return []


class NoExtension:
    """Cannot be named in a spec."""
