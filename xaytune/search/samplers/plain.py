"""Samplers that learn nothing: random draws, and every combination in turn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from xaytune.errors import Problem, SpecError
from xaytune.search.configurations import draw_configuration, seeded
from xaytune.search.samplers.sampler import Sampler
from xaytune.sweep.algorithms import GridSpec, RandomSpec


class RandomSampler(Sampler):
    """Draws each configuration at random: the same for the same seed and number."""

    options_model = RandomSpec
    options: RandomSpec
    adaptive: ClassVar[bool] = False

    def setup(self) -> None:
        """Begins with no draws."""
        self._trial, self._draws = -1, 0

    def ask(self, trial: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Draws the configuration of a trial."""
        self._draws = self._draws + 1 if trial == self._trial else 0
        self._trial = trial
        return draw_configuration(self.setting.space, seeded(self.setting.seed, trial, self._draws), fixed)


class GridSampler(Sampler):
    """Takes every combination of the values of a space in turn."""

    options_model = GridSpec
    options: GridSpec
    adaptive: ClassVar[bool] = False
    every_combination: ClassVar[bool] = True

    def setup(self) -> None:
        """Checks that the number of trials is known."""
        if self.setting.num_trials is None:
            message = "must be given: a grid search tries every combination so many times"
            raise SpecError([Problem(("num_samples",), message)])

    def ask(self, trial: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the combination that is due."""
        return self.setting.space.configure(lambda parameter: fixed[parameter.name])
