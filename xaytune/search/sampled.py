"""The search method made of a sampler, which draws configurations, and a scheduler, which judges trials."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from xaytune.search.configurations import configuration_key, distance, draw_configuration, seeded
from xaytune.search.extension import Setting
from xaytune.search.method import (
    Action,
    Decision,
    Done,
    End,
    NewTrial,
    Next,
    Result,
    Resume,
    SearchMethod,
    Stop,
    Wait,
)
from xaytune.search.samplers.sampler import Outcome, Sampler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.space import Space, nest

# How often a sampler draws anew what was tried before.
_REDRAWS = 3
# How many points are drawn at random then, of which the nearest is taken.
_RANDOM_DRAWS = 200


class SampledMethod(SearchMethod):
    """Asks a sampler for configurations and a scheduler for decisions.

    First come the setting's points to evaluate. No configuration is drawn that was tried before: a space of
    discrete parameters may be used up. A grid, and the points to evaluate, are taken as they are.

    Args:
        setting: The sweep.
        sampler: Draws configurations.
        scheduler: Judges trials.

    Raises:
        SpecError: One of them cannot work in this sweep.
    """

    def __init__(self, setting: Setting, sampler: Sampler, scheduler: Scheduler) -> None:
        space = setting.space
        gridded = tuple(p for p in space.parameters if sampler.every_combination or p.domain.gridded)
        self._given = setting.points_to_evaluate
        self._grid = _combinations(space, gridded, self._given)
        self._taken_as_given = len(gridded) == len(space.parameters)
        counted = all(p.domain.values() is not None for p in space.parameters)
        self._space, self._seed, self._planned = space, setting.seed, setting.num_trials
        # Configurations that were not tried, and repeats of given ones; None where they cannot be counted, or all
        # may be tried again.
        self._untried: int | None = None
        if counted and not self._taken_as_given:
            repeated = len(self._given) - len(set(map(self._key, self._given)))
            self._untried = space.grid(space.parameters).size + repeated
        self._sampler, self._scheduler = sampler, scheduler
        self._tried: set[int] = set()
        self._values: dict[int, dict[int, float]] = {}  # of the trials that have not ended, by time
        self._diverged: set[int] = set()
        self._asked = 0
        # A population is as large as it can be: one that waited for more would wait for ever.
        setting = dataclasses.replace(setting, num_trials=self.num_trials)
        sampler.begin(setting)
        scheduler.begin(setting)
        self.points = scheduler.points
        self.adaptive = sampler.adaptive

    @property
    def num_trials(self) -> int | None:
        """Trials that there will be, fewer than the spec's where the space is used up; None without a limit."""
        if self._untried is None:
            return self._planned
        possible = self._asked + self._untried
        return possible if self._planned is None else min(self._planned, possible)

    def next(self) -> Next:
        """Says what a free worker is to do; see :meth:`SearchMethod.next`."""
        more = self._asked != self.num_trials
        resumed = self._scheduler.next_to_resume(new_possible=more)
        if resumed is not None:
            return Resume(resumed)
        if more:
            return NewTrial(self._new())
        if self.points.pausing and self._values:
            return Wait()
        if self._untried == 0 and self._asked != self._planned:
            return Done(f"the space is used up: all of its {len(self._tried)} configurations were tried")
        return Done()

    def adopt(self, config: Mapping[str, Any]) -> None:
        """Begins a trial that a journal tells of."""
        self._new(config)

    def _new(self, known: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Begins a trial, with a known configuration where there is one."""
        trial = self._asked
        if trial < len(self._given):
            config = dict(known if known is not None else self._given[trial])
            self._sampler.adopt(trial, config)
        else:
            config = self._draw(trial)
            if known is not None and self._key(known) != self._key(config):
                self._sampler.adopt(trial, known)
            config = dict(known) if known is not None else config
        self._asked += 1
        key = self._key(config)
        if self._untried is not None and (trial < len(self._given) or key not in self._tried):
            self._untried -= 1
        self._tried.add(key)
        self._values[trial] = {}
        self._scheduler.on_add(trial, config)
        return config

    def _draw(self, trial: int) -> dict[str, Any]:
        fixed = next(self._grid)
        config = self._sampler.ask(trial, fixed)
        if self._taken_as_given:
            return config
        for _ in range(_REDRAWS):
            if self._key(config) not in self._tried:
                return config
            config = self._sampler.ask(trial, fixed)
        config = self._untried_near(config, trial, fixed)
        self._sampler.adopt(trial, config)
        return config

    def _untried_near(self, config: dict[str, Any], trial: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Finds a configuration that was not tried, near one that was; that one where there is none any more."""
        if self._untried == 0:
            return config
        rng = seeded(self._seed, trial, -1)
        drawn = [draw_configuration(self._space, rng, fixed) for _ in range(_RANDOM_DRAWS)]
        untried = [other for other in drawn if self._key(other) not in self._tried]
        if untried:
            return min(untried, key=lambda other: distance(self._space, config, other))
        if self._untried is None:
            return config
        grid = map(self._at, self._space.grid(self._space.parameters))
        return next((other for other in grid if self._key(other) not in self._tried), config)

    def _at(self, point: Mapping[str, Any]) -> dict[str, Any]:
        return self._space.configure(lambda parameter: point[parameter.name])

    def _key(self, config: Mapping[str, Any]) -> int:
        return configuration_key(self._space, config)

    def on_resume(self, trial: int) -> None:
        """Learns that a paused trial trains again."""
        self._scheduler.on_resume(trial)

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Judges a trial; one whose metric is not finite stops."""
        if result.value is None:
            self._diverged.add(trial)
            reason = (
                f"diverged: {self._scheduler.objective.metric} is not finite at {self.points.axis.at(result.time)}"
            )
            return [Stop(trial=trial, reason=reason), *self._scheduler.on_diverged(trial, result)]
        if trial in self._values:
            self._values[trial][result.time] = result.value
        return self._scheduler.on_result(trial, result)

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Tells the sampler and the scheduler that a trial has ended."""
        intermediate = self._values.pop(trial, None)
        if intermediate is not None:  # else it ended before, and was continued
            status = "diverged" if trial in self._diverged else end.status
            self._sampler.tell(trial, Outcome(status, end.best, intermediate))
        return self._scheduler.on_end(trial, end)

    def recall(self, decision: Decision) -> None:
        """Lets the scheduler know what was decided in fact."""
        self._scheduler.recall(decision)

    def fall_back(self, reason: str) -> None:
        """Lets the sampler draw, and the scheduler decide, by what is cheaper."""
        self._sampler.fall_back()
        self._scheduler.fall_back()


def _combinations(
    space: Space, gridded: tuple[Parameter, ...], tried: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields every combination of the gridded parameters, by name, again and again.

    Each configuration that is tried before them stands for a combination, which is left out once.
    """
    names = {parameter.name for parameter in gridded}
    left_out = Counter(
        configuration_key(
            space, nest({name: value for name, value in space.values(config).items() if name in names})
        )
        for config in tried
    )
    while True:
        for point in space.grid(gridded):
            key = configuration_key(space, nest(point)) if left_out else 0
            if left_out[key] > 0:
                left_out -= Counter([key])
            else:
                yield point
