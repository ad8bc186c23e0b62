"""A configuration is the same value everywhere: what is accepted comes back equal, and of the same type."""

from __future__ import annotations

import collections
import enum
import functools
import json
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.sweep.drawn import configurations, typed
from tests.sweep.values_to_import import Model, Optimizer
from xaytune.sweep import values


@pytest.mark.slow
@given(configurations)
def test_any_value_that_can_be_written_comes_back_equal_and_of_the_same_type(value: Any) -> None:
    written = json.loads(json.dumps(values.write(value), allow_nan=False))
    assert typed(values.read(written)) == typed(value)
    assert values.same(values.read(written), value)
    assert not list(values.problems(value))


@pytest.mark.slow
@given(configurations, configurations)
def test_values_have_the_same_key_where_they_are_equal_and_of_the_same_type(one: Any, other: Any) -> None:
    assert values.key(one) == values.key(values.read(values.write(one)))
    assert (values.key(one) == values.key(other)) == (typed(one) == typed(other))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3),
)


@given(json_values)
def test_what_json_has_a_word_for_is_written_as_it_is(value: Any) -> None:
    assert typed(values.write(value)) == typed(value)
    assert values.read(value) is value


@pytest.mark.parametrize(
    ("one", "other"),
    [(0, False), (1, 1.0), (1, True), ((1, 2), [1, 2]), ({1: 0}, {True: 0}), ([0], [False]), ("1", 1),
     (np.float64(1), 1.0), ({"a": 1}, {"a": 1.0}), ({1}, frozenset({1}))],
)  # fmt: skip
def test_equal_values_of_different_types_are_not_the_same(one: Any, other: Any) -> None:
    assert not values.same(one, other)
    assert values.key(one) != values.key(other)


def test_the_order_of_a_mapping_makes_no_other_value() -> None:
    assert values.same({1: "a", 2: "b"}, {2: "b", 1: "a"})
    assert values.same({"x": 1, "y": 2}, {"y": 2, "x": 1})
    assert values.same({"$map": 1, "y": 2}, {"y": 2, "$map": 1})


def test_dtypes_of_torch_are_kept_by_name() -> None:
    torch = pytest.importorskip("torch")
    assert values.write(torch.bfloat16) == {"$ref": "torch:bfloat16"}
    assert values.read(values.write(torch.nn.ReLU)) is torch.nn.ReLU


class Size(NamedTuple):
    width: int
    height: int


class OfTheScript(enum.Enum):
    A = 1


OfTheScript.__module__ = "__main__"


class Local:
    def method(self) -> None: ...


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda x: x, "cannot be imported again: give a name and look it up in the recipe"),
        (functools.partial(print, 1), "give a name and look it up in the recipe"),
        (Local().method, "cannot be imported again"),
        (OfTheScript, "OfTheScript is defined in the script or notebook itself, where trials cannot import it"),
        (OfTheScript.A, "OfTheScript.A is defined in the script or notebook itself"),
        (threading.Lock(), "cannot be kept: give a name"),
        (collections.OrderedDict(a=1), "a OrderedDict cannot be kept as what it is: give a dict"),
        (np.zeros(3), "a ndarray cannot be kept as what it is: give a list or a number"),
        (1j, "(a complex) cannot be kept"),
        (Size(1, 2), "cannot be kept"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place_and_what_to_do(
    value: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["__main__"], "OfTheScript", OfTheScript, raising=False)
    [problem] = values.problems({"opt": [1, {"act": value}]}, ("space",))
    assert problem.path == ("space", "opt", 1, "act")
    assert message in problem.message


def test_an_integer_beyond_what_python_reads_is_refused() -> None:
    assert values.read(json.loads(json.dumps(values.write(2**13_000)))) == 2**13_000
    with pytest.raises(ValueError, match="an integer of 16610 bits is too large to be kept: give its text"):
        values.write(10**5000)


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(ValueError, match="holds itself"):
        values.write(loop)
    [problem] = values.problems({"x": loop})
    assert "holds itself" in problem.message


def test_a_reference_that_cannot_be_imported_is_read_and_refused_only_where_it_would_be_used() -> None:
    missing = values.read({"opt": {"$ref": "no_such_module:Opt.SGD"}})["opt"]
    assert isinstance(missing, values.NotFound)
    assert values.text(missing) == "no_such_module:Opt.SGD"
    assert values.write(missing) == {"$ref": "no_such_module:Opt.SGD"}
    [problem] = values.problems({"opt": (1, missing)})
    assert problem.path == ("opt", 1)
    assert "no_such_module:Opt.SGD cannot be imported here: ModuleNotFoundError" in problem.message


def test_a_module_that_ends_the_process_when_it_is_imported_is_one_that_cannot_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends_the_process.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    found = values.read({"$ref": "ends_the_process:Model"})
    assert found == values.NotFound("ends_the_process:Model", "SystemExit: 0")


@pytest.mark.parametrize("data", [{"$tuple": 3}, {"$float": "huge"}, {"$numpy": ["zeros", 1]}, {"$map": [1]}])
def test_a_written_form_that_cannot_be_read_is_refused_with_what_was_got(data: Any) -> None:
    with pytest.raises(ValueError, match="not a value that can be read"):
        values.read([data])


def test_values_are_shown_in_short() -> None:
    shown = values.text({"act": Model.Block, "opt": Optimizer.SGD, "size": (8,), "lr": np.float32(0.5), "x": "a"})
    assert shown == "{act: Model.Block, opt: Optimizer.SGD, size: (8,), lr: 0.5, x: a}"
