from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaytune.errors import SpecError
from xaytune.sweep.domains import Float
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.space_parser import parse_space


def problems(raw: Any) -> list[str]:
    with pytest.raises(SpecError) as raised:
        parse_space(raw)
    return [str(problem) for problem in raised.value.problems]


def first_value(parameter: Parameter) -> Any:
    values = parameter.domain.values()
    return values[0] if values is not None else getattr(parameter.domain, "low", None)


def test_a_configuration_nests_as_its_space_does_and_holds_its_constants() -> None:
    space = parse_space(
        {"model": {"width": {"choice": [8, 16]}, "depth": 2}, "lr": {"uniform": [0, 1]}, "tags": ["a", "b"]}
    )
    assert space.configure(first_value) == {"model": {"width": 8, "depth": 2}, "lr": 0, "tags": ["a", "b"]}


def test_a_parameter_exists_only_where_its_condition_holds() -> None:
    space = parse_space(
        {
            "nesterov": {"choice": [True, False], "when": {"momentum": 0.9, "optimizer": "sgd"}},
            "momentum": {"choice": [0.9, 0.5], "when": {"optimizer": ["sgd", "rmsprop"]}},
            "optimizer": {"choice": ["adamw", "sgd", "rmsprop"]},
        }
    )
    for chosen, names in {
        "adamw": {"optimizer"},
        "rmsprop": {"optimizer", "momentum"},
        "sgd": {"optimizer", "momentum", "nesterov"},
    }.items():

        def suggest(parameter: Parameter, chosen: str = chosen) -> Any:
            return chosen if parameter.name == "optimizer" else first_value(parameter)

        config = space.configure(suggest)
        assert config.keys() == (names - {"nesterov"} if chosen == "rmsprop" else names)


def test_a_nested_constant_may_have_any_name() -> None:
    space = parse_space({"noise": {"value": 0.1}, "lr": {"uniform": [0, 1]}})
    assert space.constants == {"noise.value": 0.1}


def test_a_condition_may_name_a_nested_parameter_or_a_constant() -> None:
    space = parse_space(
        {
            "optimizer": {
                "name": {"choice": ["sgd"]},
                "momentum": {"choice": [1], "when": {"optimizer.name": "sgd"}},
            },
            "kind": "cnn",
            "channels": {"choice": [4], "when": {"kind": "cnn"}},
        }
    )
    assert space.configure(first_value) == {
        "optimizer": {"name": "sgd", "momentum": 1},
        "kind": "cnn",
        "channels": 4,
    }


def test_a_grid_is_every_combination_once_without_what_does_not_exist() -> None:
    space = parse_space(
        {"kind": {"grid": ["a", "b"]}, "size": {"grid": [1, 2], "when": {"kind": "a"}}, "lr": {"uniform": [0, 1]}}
    )
    gridded = tuple(p for p in space.parameters if p.domain.gridded)
    assert list(space.grid(gridded)) == [{"kind": "a", "size": 1}, {"kind": "a", "size": 2}, {"kind": "b"}]


def test_fixed_parameters_become_constants_and_unknown_ones_are_refused() -> None:
    space = parse_space({"lr": {"uniform": [0, 1]}, "width": {"choice": [8, 16]}, "depth": 2})
    assert space.fix({"lr": 0.5, "depth": 3}).configure(first_value) == {"lr": 0.5, "width": 8, "depth": 3}
    with pytest.raises(SpecError, match="no parameter 'lrr'; did you mean 'lr'"):
        space.fix({"lrr": 1})


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"a": {"uniform": [1, 1]}}, "a: uniform: low must be below high (got 1, 1)"),
        ({"a": {"loguniform": [0, 1]}}, "a: loguniform: low must be above 0 on a logarithmic scale (got 0)"),
        ({"a": {"uniform": [1]}}, "a: uniform: takes [low, high] (got [1])"),
        ({"a": {"uniform": ["x", 1]}}, "a: uniform: bounds must be numbers (got 'x')"),
        ({"a": {"uniform": [0, float("inf")]}}, "a: uniform: bounds must be finite (got 0, inf)"),
        ({"a": {"randint": [0, 1.5]}}, "a: randint: bounds must be integers (got 1.5)"),
        ({"a": {"lograndint": [0, 4]}}, "a: lograndint: low must be above 0 on a logarithmic scale (got 0)"),
        ({"a": {"quniform": [0, 1, 0.3]}}, "a: quniform: high - low must be a multiple of q (got 0, 1, 0.3)"),
        ({"a": {"quniform": [0, 1, 0]}}, "a: quniform: q must be above 0 and at most high - low (got 0)"),
        ({"a": {"choice": []}}, "a: choice: needs at least one value (got an empty list)"),
        ({"a": {"choice": [1, 1]}}, "a: choice: holds a value twice (got [1, 1])"),
        ({"a": {"choice": "abc"}}, "a: choice: takes a list of values (got 'abc')"),
        ({"a": {"unifrom": [0, 1]}}, "a.unifrom: unknown domain 'unifrom'; did you mean 'uniform'?"),
        ({"a": {"uniform": [0, 1], "q": 1}}, "a.q: a domain takes only 'when' beside 'uniform' (got 'q')"),
        ({"a..b": 1}, "a..b: a parameter's name must be text, with dots only between names (got 'a..b')"),
        ({1: {"choice": [1]}}, "1: a parameter's name must be text, with dots only between names (got 1)"),
        ({"a.b": 1, "a": {"b": {"choice": [1]}}}, "a.b: is given twice: 'a.b' is there already"),
        ({"a": {"choice": [1]}, "a.b": 1}, "a.b: is given twice: 'a' is there already"),
        (
            {"a": [{"choice": [1], "when": {"b": 1}}]},
            "a.0.when: an item of a list always exists: it has no 'when'; write a choice of whole lists",
        ),
        ({}, "holds no parameter to search: give at least one a domain, such as {uniform: [0, 1]}"),
        ({"a": 1}, "holds no parameter to search: give at least one a domain, such as {uniform: [0, 1]}"),
        ([1], "must map parameters to domains or constants (got [1])"),
        (
            {"a": {"uniform": [0, 1], "when": {"b": 1}}, "bb": {"choice": [1]}},
            "a.when.b: there is no parameter 'b'; did you mean 'bb'?",
        ),
        (
            {"a": {"uniform": [0, 1], "when": {"b": 1}}, "b": {"uniform": [0, 1]}},
            "a.when.b: a condition needs a parameter whose values can be named: one with choice, grid or randint, "
            "or a constant; write b as a choice: {choice: [...]}",
        ),
        (
            {"a": {"uniform": [0, 1], "when": {"b": "z"}}, "b": {"choice": ["x", "y"]}},
            "a.when.b: b never is 'z'; it is one of x, y",
        ),
        (
            {
                "a": {"choice": [1, 2]},
                "b": {"choice": [1, 2], "when": {"a": 1}},
                "c": {"choice": [1], "when": {"b": 2, "a": 2}},
            },
            "c.when: it can never exist: its conditions ask different values of 'a'",
        ),
        (
            {"a": {"uniform": [0, 1], "when": {"b": [3, 4]}}, "b": {"randint": [1, 4]}},
            "a.when.b: b never is 4; it is from 1 to 3",
        ),
        (
            {"a": {"low": 0.1, "high": 1, "log": True}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {loguniform: [0.1, 1]} if you mean that, or {choice: [x]} for each "
            "constant (got {'low': 0.1, 'high': 1, 'log': True})",
        ),
        (
            {"a": {"min": 0.0, "max": 1}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {uniform: [0.0, 1]} if you mean that, or {choice: [x]} for each constant "
            "(got {'min': 0.0, 'max': 1})",
        ),
        (
            {"a": {"min": 1, "max": 4}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {randint: [1, 5]} if you mean that, or {choice: [x]} for each constant "
            "(got {'min': 1, 'max': 4})",
        ),
        (
            {"a": {"distribution": "q_log_uniform_values", "min": 1, "max": 4}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {lograndint: [1, 5]} if you mean that, or {choice: [x]} for each constant "
            "(got {'distribution': 'q_log_uniform_values', 'min': 1, 'max': 4})",
        ),
        (
            {"a": {"distribution": "uniform", "min": 1, "max": 4}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {uniform: [1, 4]} if you mean that, or {choice: [x]} for each constant "
            "(got {'distribution': 'uniform', 'min': 1, 'max': 4})",
        ),
        (
            {"a": {"low": 0, "high": 11, "step": 5}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {choice: [0, 5, 10]} if you mean that, or {choice: [x]} for each constant "
            "(got {'low': 0, 'high': 11, 'step': 5})",
        ),
        (
            {"a": {"low": 0, "high": 500, "step": 5}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {choice: [0, 5, ..., 500]} if you mean that, or {choice: [x]} for each "
            "constant (got {'low': 0, 'high': 500, 'step': 5})",
        ),
        (
            {"a": {"low": 0.0, "high": 1, "step": 0.25}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {quniform: [0.0, 1, 0.25]} if you mean that, or {choice: [x]} for each "
            "constant (got {'low': 0.0, 'high': 1, 'step': 0.25})",
        ),
        (
            {"a": {"distribution": "inv_log_uniform_values", "min": 1, "max": 4}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {loguniform: [1, 4]} if you mean that, or {choice: [x]} for each constant "
            "(got {'distribution': 'inv_log_uniform_values', 'min': 1, 'max': 4})",
        ),
        (
            {"a": {"value": 3, "distribution": "constant"}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write 3 if you mean that, or {choice: [x]} for each constant "
            "(got {'value': 3, 'distribution': 'constant'})",
        ),
        (
            {"a": {"values": [1, 2]}, "b": {"uniform": [0, 1]}},
            "a: holds constants: write {choice: [1, 2]} if you mean that, or {choice: [x]} for each constant "
            "(got {'values': [1, 2]})",
        ),
        (
            {"a": {"choice": [{"name": "sgd", "momentum": {"uniform": [0, 1]}}]}},
            "a.choice.0.momentum: takes values, not domains: give each its own name and a 'when' "
            "(got {'uniform': [0, 1]})",
        ),
        (
            {"a": {"choice": [{"uniform": [0, 1]}, 3]}},
            "a.choice.0: takes values, not domains: give each its own name and a 'when' (got {'uniform': [0, 1]})",
        ),
        (
            {"a": {"choice": [1], "when": {"b": 1}}, "b": {"choice": [1], "when": {"a": 1}}},
            "the conditions of a, b need each other: none of them can ever exist",
        ),
    ],
)
def test_a_space_that_is_empty_or_contradicts_itself_is_refused(raw: Any, message: str) -> None:
    assert message in problems(raw)


def test_all_problems_of_a_space_come_at_once() -> None:
    assert len(problems({"a": {"uniform": [1, 0]}, "b": {"choice": []}, "c": {"d": {"loguniform": [0, 1]}}})) == 3


def test_a_condition_may_name_several_values_those_of_an_integer_and_whole_lists() -> None:
    space = parse_space(
        {
            "layers": {"randint": [1, 4]},
            "width_2": {"choice": [16], "when": {"layers": [2, 3]}},
            "sizes": {"choice": [(8, 8), [4]]},
            "drop": {"choice": [0.5], "when": {"sizes": (8, 8)}},
        }
    )
    for layers, sizes, expected in [(1, (8, 8), {"drop"}), (2, [4], {"width_2"}), (3, [8, 8], {"width_2"})]:
        chosen = {"layers": layers, "sizes": sizes}
        config = space.configure(lambda parameter, chosen=chosen: chosen.get(parameter.name, 0))  # type: ignore[misc]
        assert config.keys() == expected | chosen.keys()


def test_a_condition_tells_values_of_different_types_apart() -> None:
    space = parse_space({"a": {"choice": [0, False]}, "b": {"choice": [1], "when": {"a": False}}})
    assert space.configure(lambda parameter: 0) == {"a": 0}
    assert space.configure(lambda parameter: False) == {"a": False, "b": False}


def test_dots_in_a_name_nest_it() -> None:
    space = parse_space(
        {
            "optimizer.lr": {"choice": [1]},
            "optimizer": {"name": "sgd"},
            "m.w": {"choice": [2], "when": {"optimizer.lr": 1}},
        }
    )
    assert space.configure(first_value) == {"optimizer": {"lr": 1, "name": "sgd"}, "m": {"w": 2}}


def test_domains_inside_lists_and_tuples_are_drawn_and_never_constants() -> None:
    raw = {
        "layers": [{"choice": [32, 64]}, 16, {"choice": [8]}],
        "betas": ({"choice": [0.9]}, 0.999),
        "blocks": [{"width": {"choice": [3]}, "act": {"name": "relu"}}, ({"choice": [1]},)],
        "sizes": [[3, 3], {"a": 1}],
    }
    space = parse_space(raw)
    assert [p.name for p in space.parameters] == [
        "layers.0",
        "layers.2",
        "betas.0",
        "blocks.0.width",
        "blocks.1.0",
    ]
    config = space.configure(first_value)
    assert config == {
        "layers": [32, 16, 8],
        "betas": (0.9, 0.999),
        "blocks": [{"width": 3, "act": {"name": "relu"}}, (1,)],
        "sizes": [[3, 3], {"a": 1}],
    }
    assert space.values(config) == {
        "layers.0": 32, "layers.2": 8, "betas.0": 0.9, "blocks.0.width": 3, "blocks.1.0": 1,
    }  # fmt: skip
    assert space.fix({"layers.0": 64}).configure(first_value)["layers"] == [64, 16, 8]


def test_items_of_a_list_keep_their_places_where_nothing_in_one_of_them_exists() -> None:
    dropout = {"dropout": {"choice": [0.5], "when": {"opt": "sgd"}}}
    layers = [dropout, {"w": {"choice": [1]}}]
    space = parse_space({"opt": {"choice": ["adam", "sgd"]}, "layers": layers, "all": [{"in": [dropout]}]})
    config = space.configure(first_value)
    assert config == {"opt": "adam", "layers": [{}, {"w": 1}], "all": [{"in": [{}]}]}
    assert space.values(config) == {"opt": "adam", "layers.1.w": 1}
    assert space.complete(config) == config


def test_constants_are_kept_as_they_are() -> None:
    constants = {"empty": {}, "widths": {1: 32}, "inf": float("inf"), "pair": (1, 2), "nested": {"deep": {}}}
    assert parse_space({"a": {"choice": [1]}, **constants}).configure(first_value) == {"a": 1, **constants}


def test_what_cannot_be_kept_is_refused_with_its_place_in_the_space() -> None:
    found = problems({"a": {"b": {"choice": ["x", object()]}}, "y": lambda spec: 3, "act": {"$ref": "no:X"}})
    assert [line.partition(":")[0] for line in found] == ["a.b.choice.1", "y", "act"]
    assert all("give a name and look it up in the recipe" in line for line in found[:2])
    assert "no:X cannot be imported here" in found[2]


def test_a_space_holds_the_values_that_a_file_writes_in_words() -> None:
    space = parse_space({"size": {"choice": [{"$tuple": [8, 8]}]}, "clip": {"$float": "inf"}})
    assert space.configure(first_value) == {"size": (8, 8), "clip": float("inf")}


SPACE = parse_space(
    {
        "optimizer": {
            "name": {"choice": ["sgd", "adam"]},
            "momentum": {"uniform": [0, 1], "when": {"optimizer.name": "sgd"}},
        },
        "layers": [{"randint": [1, 4]}, 2, {"bias": True}],
        "drop": {"quniform": [0, 1, 0.25]},
        "depth": 2,
    }
)


@pytest.mark.parametrize(
    "written",
    [
        {"optimizer": {"name": "sgd", "momentum": 1}, "layers": [1, 2], "drop": 0.5, "depth": 2},
        {"optimizer.name": "sgd", "optimizer.momentum": 1.0, "layers": [1, 2], "drop": 0.5},
    ],
)
def test_a_configuration_that_somebody_wrote_is_completed_as_the_space_builds_it(written: dict[str, Any]) -> None:
    complete = SPACE.complete(written)
    layers = [1, 2, {"bias": True}]
    assert complete == {"optimizer": {"name": "sgd", "momentum": 1}, "layers": layers, "drop": 0.5, "depth": 2}
    assert type(complete["optimizer"]["momentum"]) is float


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop": None}, "drop: is missing"),
        ({"drop": 0.3}, "drop: must be 0 plus a multiple of 0.25 (got 0.3)"),
        ({"drop": 2}, "drop: must be from 0 to 1 (got 2)"),
        ({"drop": True}, "drop: must be a number (got True)"),
        ({"drop": "0.5"}, "drop: must be a number (got '0.5')"),
        ({"optimizer.name": "rms"}, "optimizer.name: must be one of sgd, adam (got 'rms')"),
        (
            {"optimizer.momentum": 0.5},
            "momentum: does not exist here: for that optimizer.name must be sgd",
        ),
        ({"layers": [9, 2]}, "layers.0: must be from 1 to 3 (got 9)"),
        ({"layers": [1, 3]}, "layers.1: is 2 in the space (got 3)"),
        ({"layers": [1, 2, {"bia": False}]}, "layers.2.bia: the space has no such parameter"),
        ({"layers": [1, 2, {}, 3]}, "layers.3: the space has no such parameter"),
        ({"dept": 1}, "dept: the space has no such parameter; did you mean 'depth'?"),
        ({"optimizer.name.x": 1}, "a name is a value and holds others too"),
    ],
)
def test_a_configuration_that_is_none_of_the_space_is_refused(change: dict[str, Any], message: str) -> None:
    written = {"optimizer.name": "adam", "layers": [1, 2], "drop": 0, **change}
    with pytest.raises(SpecError) as raised:
        SPACE.complete({name: value for name, value in written.items() if value is not None})
    assert message in str(raised.value)


GRID = {
    "a": {"grid": ["x", "y", "z"]},
    "b": {"grid": [1, 2], "when": {"a": ["x", "z"]}},
    "c": {"grid": [3, 4, 5]},
    "d": {"grid": [6, 7], "when": {"b": 2}},
}


def test_a_grid_has_each_combination_once_in_the_order_of_its_product() -> None:
    space = parse_space(GRID)
    points = space.grid(space.parameters)
    product = itertools.product(*(parameter.domain.values() or () for parameter in space.parameters))
    expected: list[dict[str, Any]] = []
    for values in product:
        point: dict[str, Any] = {}
        for parameter, value in zip(space.parameters, values, strict=True):
            if parameter.active(point):
                point[parameter.name] = value
        if point not in expected:
            expected.append(point)
    assert list(points) == expected
    assert [points[index] for index in range(len(points))] == expected
    assert points[-1] == expected[-1]


@pytest.mark.parametrize("domain", [{"uniform": [0, 1]}, {"randint": [0, 100_001]}, {"quniform": [0, 1, 1e-5]}])
def test_there_is_no_grid_of_values_that_cannot_be_counted(domain: dict[str, Any]) -> None:
    space = parse_space({"a": {"choice": [1, 2]}, "b": domain})
    with pytest.raises(ValueError, match="b has too many values to try each"):
        space.grid(space.parameters)


def test_a_point_of_a_grid_of_millions_is_found_without_a_list_of_them() -> None:
    space = parse_space({f"p{index}": {"grid": [0, 1, 2, 3]} for index in range(20)})
    points = space.grid(space.parameters)
    assert points.size == 4**20
    assert list(points[4**20 - 2].values()) == [3] * 19 + [2]


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)


@pytest.mark.parametrize("bounds", [(0, 0.9, 0.3), (-1, 1, 0.1), (0.1, 1, 0.05), (1e-4, 1e-3, 1e-4)])
def test_a_value_in_steps_is_as_a_person_writes_it(bounds: tuple[float, float, float]) -> None:
    low, high, q = bounds
    values = Float(low, high, q=q).values()
    assert values is not None
    assert values[0] == low
    assert values[-1] == high
    assert all(len(f"{value!r}") <= 6 for value in values)


keys = st.sampled_from(["uniform", "loguniform", "quniform", "randint", "choice", "grid", "when", "a", "b", "x.y"])
anything = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=12,
)


@given(st.dictionaries(keys, anything, max_size=4))
def test_any_mapping_is_a_space_or_is_refused_with_problems(raw: dict[str, Any]) -> None:
    try:
        space = parse_space(raw)
    except SpecError:
        return
    assert isinstance(space.configure(first_value), dict)
