"""The contract suites fail for classes that break their contract."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from xaytune.search.method import Action, End, Result
from xaytune.search.schedulers.asha import AshaScheduler
from xaytune.search.schedulers.hyperband import HyperbandScheduler
from xaytune.search.schedulers.median import MedianScheduler
from xaytune.search.schedulers.pbt import PbtScheduler
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.objective import Objective
from xaytune.testing import SchedulerContract

pytestmark = pytest.mark.slow


def turned(scheduler: type[Scheduler]) -> type[Scheduler]:
    """The scheduler with its sign turned."""

    class Turned(scheduler):  # type: ignore[valid-type, misc]
        @property
        def objective(self) -> Objective:
            objective = self.setting.objective
            return Objective(objective.metric, "min" if objective.mode == "max" else "max")

    return Turned


class OneSided(AshaScheduler):
    """Forgets that less may be better."""

    @property
    def objective(self) -> Objective:
        return Objective("m", "max")


class Forgetful(HyperbandScheduler):
    """Does not notice that a trial of a bracket has ended."""

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        return []


class Drawing(PbtScheduler):
    """Draws from a generator that is not its own."""

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        return super().on_result(trial, Result(result.time, random.random()))


class Astray(PbtScheduler):
    """Lets children stay whose parents have changed."""

    def explore(self, trial: int, donor: int, config: Any, rng: Any) -> dict[str, Any]:
        return {**super().explore(trial, donor, config, rng), "momentum": 0.6}


class Opaque(AshaScheduler):
    """Tells details that no journal can hold."""

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        actions: Sequence[Any] = super().on_result(trial, result)
        return [replace(action, details={"at": object()}) for action in actions]


class Stuck(AshaScheduler):
    """Cannot decide by what is cheaper."""

    def fall_back(self) -> None:
        raise AssertionError("there is nothing cheaper")


class FallsBackOnce(AshaScheduler):
    """Cannot be told twice, as no driver does."""

    told = False

    def fall_back(self) -> None:
        assert not self.told
        self.told = True


def failures(make: Callable[[], Scheduler], name: str, **arguments: Sequence[Any]) -> int:
    """How often a test of the suite fails for a scheduler, over one of its parameters."""

    class Suite(SchedulerContract):
        def make_scheduler(self) -> Scheduler:
            return make()

    ((key, values),) = arguments.items() if arguments else [("", [None])]
    failed = 0
    for value in values:
        try:
            getattr(Suite(), name)(**({key: value} if key else {}))
        except (AssertionError, KeyError):
            failed += 1
    return failed


@pytest.mark.parametrize(
    ("scheduler", "options"),
    [
        (AshaScheduler, {"max_t": 9, "reduction_factor": 3}),
        (MedianScheduler, {}),
        (HyperbandScheduler, {"max_t": 9}),
        (PbtScheduler, {"perturbation_interval": 2}),
        (PbtScheduler, {"perturbation_interval": 2, "synch": True}),
    ],
)
def test_a_scheduler_with_its_sign_turned_fails(scheduler: type[Scheduler], options: dict[str, Any]) -> None:
    class Suite(SchedulerContract):
        def make_scheduler(self) -> Scheduler:
            return turned(scheduler)(**options)

    failed = 0
    for seed in range(3):
        try:
            Suite().test_the_trial_that_is_best_at_every_time_trains_to_its_end("max", seed)
        except AssertionError:
            failed += 1
    assert failed


def test_a_scheduler_that_forgets_to_minimise_fails() -> None:
    name = "test_to_minimise_is_to_maximise_what_is_negated"
    assert failures(lambda: OneSided(max_t=9, reduction_factor=3), name, seed=range(2))


def test_a_scheduler_that_waits_for_trials_that_have_ended_fails() -> None:
    name = "test_trials_that_fail_diverge_or_end_by_themselves_hold_up_no_other"
    assert failures(lambda: Forgetful(max_t=9), name, seed=range(3))


def test_a_scheduler_whose_decisions_follow_from_more_than_its_events_fails() -> None:
    make = lambda: Drawing(perturbation_interval=2)  # noqa: E731
    assert failures(make, "test_the_same_events_give_the_same_decisions", seed=range(2))
    assert failures(make, "test_a_method_rebuilt_from_any_prefix_of_a_journal_decides_the_same", seed=range(2))


def test_a_scheduler_that_gives_configurations_outside_the_space_fails() -> None:
    make = lambda: Astray(perturbation_interval=2)  # noqa: E731
    assert failures(make, "test_every_configuration_is_one_of_the_space", seed=range(2))


@pytest.mark.parametrize(
    ("scheduler", "name"),
    [
        (Opaque, "test_the_same_events_give_the_same_decisions"),
        (Stuck, "test_after_a_fall_back_every_trial_still_comes_to_an_end"),
    ],
)
def test_a_scheduler_whose_details_cannot_be_kept_or_that_cannot_fall_back_fails(
    scheduler: type[Scheduler], name: str
) -> None:
    arguments = {"seed": range(2)} if name == "test_the_same_events_give_the_same_decisions" else {}
    assert failures(lambda: scheduler(max_t=9, reduction_factor=3), name, **arguments)


def test_a_scheduler_is_asked_to_fall_back_once() -> None:
    name = "test_after_a_fall_back_every_trial_still_comes_to_an_end"
    assert not failures(lambda: FallsBackOnce(max_t=9, reduction_factor=3), name)
