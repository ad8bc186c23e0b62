"""The methods that are compared: ours, and the peers' own code."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import optuna
from optuna.study import StudyDirection

from tests.benchmarks.search.curves import Task
from xaytune.search.curves.method import CurvesMethod
from xaytune.search.distributions import Choices, distribution_of
from xaytune.search.extension import Setting
from xaytune.search.method import Action, Continue, End, NewTrial, Next, Result, SearchMethod, Stop
from xaytune.search.sampled import SampledMethod
from xaytune.search.samplers.model_based import CmaesSampler, GpSampler, QmcSampler, TpeSampler
from xaytune.search.samplers.plain import RandomSampler
from xaytune.search.samplers.sampler import Sampler
from xaytune.search.schedulers.asha import AshaScheduler
from xaytune.search.schedulers.fifo import FifoScheduler
from xaytune.search.schedulers.hyperband import HyperbandScheduler
from xaytune.search.schedulers.median import MedianScheduler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.domains import Categorical
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import DecisionPoints

# Epochs of each trial, where a sampler without a scheduler is to spend a budget.
SHORT_EPOCHS = 5


class _Optuna(SearchMethod):
    """One of Optuna's samplers, and a pruner where there is one."""

    def __init__(
        self,
        task: Task,
        sampler: optuna.samplers.BaseSampler,
        pruner: optuna.pruners.BasePruner | None = None,
        max_epochs: int | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        direction = StudyDirection.MAXIMIZE if task.mode == "max" else StudyDirection.MINIMIZE
        self._study = optuna.create_study(
            sampler=sampler, pruner=pruner or optuna.pruners.NopPruner(), direction=direction
        )
        self._space = task.space
        self._choices = {parameter.name: Choices(parameter.domain) for parameter in task.space.parameters}
        self._trials: list[optuna.Trial] = []
        self._last: dict[int, float] = {}
        self._max_epochs = max_epochs
        self._running: set[int] = set()
        self.points = DecisionPoints()

    def next(self) -> Next:
        trial = self._study.ask()
        self._running.add(len(self._trials))
        self._trials.append(trial)

        def suggest(parameter: Any) -> Any:
            value = trial._suggest(parameter.name, distribution_of(parameter.domain))
            return (
                self._choices[parameter.name].decode(value) if isinstance(parameter.domain, Categorical) else value
            )

        return NewTrial(self._space.configure(suggest))

    def adopt(self, config: Mapping[str, Any]) -> None:
        raise NotImplementedError

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        if result.value is None:
            self._study.tell(self._trials[trial], state=optuna.trial.TrialState.FAIL)
            self._running.discard(trial)
            return [Stop(trial=trial, reason="not finite")]
        self._last[trial] = result.value
        self._trials[trial].report(result.value, result.time)
        if result.time == self._max_epochs:
            return [Stop(trial=trial, reason="short", status="completed")]
        if self._trials[trial].should_prune():
            self._study.tell(self._trials[trial], state=optuna.trial.TrialState.PRUNED)
            self._running.discard(trial)
            return [Stop(trial=trial, reason="pruned")]
        return [Continue(trial=trial, reason="")]

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        if trial in self._running:
            self._study.tell(self._trials[trial], self._last[trial])
            self._running.discard(trial)
        return []


class _RayAsha(_Optuna):
    """Ray Tune's own scheduler, with random configurations."""

    def __init__(self, task: Task, seed: int, grace_period: int) -> None:
        from ray.tune.schedulers import AsyncHyperBandScheduler

        super().__init__(task, optuna.samplers.RandomSampler(seed=seed))
        self._scheduler = AsyncHyperBandScheduler(
            time_attr="t", metric="value", mode=task.mode, max_t=task.max_t, grace_period=grace_period
        )
        self._ray: list[Any] = []

    def next(self) -> Next:
        action = super().next()
        self._ray.append(SimpleNamespace(trial_id=str(len(self._ray)), trainable_name="recipe"))
        self._scheduler.on_trial_add(None, self._ray[-1])  # type: ignore[arg-type]
        return action

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        if result.value is not None:
            told = {"t": result.time, "value": result.value}
            answer = self._scheduler.on_trial_result(None, self._ray[trial], told)  # type: ignore[arg-type]
            if answer == "STOP":
                return [Stop(trial=trial, reason="")]
            return [Continue(trial=trial, reason="")]
        return super().on_result(trial, result)

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        return []


def _quiet(sampler: Callable[..., Any], **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return sampler(**options)


def _curves(task: Task, seed: int, grace_period: int) -> SearchMethod:
    method = CurvesMethod(grace_period=grace_period, max_t=task.max_t)
    method.begin(Setting(Objective("value", task.mode), task.space, seed=seed))
    return method


def _sampled(
    sampler: type[Sampler] = RandomSampler, scheduler: type[Scheduler] = AshaScheduler
) -> Callable[[Task, int, int], SearchMethod]:
    """Returns what makes one of our searches with one of our schedulers."""

    def make(task: Task, seed: int, grace_period: int) -> SearchMethod:
        options = {"grace_period": grace_period} if scheduler in (AshaScheduler, MedianScheduler) else {}
        limit = {"max_t": task.max_t} if scheduler in (AshaScheduler, HyperbandScheduler) else {}
        setting = Setting(
            objective=Objective("value", task.mode),
            space=task.space,
            seed=seed,
            num_trials=None,
            early_stopping=scheduler is not FifoScheduler,
            points_to_evaluate=(),
        )
        return SampledMethod(setting, sampler(), scheduler(**options, **limit))

    return make


METHODS: dict[str, Callable[[Task, int, int], SearchMethod]] = {
    "curves": _curves,
    "fifo": _sampled(scheduler=FifoScheduler),
    "median": _sampled(scheduler=MedianScheduler),
    "hyperband": _sampled(scheduler=HyperbandScheduler),
    "asha": _sampled(),
    "asha, qmc": _sampled(QmcSampler),
    "asha, tpe": _sampled(TpeSampler),
    "asha, gp": _sampled(GpSampler),
    "asha, cmaes": _sampled(CmaesSampler),
    "ray asha": _RayAsha,
    "random": lambda task, seed, grace_period: _Optuna(task, optuna.samplers.RandomSampler(seed=seed)),
    "optuna tpe, pruner": lambda task, seed, grace_period: _Optuna(
        task,
        optuna.samplers.TPESampler(seed=seed),
        optuna.pruners.SuccessiveHalvingPruner(min_resource=grace_period),
    ),
    "optuna tpe, 5 epochs": lambda task, seed, grace_period: _Optuna(
        task, optuna.samplers.TPESampler(seed=seed), max_epochs=SHORT_EPOCHS
    ),
    "optuna gp, 5 epochs": lambda task, seed, grace_period: _Optuna(
        task, _quiet(optuna.samplers.GPSampler, seed=seed), max_epochs=SHORT_EPOCHS
    ),
}
