"""Optuna's samplers behind ask and tell."""

from __future__ import annotations

import importlib.util
import statistics
import warnings
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, ClassVar

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from xaytune.errors import Problem, SpecError
from xaytune.search.configurations import hold, seeded
from xaytune.search.distributions import Choices, direction_of
from xaytune.search.samplers.sampler import Outcome, Sampler
from xaytune.sweep.algorithms import CmaesSpec, GpSpec, QmcSpec, TpeSpec
from xaytune.sweep.domains import Categorical, Float, Integer
from xaytune.sweep.parameter import Parameter

# From so many integers on a parameter is a rounded float to samplers: some list all values, or subtract bounds.
_MOST_INTEGERS = 10_000


class OptunaSampler(Sampler):
    """Asks one of Optuna's samplers.

    Attributes:
        package: The package that it needs beside Optuna's own.
        reads_pruned: Whether it learns from trials that Optuna calls pruned. Else those that diverged, or can
            never be trained, count with the worst value that was seen.
    """

    package: ClassVar[str | None] = None
    reads_pruned: ClassVar[bool] = False

    def setup(self) -> None:
        """Makes a new study.

        Raises:
            SpecError: A package is not installed.
        """
        if self.package is not None and importlib.util.find_spec(self.package) is None:
            name = self.options.algorithm
            message = f"{name} needs the package {self.package}: pip install 'xaytune[search]'"
            raise SpecError([Problem(("search", "algorithm"), message)])
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = direction_of(self.setting.objective)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study = optuna.create_study(sampler=self.make(self.setting.seed), direction=direction)
        self._choices = {p.name: Choices(p.domain) for p in self.setting.space.parameters}
        self._running: dict[int, optuna.Trial] = {}
        self._worst: float | None = None  # of the values that it was told
        self._gains: defaultdict[int, list[float]] = defaultdict(list)  # from a time to the end of complete trials

    @abstractmethod
    def make(self, seed: int) -> BaseSampler:
        """Returns Optuna's sampler."""

    def ask(self, trial: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for the configuration of a trial."""
        self._discard(trial)
        if fixed:
            known = (p for p in self.setting.space.parameters if p.name in fixed)
            self._study.enqueue_trial({p.name: self._encode(p, fixed[p.name]) for p in known})
        asked = self._running[trial] = self._study.ask()
        return self.setting.space.configure(lambda parameter: self._suggest(asked, parameter))

    def adopt(self, trial: int, config: Mapping[str, Any]) -> None:
        """Lets the study know a configuration that it did not give."""
        self.ask(trial, self.setting.space.values(config))

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Tells the study how a trial ended."""
        asked, values = self._running.pop(trial), outcome.intermediate
        if outcome.status == "completed" and outcome.value is not None:
            self._complete(asked, outcome.value)
            for time, value in values.items():
                self._gains[time].append(outcome.value - value)
        elif outcome.status == "stopped" and values:
            if self.reads_pruned:
                for time, value in values.items():
                    asked.report(value, time)
                self._study.tell(asked, state=TrialState.PRUNED)
            else:
                self._complete(asked, self._prediction(values))
        elif outcome.status in ("diverged", "infeasible") and self.reads_pruned:
            # A pruned trial without any values is the worst there can be.
            self._study.tell(asked, state=TrialState.PRUNED)
        elif outcome.status in ("diverged", "infeasible") and self._worst is not None:
            self._study.tell(asked, self._worst)
        else:
            self._study.tell(asked, state=TrialState.FAIL)

    def _complete(self, asked: optuna.Trial, value: float) -> None:
        self._study.tell(asked, value)
        if self._worst is None or self.setting.objective.is_better(self._worst, value):
            self._worst = value

    def _prediction(self, curve: Mapping[int, float]) -> float:
        """Returns what a stopped trial would have reached: its last value, and what others gained from there."""
        last = max(curve)
        return curve[last] + statistics.median(self._gains.get(last, [0.0]))

    def fall_back(self) -> None:
        """Draws at random from now on."""
        # With the setting's seed alone, the first draws of the study would come again.
        seed = seeded(self.setting.seed, len(self._study.get_trials(deepcopy=False))).getrandbits(32)
        self._study.sampler = optuna.samplers.RandomSampler(seed)

    def _discard(self, trial: int) -> None:
        if trial in self._running:
            self._study.tell(self._running.pop(trial), state=TrialState.FAIL)

    def _suggest(self, asked: optuna.Trial, parameter: Parameter) -> Any:
        name, domain = parameter.name, parameter.domain
        if isinstance(domain, Categorical):
            choices = self._choices[name]
            return choices.decode(asked.suggest_categorical(name, choices.encoded))
        if isinstance(domain, Integer):
            return _suggest_int(asked, name, domain.low, domain.high - 1, log=domain.log)
        if domain.q is not None:
            return domain.at_step(_suggest_int(asked, name, 0, domain.step_of(domain.high)))
        return hold(domain, asked.suggest_float(name, domain.low, domain.high, log=domain.log))

    def _encode(self, parameter: Parameter, value: Any) -> Any:
        """Returns a value as the study holds it: one in steps of `q`, which may be rounded, as their number."""
        domain = parameter.domain
        if isinstance(domain, Float) and domain.q is not None:
            return domain.step_of(value)
        return self._choices[parameter.name].encode(value)


def _suggest_int(asked: optuna.Trial, name: str, low: int, high: int, *, log: bool = False) -> int:
    if high - low >= _MOST_INTEGERS:
        return min(max(round(asked.suggest_float(name, low, high, log=log)), low), high)
    return asked.suggest_int(name, low, high, log=log)


class QmcSampler(OptunaSampler):
    """A scrambled Sobol sequence."""

    options_model = QmcSpec
    options: QmcSpec
    package: ClassVar[str | None] = "scipy"
    adaptive: ClassVar[bool] = False

    def make(self, seed: int) -> BaseSampler:
        """Returns Optuna's QMCSampler."""
        return optuna.samplers.QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


class TpeSampler(OptunaSampler):
    """Tree-structured Parzen estimator (Bergstra et al., 2011), each parameter alone where trials are stopped."""

    options_model = TpeSpec
    options: TpeSpec
    reads_pruned: ClassVar[bool] = True

    def make(self, seed: int) -> BaseSampler:
        """Returns Optuna's TPESampler."""
        given = self.options.multivariate
        return optuna.samplers.TPESampler(
            seed=seed,
            n_startup_trials=self.options.n_startup_trials,
            multivariate=given if given is not None else not self.setting.early_stopping,
            # It keeps suggestions apart that are asked for at the same time (Ginsbourger et al., 2010).
            constant_liar=True,
        )


class GpSampler(OptunaSampler):
    """Bayesian optimisation with a Gaussian process; a stopped trial counts with what it is predicted to reach."""

    options_model = GpSpec
    options: GpSpec
    package: ClassVar[str | None] = "scipy"

    def make(self, seed: int) -> BaseSampler:
        """Returns Optuna's GPSampler."""
        startup = self.options.n_startup_trials
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)


class CmaesSampler(OptunaSampler):
    """CMA-ES (Hansen, 2016); a stopped trial counts with what it is predicted to reach."""

    options_model = CmaesSpec
    options: CmaesSpec
    package: ClassVar[str | None] = "cmaes"

    def make(self, seed: int) -> BaseSampler:
        """Returns Optuna's CmaEsSampler."""
        startup = self.options.n_startup_trials
        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=startup, warn_independent_sampling=False)
