"""From a spec to its search method: names, references, objects, points to evaluate, and what is refused."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

from tests.search.extensions import KeepTheFirst, KindAsha, Middle, NoExtension, OneTrial
from tests.search.runs import spec_of
from xaytune.errors import SpecError
from xaytune.search.build import method_for
from xaytune.search.curves.method import CurvesMethod
from xaytune.search.method import Continue, Done, End, NewTrial, Result, SearchMethod, Stop, Wait
from xaytune.search.samplers.model_based import TpeSampler
from xaytune.search.schedulers.fifo import FifoScheduler
from xaytune.search.schedulers.pbt import PbtScheduler
from xaytune.sweep.spec import SweepSpec
from xaytune.sweep.values import same


def new(method: SearchMethod) -> dict[str, Any]:
    answer = method.next()
    assert isinstance(answer, NewTrial)
    return answer.config


@pytest.mark.parametrize(
    "scheduler",
    [
        {"algorithm": "tests.search.extensions:KeepTheFirst", "keep": 2},
        {"algorithm": KeepTheFirst, "keep": 2},
        KeepTheFirst(keep=2),
    ],
)
def test_a_scheduler_of_ones_own_is_named_by_reference_or_given_as_an_object(scheduler: Any) -> None:
    spec = spec_of(scheduler)
    # As it stands in the journal, from which it is built again.
    again = SweepSpec.parse(json.loads(json.dumps(spec.plain())))
    for method in (method_for(spec), method_for(again)):
        for _ in range(3):
            new(method)
        assert method.points.milestones == (3,)
        decisions = [method.on_result(trial, Result(3, 0.5))[0] for trial in range(3)]
        assert [type(decision) for decision in decisions] == [Continue, Continue, Stop]
        assert decisions[2].reason == "only 2 trials are kept"  # type: ignore[union-attr]


def test_an_object_can_be_used_for_several_sweeps() -> None:
    sampler = Middle()
    first, second = method_for(spec_of(search=sampler)), method_for(spec_of(search=sampler, mode="min"))
    assert new(first) == new(second) == {"x": 0.5}


@pytest.mark.parametrize(
    ("options", "adaptive"),
    [({"search": {"algorithm": "tpe"}}, True), ({"search": Middle()}, False), ({"search": OneTrial()}, True)],
)
def test_a_method_learns_from_trials_where_its_sampler_does(options: dict[str, Any], adaptive: bool) -> None:
    assert method_for(spec_of(**options)).adaptive == adaptive


@pytest.mark.parametrize("field", ["search", "scheduler"])
def test_a_search_method_of_ones_own_stands_in_either_place_alone(field: str) -> None:
    method = method_for(spec_of(**{field: OneTrial()}))
    assert isinstance(method, OneTrial)
    assert method.setting.num_trials == 8
    assert new(method) == {"x": 0.5}
    assert isinstance(method.next(), Done)
    other = {"search": "tpe"} if field == "scheduler" else {"scheduler": "asha"}
    with pytest.raises(SpecError, match=r"give a seed only|give no scheduler"):
        method_for(spec_of(**{field: OneTrial(), **other}))


@pytest.mark.parametrize(
    "scheduler",
    [
        {"algorithm": PbtScheduler, "synch": True},
        {"algorithm": "xaytune.search.schedulers.pbt:PbtScheduler", "synch": True},
        PbtScheduler(synch=True),
    ],
)
def test_a_class_that_is_built_in_is_what_its_name_is(scheduler: Any) -> None:
    named = spec_of({"algorithm": "pbt", "synch": True}, {"algorithm": "tpe", "seed": 1})
    assert spec_of(scheduler, TpeSampler(seed=1)).plain() == named.plain()
    assert spec_of(FifoScheduler()).scheduler == spec_of().scheduler
    assert spec_of(CurvesMethod(max_t=27)).plain() == spec_of({"algorithm": "curves", "max_t": 27}).plain()
    with pytest.raises(SpecError, match="the space has no parameter 'y'"):
        spec_of(PbtScheduler(hyperparam_mutations=["y"]))


def test_a_class_that_inherits_from_one_that_is_built_in_is_ones_own() -> None:
    assert type(method_for(spec_of(KindAsha(max_t=3)))._scheduler) is KindAsha  # type: ignore[attr-defined]


def test_a_name_alone_is_its_algorithm_with_default_options() -> None:
    assert spec_of("asha", "tpe").plain() == spec_of({"algorithm": "asha"}, {"algorithm": "tpe"}).plain()


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        ("tests.search.extensions:KeepTheFrist", "tests.search.extensions has no 'KeepTheFrist'; did you mean"),
        ("no_such_package:Thing", "scheduler.algorithm: no_such_package cannot be imported: ModuleNotFoundError"),
        ("tests.search.raising:Thing", "tests.search.raising cannot be imported: RuntimeError: it raises"),
        (".relative:Thing", "scheduler.algorithm: .relative cannot be imported: TypeError"),
        ("tests.search.runs:SPACE.x", "tests.search.runs has no 'SPACE.x'"),
        (NoExtension, "scheduler.algorithm: NoExtension is no Sampler, Scheduler or SearchMethod"),
        (Middle(), "scheduler.algorithm: must be a Scheduler here (got Middle)"),
        ("tests.search.runs:SPACE", "scheduler.algorithm: must name a class"),
        ({"algorithm": KeepTheFirst, "kepe": 3}, "scheduler.kepe: unknown option 'kepe'; did you mean 'keep'?"),
        ({"algorithm": KeepTheFirst, "keep": 0}, "scheduler.keep: must be greater than or equal to 1 (got 0)"),
    ],
)
def test_what_is_wrong_with_a_reference_is_said_in_words(scheduler: Any, message: str) -> None:
    with pytest.raises(SpecError) as raised:
        method_for(spec_of(scheduler))
    assert message in str(raised.value)


def test_an_objects_options_are_checked_where_it_is_made() -> None:
    with pytest.raises(SpecError, match="kepe: unknown option 'kepe'; did you mean 'keep'"):
        KeepTheFirst(kepe=1)


@pytest.mark.parametrize("scheduler", ["fifo", "curves"])
def test_points_to_evaluate_may_hold_lists_and_what_is_no_number(scheduler: str) -> None:
    space = {"betas": [{"uniform": [0.8, 0.9]}, 0.999], "size": ({"choice": [1, 2]}, 3), "fill": math.nan}
    points = [{"betas": [0.85, 0.999], "size": (2, 3)}, {"betas.0": 0.9, "betas.1": 0.999, "size": (1, 3)}]
    method = method_for(spec_of(scheduler, space=space, points_to_evaluate=points))
    first, second = new(method), new(method)
    assert same(first, {"betas": [0.85, 0.999], "size": (2, 3), "fill": math.nan})
    assert same(second, {"betas": [0.9, 0.999], "size": (1, 3), "fill": math.nan})


def test_points_come_first_in_a_grid_and_no_combination_is_left_out_or_tried_twice() -> None:
    space = {"a": {"choice": [1, 2, 3]}, "b": {"choice": ["x", "y"]}}
    points = [{"a": 3, "b": "x"}]
    method = method_for(spec_of(search="grid", space=space, num_samples=1, points_to_evaluate=points))
    configs = [new(method) for _ in range(6)]
    assert configs[0] == {"a": 3, "b": "x"}
    assert len({json.dumps(config) for config in configs}) == 6
    assert method.next() == Done()


def test_a_large_grid_is_neither_made_nor_compared_as_a_whole() -> None:
    space = {f"p{index}": {"grid": [0, 1, 2, 3]} for index in range(12)}
    spec = spec_of(space=space, num_samples=1)
    assert spec.num_trials == 4**12
    method = method_for(spec)
    assert [new(method)["p11"] for _ in range(5)] == [0, 1, 2, 3, 0]


def test_conditional_combinations_are_counted_and_enumerated_the_same() -> None:
    space = {
        "a": {"choice": [1, 2]},
        "b": {"randint": [0, 3], "when": {"a": 1}},
        "c": {"choice": ["x", "y"], "when": {"a": 2}},
        "d": {"randint": [0, 4]},
    }
    spec = spec_of(search="grid", space=space, num_samples=1)
    points = list(spec.space.grid(spec.gridded))
    assert spec.num_trials == len(points) == len({json.dumps(point) for point in points}) == (3 + 2) * 4


def test_a_discrete_space_is_used_up_and_the_sweep_says_so() -> None:
    method = method_for(spec_of(search="tpe", space={"a": {"randint": [0, 5]}}, num_samples=9))
    configs = []
    for trial in range(5):
        configs.append(new(method)["a"])
        method.on_end(trial, End("failed"))
    assert sorted(configs) == [0, 1, 2, 3, 4]
    assert method.next() == Done("the space is used up: all of its 5 configurations were tried")


def test_a_population_waits_for_all_its_trials_where_a_point_is_given_twice_in_a_space_that_is_used_up() -> None:
    options = {"algorithm": "pbt", "perturbation_interval": 1, "synch": True}
    space = {"a": {"randint": [0, 3]}}
    method = method_for(spec_of(options, space=space, num_samples=9, points_to_evaluate=[{"a": 1}] * 2))
    assert sorted(new(method)["a"] for _ in range(4)) == [0, 1, 1, 2]
    assert method.next() == Wait()
    decided = [len(method.on_result(trial, Result(1, float(trial)))) for trial in range(4)]
    assert decided == [2, 2, 2, 3]  # a pause and a kept checkpoint each; the last one's lets one take over another


@pytest.mark.parametrize("scheduler", ["fifo", "pbt", "curves"])
@pytest.mark.parametrize(
    "large", [{"randint": [1, 200_001]}, {"lograndint": [1, 10**6]}, {"quniform": [0, 1, 1e-6]}]
)
def test_a_space_of_more_values_than_can_be_tried_each_is_drawn_from(
    scheduler: str, large: dict[str, Any]
) -> None:
    method = method_for(spec_of(scheduler, space={"n": large, "kind": {"choice": ["a", "b"]}}))
    assert len({json.dumps(new(method)) for _ in range(8)}) == 8
    assert method.next() == (Wait() if scheduler == "pbt" else Done())


def test_without_a_number_of_samples_random_draws_never_end_and_a_grid_or_population_is_refused() -> None:
    method = method_for(unlimited("asha"))
    assert len({new(method)["x"] for _ in range(100)}) == 100
    method = method_for(unlimited("hyperband"))
    assert len({new(method)["x"] for _ in range(100)}) == 100
    for spec in (unlimited("pbt"), unlimited(search="grid", space={"a": {"choice": [1, 2]}})):
        with pytest.raises(SpecError, match="num_samples: must be given"):
            method_for(spec)


def unlimited(scheduler: Any = "fifo", **options: Any) -> SweepSpec:
    """The spec of a sweep that a budget ends."""
    return spec_of(scheduler, **options).model_copy(update={"num_samples": -1})


@pytest.mark.parametrize("algorithm", ["random", "qmc", "tpe", "gp", "cmaes"])
def test_integers_of_any_size_are_drawn(algorithm: str) -> None:
    space = {"x": {"uniform": [0, 1]}, "seed": {"randint": [0, 2**63 - 1]}, "n": {"lograndint": [1, 2**40]}}
    search = {"algorithm": algorithm} | ({"n_startup_trials": 2} if algorithm in ("tpe", "gp") else {})
    method = method_for(spec_of(search=search, space=space))
    for trial in range(4):
        config = new(method)
        assert isinstance(config["seed"], int)
        assert 0 <= config["seed"] < 2**63 - 1
        assert 1 <= config["n"] < 2**40
        method.on_end(trial, End("completed", config["x"]))
