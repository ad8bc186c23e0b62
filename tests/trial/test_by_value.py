"""Recipes and callbacks that no module has under their names, in the process of a trial."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trial.conftest import Node
from tests.trial.recipes import loop
from xaytune.messages import Ended, Refused
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.run.trial import Trial

pytestmark = pytest.mark.slow


def test_a_recipe_by_value_is_made_in_each_trial(new_node: Callable[..., Node], tmp_path: Path) -> None:
    calls: list[int] = []

    def recipe(config: dict[str, Any], trial: Trial) -> TrainState:
        calls.append(1)
        print("calls", len(calls))
        return loop(trial)

    node = new_node(recipe)
    assert [node.train(tmp_path, trial=number).output for number in range(2)] == ["calls 1\n"] * 2


def test_functions_by_value_share_their_globals_as_those_of_a_module_do(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    called: list[int] = []

    def recipe(config: dict[str, Any], trial: Trial) -> TrainState:
        print("called", called)
        return loop(trial)

    callbacks = (lambda trial, config: called.append(1), lambda trial, config: called.append(2))
    node = new_node(recipe, callbacks=callbacks)
    assert node.train(tmp_path).output == "called [1, 2]\n"


def test_the_error_of_a_recipe_by_value_shows_its_file_and_its_lines_which_are_not_there_in_the_trial(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    source = "def broken(config, trial):\n    raise ValueError  # in a cell\n"
    linecache.cache["<cell 3>"] = (len(source), None, source.splitlines(keepends=True), "<cell 3>")
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(source, "<cell 3>", "exec"), namespace)
    ended = new_node(namespace["broken"]).train(tmp_path).messages[-1]
    assert isinstance(ended, Ended)
    assert ended.failure is not None
    assert 'File "<cell 3>", line 2, in broken\n    raise ValueError  # in a cell\n' in ended.failure.traceback


def test_a_model_of_a_class_of_a_notebook_can_be_saved_whole(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    source = f"""
import torch
from tests.trial.recipes import loop

def double(x):
    return 2 * x

class Net(torch.nn.Linear):
    def __init__(self):
        super().__init__(2, 1)
        self.after = double

def build():
    return Net()

def recipe(config, trial):
    torch.save(build(), {str(tmp_path / "net.pt")!r})
    print(type(torch.load({str(tmp_path / "net.pt")!r}, weights_only=False)).__name__)
    return loop(trial)
"""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(source, namespace)
    assert new_node(namespace["recipe"]).train(tmp_path).output == "Net\n"


def test_a_recipe_by_value_that_cannot_be_made_is_told_as_that(
    new_node: Callable[..., Node], tmp_path: Path
) -> None:
    class Unmade:
        def __reduce__(self) -> Any:
            return __import__, ("not_there",)

    unmade = Unmade()
    (message,) = new_node(lambda config, trial: unmade).train(tmp_path).messages
    assert isinstance(message, Refused)
    assert "ModuleNotFoundError: No module named 'not_there'" in str(message.problems[0])
