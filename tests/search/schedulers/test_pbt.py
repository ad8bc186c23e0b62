"""Populations: who is compared with whom, who is paused, and what configurations come of it."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.search.runs import spec_of
from xaytune.ray_tune.pb2 import Pb2Scheduler
from xaytune.search.build import method_for
from xaytune.search.extension import Setting
from xaytune.search.method import Exploit, KeepCheckpoint, NewTrial, Pause, Result
from xaytune.search.sampled import SampledMethod
from xaytune.search.samplers.plain import RandomSampler
from xaytune.search.schedulers.pbt import perturbed
from xaytune.sweep.domains import Categorical
from xaytune.sweep.objective import Objective
from xaytune.sweep.space_parser import parse_space
from xaytune.testing.playing import Played, play

SUM: dict[str, Any] = {"x": {"uniform": [0.1, 1]}}


def population(slots: int, seed: int = 0, algorithm: str = "pbt", **options: Any) -> Played:
    """Eight trials whose metric rises by their parameter in each of twenty epochs."""
    totals: dict[tuple[int, int], float] = {}

    def total(trial: int, config: Mapping[str, Any], time: int) -> float:
        return totals.setdefault((trial, time), totals.get((trial, time - 2), 0.0) + 2 * config["x"])

    scheduler = {"algorithm": algorithm, "perturbation_interval": 2, **options}
    spec = spec_of(scheduler, {"algorithm": "random", "seed": 5}, space=SUM)
    return play(method_for(spec), total, workers=slots, end=20, seed=seed)


@pytest.mark.parametrize("slots", [1, 2, 4, 8])
def test_trials_are_compared_at_the_same_age_however_few_train_at_once(slots: int) -> None:
    """Two of eight are due at each of nine intervals, where all come to it in turn."""
    exploits = population(slots).decisions(Exploit)
    assert 9 <= len(exploits) <= 27
    assert all("is among the worst, and" in exploit.reason for exploit in exploits)


def test_trials_are_compared_at_an_age_that_some_passed_between_two_evaluations() -> None:
    options = {"algorithm": "pbt", "perturbation_interval": 50, "time_attr": "global_step"}
    method = method_for(spec_of(options, num_samples=4))
    for _ in range(4):
        method.next()
    for trial, steps in ((3, 200), (2, 150), (1, 100)):
        method.on_result(trial, Result(steps, float(trial)))
    (exploit,) = method.on_result(0, Result(63, 0.0))
    assert isinstance(exploit, Exploit)
    assert exploit.reason == "step 63, compared at step 50: 0 is among the worst, and 3 of trial 3 among the best"


def test_no_trial_is_paused_where_all_have_a_place() -> None:
    method = method_for(spec_of({"algorithm": "pbt", "perturbation_interval": 2}, num_samples=3))
    for _ in range(3):
        assert isinstance(method.next(), NewTrial)
    for time in (2, 4, 6):
        for trial in range(3):
            own, *_ = method.on_result(trial, Result(time, float(trial)))
            assert not isinstance(own, Pause)
            if isinstance(own, Exploit):
                method.on_resume(trial)


def test_synchronous_trials_wait_for_all_and_the_worst_quarter_takes_over_the_best() -> None:
    method = method_for(spec_of({"algorithm": "pbt", "perturbation_interval": 2, "synch": True}))
    for _ in range(8):
        method.next()
    for trial in range(7):
        own, *kept = method.on_result(trial, Result(2, float(trial)))
        assert isinstance(own, Pause)
        assert kept == [KeepCheckpoint(trial)]  # each is the best so far
    last, kept_last, *exploits = method.on_result(7, Result(2, 7.0))
    assert isinstance(last, Pause)
    assert kept_last == KeepCheckpoint(7)
    assert [exploit.trial for exploit in exploits if isinstance(exploit, Exploit)] == [0, 1]
    assert {exploit.donor for exploit in exploits if isinstance(exploit, Exploit)} <= {6, 7}


domains = st.one_of(
    st.tuples(st.floats(-5, 5), st.floats(0.1, 5)).map(lambda b: {"uniform": [b[0], b[0] + b[1]]}),
    st.just({"loguniform": [1e-4, 1]}),
    st.integers(1, 9).map(lambda steps: {"quniform": [0.1, 0.1 + steps * 0.05, 0.05]}),
    st.integers(2, 9).map(lambda high: {"randint": [1, high]}),
    st.just({"lograndint": [1, 1000]}),
    st.just({"choice": [0, None, "a", [1, 2]]}),
)


@settings(max_examples=25)
@given(
    st.dictionaries(st.sampled_from("abcde"), domains, min_size=1),
    st.integers(0, 99),
    st.floats(0, 1),
    st.booleans(),
)
def test_every_configuration_is_of_the_space_also_where_parents_change(
    space: dict[str, Any], seed: int, resample: float, synch: bool
) -> None:
    children: dict[str, dict[str, Any]] = {"momentum": {"uniform": [0, 0.99], "when": {"kind": "sgd"}}}
    children["betas"] = {"randint": [1, 5], "when": {"kind": ["adam", "lion"]}}
    whole = {**space, "kind": {"choice": ["sgd", "adam", "lion"]}, **children}
    options = {"algorithm": "pbt", "perturbation_interval": 1, "resample_probability": resample, "synch": synch}
    spec = spec_of(options, {"algorithm": "random", "seed": seed}, space=whole, num_samples=6)
    played = play(method_for(spec), lambda trial, config, time: Random(f"{trial}:{time}").random(), seed=seed)
    assert played.decisions(Exploit)
    for config in played.given:
        assert spec.space.complete(config) == config


def test_a_value_in_steps_moves_by_one_where_the_factor_is_too_small_for_one() -> None:
    space = {"layers": {"randint": [1, 9]}, "dropout": {"quniform": [0, 0.5, 0.1]}}
    options = {"algorithm": "pbt", "perturbation_interval": 1, "resample_probability": 0, "synch": True}
    given = [{"layers": 2, "dropout": 0.2}] * 8
    spec = spec_of(options, space=space, num_samples=len(given), points_to_evaluate=given)
    method = method_for(spec)
    for _ in given:
        method.next()
    actions = [action for trial in range(8) for action in method.on_result(trial, Result(1, float(trial)))]
    exploits = [action for action in actions if isinstance(action, Exploit)]
    assert exploits
    assert {exploit.config["layers"] for exploit in exploits} <= {1, 3}
    assert {exploit.config["dropout"] for exploit in exploits} <= {0.1, 0.3}


@pytest.mark.parametrize("value", [[1.0], math.nan])
def test_a_choice_moves_to_one_beside_it_also_where_another_is_equal_but_for_its_type(value: Any) -> None:
    domain = Categorical(([1], [2], value, [3]))
    assert {str(perturbed(domain, value, Random(seed))) for seed in range(20)} == {"[2]", "[3]"}


@pytest.mark.ray
@given(
    st.lists(st.floats(-10, 10), min_size=2, max_size=12, unique=True),
    st.floats(0.01, 0.5),
    st.sampled_from([1, -1]),
)
def test_the_quantiles_are_rays(scores: list[float], fraction: float, sign: int) -> None:
    from ray.tune.schedulers import PopulationBasedTraining
    from ray.tune.schedulers.pbt import _PBTTrialState

    ray = PopulationBasedTraining("epoch", "m", "max", hyperparam_mutations={"x": [1]}, quantile_fraction=fraction)

    class Trial:
        def __init__(self, number: int) -> None:
            self.number, self.experiment_tag = number, ""

        def is_finished(self) -> bool:
            return False

    for number, score in enumerate(scores):
        state = _PBTTrialState(Trial(number))  # type: ignore[arg-type]
        state.last_score = sign * score
        ray._trial_state[Trial(number)] = state  # type: ignore[index]
    worst, best = ({trial.number for trial in group} for group in ray._quantiles())  # type: ignore[attr-defined]
    mode = "max" if sign == 1 else "min"
    options = {"algorithm": "pbt", "perturbation_interval": 1, "synch": True, "quantile_fraction": fraction}
    method = method_for(spec_of(options, num_samples=len(scores), mode=mode))
    for _ in scores:
        method.next()
    actions = [
        action for number, score in enumerate(scores) for action in method.on_result(number, Result(1, score))
    ]
    exploits = [action for action in actions if isinstance(action, Exploit)]
    assert {exploit.trial for exploit in exploits} == worst
    assert {exploit.donor for exploit in exploits} <= best


@pytest.mark.ray
def test_pb2_draws_floats_within_their_bounds_by_a_model_and_the_same_again() -> None:
    def once() -> Played:
        spec = spec_of({"algorithm": "pb2", "perturbation_interval": 1, "quantile_fraction": 0.5}, num_samples=4)
        return play(method_for(spec), lambda trial, config, time: config["x"] * time, workers=2, end=4)

    played, again = once(), once()
    assert played.calls == again.calls
    exploits = played.decisions(Exploit)
    assert len(exploits) >= 4
    assert all(0 <= exploit.config["x"] <= 1 for exploit in exploits)


@pytest.mark.ray
def test_pb2_chooses_by_the_logarithm_what_is_searched_by_it() -> None:
    space = {"lr": {"loguniform": [1e-5, 0.1]}}
    scheduler = {"algorithm": "pb2", "perturbation_interval": 1, "quantile_fraction": 0.5}
    spec = spec_of(scheduler, space=space, num_samples=6)
    played = play(
        method_for(spec), lambda trial, config, time: time - abs(math.log10(config["lr"] / 1e-4)), workers=6, end=6
    )
    chosen = sorted(exploit.config["lr"] for exploit in played.decisions(Exploit))
    assert len(chosen) >= 8
    assert chosen[len(chosen) // 2] < 2e-3


@pytest.mark.ray
def test_every_result_tells_the_model_of_pb2_how_much_the_trial_improved_since_the_one_before() -> None:
    scheduler = Pb2Scheduler(perturbation_interval=1, quantile_fraction=0.34)
    space = parse_space({"x": {"uniform": [0, 0.1]}, "lr": {"loguniform": [1e-4, 0.1]}})
    method = SampledMethod(Setting(Objective("m", "max"), space, num_trials=6), RandomSampler(), scheduler)
    played = play(method, lambda trial, _, time: Random(f"{trial}:{time}").random(), workers=6, end=6, seed=1)
    results = sum(call.name == "on_result" for call in played.calls)
    improvements = 0
    for _, rows in scheduler._ray.data.groupby("Trial"):
        for before, after in itertools.pairwise(rows[["x", "lr", "Time"]].values.tolist()):
            improvements += after == [*before[:2], before[2] + 1]
    assert played.decisions(Exploit)
    assert improvements == results - 6  # the first of each trial has none before


@pytest.mark.ray
def test_after_a_fall_back_pb2_perturbs_by_factors() -> None:
    scheduler = {"algorithm": "pb2", "perturbation_interval": 1, "synch": True}
    method = method_for(spec_of(scheduler, num_samples=4, points_to_evaluate=[{"x": 0.5}] * 4))
    method.fall_back("it takes too long")
    for _ in range(4):
        method.next()
    actions = [action for trial in range(4) for action in method.on_result(trial, Result(1, float(trial)))]
    exploits = [action for action in actions if isinstance(action, Exploit)]
    assert exploits
    assert {exploit.config["x"] for exploit in exploits} <= {0.4, 0.6}
