"""A recipe is found again, or it is said why not; what it captures is told by name before anything starts."""

from __future__ import annotations

import functools
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xaytune.driver.trial_ends import never_reported
from xaytune.errors import ProblemPath, SpecError
from xaytune.sweep import references
from xaytune.sweep.options import Reference
from xaytune.sweep.shipping import check_shippable


def train(config: Any, trial: Any) -> None: ...


class Recipe:
    def __init__(self, data: Any = None) -> None:
        self.data = data

    def __call__(self, config: Any, trial: Any) -> None: ...

    def method(self, config: Any, trial: Any) -> None: ...

    @classmethod
    def build(cls, config: Any, trial: Any) -> None: ...

    @staticmethod
    def plain(config: Any, trial: Any) -> None: ...


def closure(captured: Any) -> Any:
    def inner(config: Any, trial: Any) -> Any:
        return captured

    return inner


@pytest.mark.parametrize(
    "reference", [train, Recipe, Recipe.plain, f"{__name__}:train", f"{__name__}:Recipe.plain", "no:matter"]
)
def test_functions_and_classes_of_modules_are_found_again(reference: Reference) -> None:
    assert references.not_found_again("recipe", reference) is None


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        (functools.partial(train, 1), "is a partial"),
        (Recipe().method, "is a method of an object"),
        (Recipe(), "is an object"),
        (lambda config, trial: None, "is a lambda"),
        (closure(1), "is defined inside of a function"),
    ],
)
def test_what_is_not_found_again_is_told_with_how_to_resume(reference: Reference, kind: str) -> None:
    told = references.not_found_again("callbacks", reference)
    assert told is not None
    assert kind in told
    assert told.endswith('xaytune.resume(NAME, overrides={"callbacks": ...}) can')


def test_only_what_is_found_in_the_script_itself_need_not_be_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train, "__module__", "__main__")
    told = references.not_found_again("recipe", train)
    assert told is not None
    assert told.endswith("xaytune.resume(NAME) can")
    monkeypatch.setattr(Recipe, "__module__", "__main__")
    for reference in (Recipe(), Recipe().method):
        told = references.not_found_again("recipe", reference)
        assert told is not None
        assert told.endswith('xaytune.resume(NAME, overrides={"recipe": ...}) can')


def test_a_recipe_of_the_script_itself_is_found_there_and_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "train_here", train, raising=False)
    assert references.resolve("__main__:train_here") is train
    with pytest.raises(ValueError, match=r"defined in a script or notebook, .* --set recipe=MODULE:gone"):
        references.resolve("__main__:gone")
    here: dict[ProblemPath, Reference] = {("recipe",): "__main__:train_here", ("setup",): "os:getcwd"}
    with pytest.raises(SpecError, match="recipe: train_here was defined in a script or notebook"):
        references.own_functions(here)
    monkeypatch.setattr(train, "__module__", "__main__")
    assert references.own_functions(here) == {("recipe",): train}
    with pytest.raises(ValueError, match="a lambda or a function inside of another: give it again"):
        references.resolve(f"{__name__}:closure.<locals>.inner")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import no_such_module", r"ModuleNotFoundError: No module named 'no_such_module' \(.*broken.py:1\)"),
        ("\nraise SystemExit(3)", r"it ends the process when it is imported: SystemExit: 3 \(.*broken.py:2\)"),
        ("x = (", r"SyntaxError"),
        ("def trian(config, trial): ...", "broken has no 'train'; did you mean 'trian'"),
        ("x = 3", "broken has no 'train'$"),
        ("train = 3", r"broken:train is not a function \(it is a int\)"),
        ("def train(config): ...", r"broken:train must take \(config, trial\) \(got \(config\)\)"),
    ],
)
def test_a_recipe_that_cannot_be_used_is_told_as_what_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    (tmp_path / "broken.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken", raising=False)
    with pytest.raises(SpecError, match=message):
        references.check_references({("recipe",): "broken:train"})
    monkeypatch.delitem(sys.modules, "broken", raising=False)


def test_callbacks_and_a_setup_take_what_they_are_given() -> None:
    references.check_references(references.functions_of(train, [train, Recipe()], lambda: None))
    with pytest.raises(SpecError) as raised:
        references.check_references(references.functions_of(train, [train, Recipe.method], train))
    text = str(raised.value)
    assert f"setup: {__name__}:train must take nothing (got (config: 'Any', trial: 'Any') -> 'None')" in text
    assert "callbacks.1: " in text


BIG = np.zeros(30_000_000, np.uint8)


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (closure(BIG), r"would carry 29 MB to each process: captured \(a ndarray, 29 MB\); load"),
        (functools.partial(train, BIG), r"29 MB to each process: argument 0 \(a ndarray, 29 MB\)"),
        (Recipe(BIG), r"self.data \(a ndarray, 29 MB\)"),
        (Recipe(BIG).method, r"self.data \(a ndarray, 29 MB\)"),
        (
            closure(threading.Lock()),
            r"cannot be sent .* TypeError: .*: captured \(a lock\); make such",
        ),
    ],
)
def test_what_a_recipe_captures_is_told_by_name_where_it_is_too_large_or_cannot_be_pickled(
    reference: Reference, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        check_shippable({("recipe",): reference}, 20 * 2**20)


def test_recipes_that_carry_little_or_are_found_by_name_are_sent() -> None:
    recipes = [train, closure(3), functools.partial(train, 1), f"{__name__}:train", Recipe()]
    check_shippable({("callbacks", i): one for i, one in enumerate(recipes)})


def test_a_metric_that_was_never_reported_is_told_with_the_nearest() -> None:
    problem = never_reported(train, "acc", {"accu": 1.0})
    assert str(problem) == f"metric: {__name__}:train never reported 'acc'; did you mean 'accu'?"
