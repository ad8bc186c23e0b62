from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xaytune.errors import SpecError
from xaytune.sweep.space import Parameter
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
        ({"a.b": 1, "c": {"choice": [1]}}, "a.b: a parameter's name must be a string without dots (got 'a.b')"),
        ({}, "holds no parameter to search: give at least one a domain, such as {uniform: [0, 1]}"),
        ({"a": 1}, "holds no parameter to search: give at least one a domain, such as {uniform: [0, 1]}"),
        ([1], "must map parameters to domains or constants (got [1])"),
        (
            {"a": {"uniform": [0, 1], "when": {"b": 1}}, "bb": {"choice": [1]}},
            "a.when.b: there is no parameter 'b'; did you mean 'bb'?",
        ),
        (
            {"a": {"uniform": [0, 1], "when": {"b": 1}}, "b": {"uniform": [0, 1]}},
            "a.when.b: a condition needs a parameter with choice, grid or a constant value",
        ),
        (
            {"a": {"uniform": [0, 1], "when": {"b": "z"}}, "b": {"choice": ["x", "y"]}},
            "a.when.b: b never is 'z'; it is one of: x, y",
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
            {"a": {"choice": [{"uniform": [0, 1]}, 3]}},
            "a: choice: takes values, not domains: give each its own name and a 'when' (got {'uniform': [0, 1]})",
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


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
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
