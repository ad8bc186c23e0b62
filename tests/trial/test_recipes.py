"""What becomes of recipes as people write them first: by ``try``, in this process."""

from __future__ import annotations

import functools
import multiprocessing
import pickle
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
import torch

import xaytune
from tests.campaigns import recipes
from tests.models import make_trainer
from xaytune.errors import SkipTrial
from xaytune.in_process.timing import time_training
from xaytune.in_process.trying import try_configuration
from xaytune.messages import Ended
from xaytune.report.plan import cost
from xaytune.sweep.spec import SweepSpec
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.current import set_current_trial
from xaytune.trial.common.recipe import ByValue, resolve
from xaytune.trial.run.trial import Trial


@pytest.fixture(autouse=True)
def no_trial_left() -> Iterator[None]:
    yield
    set_current_trial(None)


def spec_of(recipe: Any, metric: str = "score") -> dict[str, Any]:
    return {"recipe": recipe, "metric": metric, "mode": "max", "space": {"x": {"uniform": [0, 1]}}}


def attempt(recipe: Any, metric: str = "score") -> Ended:
    spec = SweepSpec.parse(spec_of(recipe, metric))
    return try_configuration(spec, {"x": 0.25}, on_start=lambda config: None, on_epoch_end=lambda state: None)


@pytest.mark.parametrize("form", ["number", "mapping"])
def test_what_a_recipe_returns_is_its_value_where_it_reported_nothing(form: str) -> None:
    def objective(config: Mapping[str, float], trial: Trial) -> Any:
        return config["x"] if form == "number" else {"score": config["x"], "loss": 2.0}

    ended = attempt(objective)
    assert (ended.status, ended.epoch, ended.global_step) == ("completed", 1, 1)
    assert ended.best is not None
    assert ended.best.value == 0.25
    assert ended.metrics.get("loss") == (2.0 if form == "mapping" else None)


@pytest.mark.parametrize(
    ("returned", "what"),
    [
        (None, "returned nothing"),
        ("0.5", "returned a str"),
        ((0.5, 3), "returned a tuple"),
        ({"loss": 1.0}, "returned a mapping of loss"),
        ([], "returned a list"),
    ],
)
def test_a_recipe_that_reports_nothing_is_told_what_came_back_and_how_to_report(returned: Any, what: str) -> None:
    ended = attempt(lambda config, trial: returned)
    assert ended.status == "failed"
    assert ended.failure is not None
    assert ended.failure.kind == "no_metric"
    assert what in str(ended.reason)
    assert "trial.report(score=...)" in str(ended.reason)


def test_a_cached_function_of_a_script_is_refused_with_where_to_define_it(monkeypatch: pytest.MonkeyPatch) -> None:
    @functools.cache
    def train(config: Any, trial: Trial) -> None: ...

    train.__module__, train.__qualname__ = "__main__", "train"
    with monkeypatch.context() as script:
        script.setattr(sys.modules["__main__"], "train", train, raising=False)
        sent = ByValue(train, cloudpickle.dumps([train]), 0)
    with pytest.raises(ValueError, match=r"__main__:train cannot be made: .*; define it in a module"):
        resolve(sent)


def test_a_recipe_skips_its_configuration_by_an_exception_with_the_reason() -> None:
    def train(config: Mapping[str, float], trial: Trial) -> None:
        for _ in trial.epochs(3):
            trial.report(score=0.9)
            raise SkipTrial("too wide for its depth")

    ended = attempt(train)
    assert (ended.status, ended.reason) == ("stopped", "skipped: too wide for its depth")
    assert ended.failure is not None
    assert ended.failure.kind == "skipped"


@pytest.mark.filterwarnings("default")
@pytest.mark.ray
def test_ray_tunes_report_is_told_of_at_its_first_call_with_what_to_write_instead() -> None:
    calls = []

    def train(config: Mapping[str, float], trial: Trial) -> None:
        from ray import tune

        for epoch in range(9):
            calls.append(epoch)
            tune.report({"score": 1.0})

    ended = attempt(train)
    assert ended.status == "failed"
    assert "Ray's report() does nothing" in str(ended.reason)
    assert "trial.report(score=...)" in str(ended.reason)
    assert calls == [0]


@pytest.mark.parametrize("name", ["error", "err"])
@pytest.mark.parametrize("starts", [True, False])
def test_error_is_fired_once_whatever_a_metric_is_called(name: str, starts: bool) -> None:
    heard: list[Any] = []

    def train(config: Mapping[str, float], trial: Trial) -> None:
        trial.callbacks.on("error")(lambda state: heard.append(dict(state.metrics)))
        trial.callbacks.on("train_end")(lambda state: heard.append("train_end"))
        state = TrainState(num_epochs=3, metrics={name: 0.5})
        if starts:
            trial.callbacks.fire("train_start", state)
        state.step = state.global_step = 1
        trial.callbacks.fire("step_end", state)
        raise ValueError("no more data")

    ended = attempt(train, metric=name)
    text = {} if name == "error" else {"error": "ValueError: no more data"}
    assert heard == [{name: 0.5} | text, "train_end"]
    assert ended.metrics == {name: 0.5}


def test_a_loop_that_fires_its_own_error_is_not_told_of_it_again() -> None:
    heard: list[str] = []

    def train(config: Mapping[str, float], trial: Trial) -> None:
        trial.callbacks.on("error")(lambda state: heard.append("error"))
        trial.callbacks.on("train_end")(lambda state: heard.append("train_end"))
        state = TrainState()
        trial.callbacks.fire("train_start", state)
        trial.callbacks.fire("error", state)
        raise ValueError("no more data")

    assert attempt(train).status == "failed"
    assert heard == ["error", "train_end"]


def test_a_state_that_is_returned_is_reported_where_no_event_was_fired() -> None:
    ended = attempt(lambda config, trial: TrainState(metrics={"score": 0.5}))
    assert ended.best is not None
    assert (ended.status, ended.best.value, ended.global_step) == ("completed", 0.5, 1)


@pytest.mark.slow
def test_random_recipes_end_and_are_shown_with_values_that_their_histories_hold() -> None:
    recipes.run(10, seed=4)


@pytest.mark.parametrize("keeps", [False, True])
def test_a_loop_that_keeps_nothing_is_told_that_no_checkpoint_is_written(keeps: bool) -> None:
    def recipe(config: Mapping[str, float], trial: Trial) -> None:
        model = torch.nn.Linear(1, 1)
        if keeps:
            trial.keep(model=model)
        for epoch in trial.epochs(3):
            trial.report(score=epoch)

    told = [note for note in attempt(recipe).notes if "call trial.keep(model=model, optimizer=optimizer)" in note]
    assert len(told) == (not keeps)


FORKS: dict[str, Callable[[Trial], object]] = {
    "a loop": lambda trial: next(trial.epochs(3)),
    "a step": lambda trial: trial.log(score=1.0),
    "a report": lambda trial: trial.report(score=1.0),
    "a stop": lambda trial: trial.stop("good enough"),
    "a Trainer": lambda trial: make_trainer(num_epochs=1, trial=trial).fit(),
    "events": lambda trial: trial.callbacks.fire("epoch_end", TrainState(epoch=1, step=1, global_step=2)),
}


@pytest.mark.parametrize("use", FORKS.values(), ids=FORKS)
def test_a_fork_of_the_recipes_process_is_refused_the_trial_which_goes_on(use: Callable[[Trial], object]) -> None:
    refused: list[str] = []

    def recipe(config: Mapping[str, float], trial: Trial) -> None:
        for epoch in trial.epochs(2):
            if epoch == 1:
                refused.append(words_of_a_fork(lambda: use(trial)))
            trial.report(score=epoch)

    ended = attempt(recipe)
    assert "belongs to the process of its recipe; hand it there what was measured here" in refused[0]
    assert (ended.status, ended.epoch, ended.global_step) == ("completed", 2, 2)


def test_a_trial_that_would_be_sent_to_another_process_is_refused_with_what_to_send_instead() -> None:
    def recipe(config: Mapping[str, float], trial: Trial) -> None:
        pickle.dumps((config, trial))  # as those that are spawned are sent their arguments

    assert "give other processes what they need of it, such as trial.config" in str(attempt(recipe).reason)


def words_of_a_fork(call: Callable[[], object]) -> str:
    """Returns the words of the error that a call raises in a fork of this process."""
    forks = multiprocessing.get_context("fork")
    words = forks.SimpleQueue()

    def tell() -> None:
        try:
            words.put(f"returned {call()}")
        except RuntimeError as error:
            words.put(str(error))

    fork = forks.Process(target=tell)
    fork.start()
    fork.join()
    return str(words.get())


def test_a_folder_beside_xaytunes_own_is_the_users_in_a_traceback() -> None:
    code = "import json\ndef fails(config, trial):\n    json.loads('no json')\n"
    names: dict[str, Any] = {}
    exec(compile(code, f"{Path(xaytune.__file__).parent}_sweeps/fails.py", "exec"), names)
    ended = attempt(names["fails"])
    assert ended.failure is not None
    assert "in fails" in ended.failure.traceback


@pytest.mark.parametrize("scheduler", [{"algorithm": "fifo"}, {"algorithm": "asha", "time_attr": "global_step"}])
def test_a_run_by_steps_is_timed_by_some_of_them(scheduler: dict[str, Any]) -> None:
    trained: list[int] = []

    def steps(config: Mapping[str, float], trial: Trial) -> None:
        trial.callbacks.on("step_end")(lambda state: trained.append(state.global_step))
        for step in trial.steps(3000):
            trial.log(score=float(step))

    spec = SweepSpec.parse({**spec_of(steps), "scheduler": scheduler, "num_samples": 4})
    timing = time_training(spec)
    assert trained[-1] == 60
    assert timing.units == 3000
    assert "s a step here" in cost(spec, timing)


def test_a_loop_that_counts_several_steps_at_once_is_timed_by_them() -> None:
    def steps(config: Mapping[str, float], trial: Trial) -> TrainState:
        state = TrainState(max_steps=3000)
        trial.callbacks.fire("train_start", state)
        while not state.should_stop and state.global_step < 3000:
            state.global_step += 7
            trial.callbacks.fire("step_end", state)
        trial.callbacks.fire("train_end", state)
        return state

    timing = time_training(SweepSpec.parse(spec_of(steps)))
    assert timing.unit_s is not None
    assert timing.axis.by_step


def test_a_run_that_ends_with_its_epoch_is_timed_by_it_though_steps_limit_it_too() -> None:
    def one_epoch(config: Mapping[str, float], trial: Trial) -> TrainState:
        return make_trainer(num_epochs=1, max_steps=200_000, trial=trial).fit()

    timing = time_training(SweepSpec.parse(spec_of(one_epoch)))
    assert (timing.axis.by_step, timing.units) == (False, 1)
