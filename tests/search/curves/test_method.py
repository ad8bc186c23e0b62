"""What a sweep may rely on: what is given is tried, nothing is tried twice, and the events alone decide."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from xaytune.search.curves.observations import Observations
from xaytune.search.curves.observed import ObservedTrials
from xaytune.search.method import Continue, Decision, Done, End, NewTrial, Result, SearchMethod, Stop
from xaytune.sweep.algorithms import CurvesSpec
from xaytune.sweep.time_axis import levels_of

SPACE: dict[str, Any] = {"lr": {"loguniform": [1e-4, 1]}, "width": {"uniform": [0, 1]}}
Event = tuple[str, Any, Any]


def value_of(config: dict[str, Any], time: int) -> float:
    return float(1 - abs(math.log10(config["lr"]) + 2) / 4 - (config["width"] - 0.3) ** 2) * (1 - 0.5 / time)


def sweep(
    method: SearchMethod, events: int, workers: int = 1, value: Callable[..., float] = value_of, first: int = 0
) -> list[Event]:
    """Plays so many events, the workers in turn, from a trial on. Returns them with what was decided."""
    told: list[Event] = []
    running: dict[int, tuple[dict[str, Any], int]] = {}
    number = first
    while len(told) < events:
        while len(running) < workers and isinstance(action := method.next(), NewTrial):
            running[number] = action.config, 0
            told.append(("next", None, action.config))
            number += 1
        if not running:
            return told
        for trial, (config, time) in list(running.items()):
            time = int(method.points.after(time))
            result = Result(time, value(config, time))
            actions = method.on_result(trial, result)
            told.append(("result", (trial, result), actions))
            running[trial] = config, time
            if isinstance(actions[0], Stop):
                del running[trial]
                method.on_end(trial, End(actions[0].status))
    return told


def reasons(events: list[Event]) -> list[Decision]:
    return [events_[2][0] for events_ in events if events_[0] == "result"]


def test_levels_grow_by_a_half_and_end_at_max_t() -> None:
    assert levels_of(3, 52) == (3, 5, 8, 12, 18, 27, 41, 52)
    assert levels_of(1, 4) == (1, 2, 3, 4)
    assert levels_of(None, 52)[0] == 3
    assert levels_of(None, 1) == (1,)
    assert levels_of(9, 5) == (5,)


def test_a_first_level_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="grace_period must be at most max_t"):
        CurvesSpec(algorithm="curves", grace_period=9, max_t=5)


def test_it_decides_the_same_for_a_minimum_as_for_a_maximum(make: Any) -> None:
    largest = sweep(make(SPACE), 40, workers=4)
    smallest = sweep(make(SPACE, mode="min"), 40, workers=4, value=lambda *at: -value_of(*at))
    assert [event[2] for event in largest if event[0] == "next"] == [e[2] for e in smallest if e[0] == "next"]
    assert list(map(type, reasons(largest))) == list(map(type, reasons(smallest)))
    assert {Continue, Stop} <= set(map(type, reasons(largest)))


def test_the_same_events_leave_the_same_decisions_wherever_a_sweep_was_cut(make: Any) -> None:
    events = sweep(make(SPACE, seed=3), 40, workers=4)
    for cut in (3, 25):
        again = make(SPACE, seed=3)
        ended: set[int] = set()
        for index, (kind, given, decided) in enumerate(events):
            if kind == "next" and index < cut:
                again.adopt(decided)
            elif kind == "next":
                assert again.next() == NewTrial(decided)
            else:
                trial, result = given
                assert again.on_result(trial, result) == decided
                if isinstance(decided[0], Stop) and trial not in ended:
                    again.on_end(trial, End(decided[0].status))
                    ended.add(trial)


def test_another_configuration_than_it_would_have_drawn_is_adopted(make: Any) -> None:
    method = make(SPACE)
    method.adopt({"lr": 0.5, "width": 0.25})
    method.on_result(0, Result(1, 0.5))
    assert isinstance(method.next(), NewTrial)


def test_what_is_given_is_tried_first_exactly_as_it_is(make: Any) -> None:
    given = [{"lr": 0.1, "width": 1 / 3}, {"lr": 1e-4, "width": 1.0}]
    method = make(SPACE, points_to_evaluate=given)
    assert [method.next(), method.next()] == [NewTrial(config) for config in given]
    assert method.next() not in [NewTrial(config) for config in given]


@pytest.mark.parametrize("count", [8, 14, 16])
def test_no_trial_is_stopped_for_a_configuration_that_can_never_start(make: Any, count: int) -> None:
    given = [{"lr": 10 ** (-4 + (5 * index % 16) / 4), "width": 0.3} for index in range(count)]
    events = sweep(make(SPACE, num_trials=16, points_to_evaluate=given), 500, workers=4)
    tried = [event[2] for event in events if event[0] == "next"]
    assert tried[:count] == given
    assert len(tried) == 16
    promised = [decision.details["instead"] for decision in reasons(events) if decision.details.get("instead")]
    assert all(config in tried for config in promised)


def test_what_is_given_and_still_to_come_is_not_planned_as_well(make: Any) -> None:
    space = {"layers": {"randint": [0, 12]}}
    given = [{"layers": number} for number in range(10)]
    events = sweep(make(space, points_to_evaluate=given), 500, value=lambda config, time: -config["layers"] / time)
    tried = [event[2]["layers"] for event in events if event[0] == "next"]
    assert tried[:10] == list(range(10))
    assert sorted(tried) == list(range(12))


def test_a_trial_at_max_t_was_trained_in_full(make: Any) -> None:
    method = make(SPACE)
    method.next()
    [action] = method.on_result(0, Result(27, 0.5))
    assert isinstance(action, Stop)
    assert (action.status, action.reason) == ("completed", "trained in full, to epoch 27")


def test_a_metric_that_is_not_finite_ends_a_trial_and_what_it_was_worth_before_stays(make: Any) -> None:
    method = make(SPACE)
    events = sweep(method, 40)
    seen = method._model.observations.count
    method.next()
    [action] = method.on_result(len([e for e in events if e[0] == "next"]) - 1, Result(2, None, due=False))
    assert isinstance(action, Stop)
    assert "not finite" in action.reason
    assert method._model.observations.count == seen


def test_a_sweep_in_which_everything_fails_goes_on(make: Any) -> None:
    method = make(SPACE)
    for trial in range(30):
        assert isinstance(method.next(), NewTrial)
        method.on_end(trial, End("failed"))


def test_a_trial_that_ended_by_itself_at_a_level_counts_there(make: Any) -> None:
    method = make(SPACE)
    method.next()
    method.on_end(0, End("completed", 0.5, Result(3, 0.5)))
    assert method._model.observations.count == 1
    assert (method._trials.spent, method._trials.full) == (3, 1)


def test_values_between_two_levels_are_taken_at_their_own_time(make: Any) -> None:
    method = make(SPACE, grace=3)
    for trial in range(12):
        method.next()
        [action] = method.on_result(trial, Result(4, trial / 10))
        assert isinstance(action, (Continue, Stop))
    assert set(method._model.observations.sample(12).times) == {4.0}


def test_a_level_that_was_judged_is_not_judged_again(make: Any) -> None:
    method = make(SPACE)
    method.next()
    first = method.on_result(0, Result(1, 0.5))
    again = method.on_result(0, Result(1, 0.7))
    assert isinstance(again[0], Continue)
    assert len(first) == 1
    assert method._model.observations.count == 1


def test_no_configuration_is_tried_twice_and_a_space_that_is_used_up_ends_the_sweep(make: Any) -> None:
    space = {
        "layers": {"randint": [1, 4]},
        "optimizer": {"choice": ["sgd", "adam"]},
        "nesterov": {"choice": [True, False], "when": {"optimizer": "sgd"}},
    }
    method = make(space, max_t=4)
    events = sweep(method, 500, workers=2, value=lambda config, time: config["layers"] * (1 - 0.5 / time))
    tried = [event[2] for event in events if event[0] == "next"]
    assert len(tried) == 9
    assert all(config not in tried[:index] for index, config in enumerate(tried))
    assert method.next() == Done("every configuration of the space has been tried")


@pytest.mark.parametrize("num_samples", [1, 3, 12])
def test_a_sweep_of_any_number_of_samples_trains_one_in_full(make: Any, num_samples: int) -> None:
    method = make(SPACE, num_trials=num_samples)
    events = sweep(method, 500, workers=2)
    assert sum(event[0] == "next" for event in events) == num_samples
    assert any(action.reason == "trained in full, to epoch 27" for action in reasons(events))


def test_so_many_samples_and_no_more(make: Any) -> None:
    method = make(SPACE, num_trials=3)
    assert [type(method.next()) for _ in range(4)] == [NewTrial, NewTrial, NewTrial, Done]


def test_max_t_may_be_learnt_from_the_first_trial(make: Any) -> None:
    method = make(SPACE, max_t=None, grace=None)
    assert method.points.after(0) == math.inf
    method.next()
    method.set_max_t(52)
    assert method.points.milestones == (3, 5, 8, 12, 18, 27, 41, 52)
    assert isinstance(method.on_result(0, Result(52, 0.3))[0], Stop)


def test_a_stop_says_what_was_predicted_what_it_was_compared_with_and_what_is_started_instead(make: Any) -> None:
    method = make(SPACE)
    events = sweep(method, 60)
    index, stop = next(
        (index, event[2][0])
        for index, event in enumerate(events)
        if event[0] == "result" and isinstance(event[2][0], Stop) and "predicted" in event[2][0].details
    )
    [(first, value, deviation), *_] = stop.details["predicted"]
    _, (trial, result), _ = events[index]
    assert first == method.points.after(result.time)
    assert abs(value - result.value) < 0.3
    assert deviation >= 0
    assert stop.details["promise"] < stop.details["promise_of_new"]
    assert stop.cutoff > value - 3 * deviation - 0.2
    assert events[index + 1] == ("next", None, stop.details["instead"])
    assert trial == stop.trial


def test_after_a_fall_back_trials_are_compared_as_successive_halving_does(make: Any) -> None:
    method = make(SPACE)
    sweep(method, 40)
    method.fall_back("a decision takes longer than an epoch")
    started = len(method._trials.trials)
    for trial, value in enumerate([-5.0, 5.0], start=started):
        method.next()
        [action] = method.on_result(trial, Result(1, value))
        assert isinstance(action, Continue if value > 0 else Stop)
        assert "too long" in action.reason or "in full" in action.reason


def test_a_decision_is_made_from_500_values_however_many_there_are() -> None:
    observations = Observations()
    rng = np.random.default_rng(0)
    for trial in range(10_000):
        observations.add(trial, 1, trial - 1 + 0.1 * rng.random())
        observations.add(trial, 2, trial)
    sample = observations.sample(observations.count)
    assert len(sample.y) == 500
    assert set(sample.trials) == set(range(9_500, 10_000))
    assert set(sample.times) == {2.0}
    assert np.isfinite(sample.y).all()


def test_values_that_are_equal_have_equal_scores() -> None:
    observations = Observations()
    for trial, score in enumerate([0.5, 0.1, 0.5, 0.9, 0.5]):
        observations.add(trial, 1, score)
    y = observations.sample(5).y
    assert y[0] == y[2] == y[4] == 0
    assert y[1] == -y[3] < 0
    np.testing.assert_allclose(observations.scores_at(y), [0.5, 0.1, 0.5, 0.9, 0.5])


@pytest.mark.parametrize(("limited", "least"), [(True, 1), (False, 0)])
def test_of_a_limited_number_of_trials_some_are_trained_in_full_however_early_the_others_are_stopped(
    limited: bool, least: int
) -> None:
    progress, scores = ObservedTrials(limited=limited), np.random.default_rng(0).random(36)
    progress.levels = (1, 2, 3, 5, 8, 12, 18, 27)
    for score in scores:
        trial = progress.begin(np.zeros(1), np.zeros(1))
        progress.reach(trial, 1, float(score))
        if progress.choose(trial, closing=False):
            progress.reach(trial, 27, float(score))
        progress.end(trial.number)
    assert least <= progress.full <= 2 * least
