"""The searcher: asks one of Optuna's samplers for configurations, and tells it how they did."""

from __future__ import annotations

import importlib.util
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import optuna
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import TrialState

from xaytune.errors import Problem, SpecError
from xaytune.search.distributions import Choices
from xaytune.sweep.algorithms import CmaesSpec, GpSpec, QmcSpec, SearchSpec, TpeSpec
from xaytune.sweep.domains import Categorical, Integer
from xaytune.sweep.space import Parameter
from xaytune.sweep.spec import SweepSpec

__all__ = ["Outcome", "Searcher", "Suggestion"]

# How often a point that equals a running trial's is drawn anew before it is taken as it is.
_REDRAWS = 20


@dataclass(frozen=True)
class Suggestion:
    """A configuration to try, and its number, from 0 in the order of asking."""

    number: int
    config: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """How a trial did.

    Attributes:
        status: ``completed``, ``stopped`` (early, by whatever verdict), ``failed``, or ``infeasible`` (this
            configuration can never be trained here).
        value: The best finite value that its metric reached.
        intermediate: The metric by time, at the trial's decision points.
    """

    status: Literal["completed", "stopped", "failed", "infeasible"]
    value: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)


class Searcher:
    """Suggests the configurations of a sweep.

    Gridded parameters take each combination of their values in turn; the others come from the sampler.

    Args:
        spec: The sweep.

    Attributes:
        asked: Suggestions so far.

    Raises:
        SpecError: The algorithm needs a package that is not installed.
    """

    def __init__(self, spec: SweepSpec) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = StudyDirection.MAXIMIZE if spec.mode == "max" else StudyDirection.MINIMIZE
        self._study = optuna.create_study(sampler=_sampler(spec.search), direction=direction)
        self._space = spec.space
        self._grid = spec.grid_points()
        self._choices = {parameter.name: Choices(parameter.domain) for parameter in spec.space.parameters}
        self.asked = 0
        self._running: dict[int, optuna.Trial] = {}

    def ask(self) -> Suggestion:
        """Returns the next configuration; not a running trial's again, unless the space is too small."""
        point = self._grid[self.asked % len(self._grid)]
        trial, config = self._draw(point)
        for _ in range(_REDRAWS):
            fixed = len(point) == len(trial.params)
            if fixed or all(trial.params != running.params for running in self._running.values()):
                break
            self._study.tell(trial, state=TrialState.FAIL)
            trial, config = self._draw(point)
        suggestion = Suggestion(self.asked, config)
        self._running[suggestion.number] = trial
        self.asked += 1
        return suggestion

    def ask_again(self, config: Mapping[str, Any]) -> Suggestion:
        """Returns the next configuration as it was suggested before, in a sweep that is resumed.

        The sampler goes through the draws that it made then; its state is what it was.

        Args:
            config: The configuration as it was recorded.
        """
        suggestion = self.ask()
        if _plain(suggestion.config) == _plain(config):
            return suggestion
        # Another version of the sampler draws otherwise: what was tried stands.
        self._study.tell(self._running.pop(suggestion.number), state=TrialState.FAIL)
        trial, again = self._draw(self._space.values(config))
        self._running[suggestion.number] = trial
        return Suggestion(suggestion.number, again)

    def tell(self, number: int, outcome: Outcome) -> None:
        """Tells how the trial of a suggestion did: stopped trials are pruned ones to the sampler."""
        trial = self._running.pop(number)
        for step, value in outcome.intermediate.items():
            trial.report(value, step)
        # An infeasible one has no values: a pruned trial without any is the worst there can be.
        if outcome.status in ("stopped", "infeasible"):
            self._study.tell(trial, state=TrialState.PRUNED)
        elif outcome.status == "completed" and outcome.value is not None:
            self._study.tell(trial, outcome.value)
        else:
            self._study.tell(trial, state=TrialState.FAIL)

    def _draw(self, point: Mapping[str, Any]) -> tuple[optuna.Trial, dict[str, Any]]:
        if point:
            self._study.enqueue_trial({name: self._choices[name].encode(value) for name, value in point.items()})
        trial = self._study.ask()
        return trial, self._space.configure(lambda parameter: self._suggest(trial, parameter))

    def _suggest(self, trial: optuna.Trial, parameter: Parameter) -> Any:
        name, domain = parameter.name, parameter.domain
        if isinstance(domain, Categorical):
            choices = self._choices[name]
            return choices.decode(trial.suggest_categorical(name, choices.encoded))
        if isinstance(domain, Integer):
            return trial.suggest_int(name, domain.low, domain.high - 1, log=domain.log)
        return trial.suggest_float(name, domain.low, domain.high, log=domain.log, step=domain.q)


def _plain(config: Mapping[str, Any]) -> Any:
    """A configuration as JSON gives it back."""
    return json.loads(json.dumps(config, default=str))


def _sampler(search: SearchSpec) -> BaseSampler:
    if isinstance(search, (QmcSpec, GpSpec)):
        _require("scipy", search.algorithm)
    if isinstance(search, CmaesSpec):
        _require("cmaes", search.algorithm)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if isinstance(search, QmcSpec):
            return optuna.samplers.QMCSampler(seed=search.seed, scramble=True, warn_independent_sampling=False)
        if isinstance(search, TpeSpec):
            # The constant liar keeps parallel suggestions apart (Ginsbourger et al., 2010).
            return optuna.samplers.TPESampler(
                seed=search.seed,
                n_startup_trials=search.n_startup_trials,
                multivariate=search.multivariate,
                constant_liar=True,
            )
        if isinstance(search, GpSpec):
            return optuna.samplers.GPSampler(
                seed=search.seed,
                n_startup_trials=search.n_startup_trials,
                warn_independent_sampling=False,
            )
        if isinstance(search, CmaesSpec):
            return optuna.samplers.CmaEsSampler(
                seed=search.seed,
                n_startup_trials=search.n_startup_trials,
                warn_independent_sampling=False,
            )
    return optuna.samplers.RandomSampler(seed=search.seed)


def _require(package: str, algorithm: str) -> None:
    if importlib.util.find_spec(package) is None:
        message = f"{algorithm} needs the package {package}: pip install 'xaytune[search]'"
        raise SpecError([Problem(("search", "algorithm"), message)])
