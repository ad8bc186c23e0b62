from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from xaytune.trainer.callbacks import EVENTS, CallbackManager, TrainState


def test_the_published_state_has_these_fields_and_defaults() -> None:
    assert dataclasses.asdict(TrainState()) == {
        "step": 0,
        "epoch": 0,
        "global_step": 0,
        "num_epochs": 0,
        "max_steps": -1,
        "metrics": {},
        "should_stop": False,
    }
    assert TrainState().metrics is not TrainState().metrics


def test_stop_training_asks_the_run_to_stop() -> None:
    state = TrainState()
    state.stop_training()
    assert state.should_stop


def test_the_published_events_are_these() -> None:
    assert set(EVENTS) == {
        "train_start", "train_end", "epoch_start", "epoch_end", "step_start", "step_end",
        "eval_start", "eval_end", "checkpoint_saved", "error",
    }  # fmt: skip


def test_handlers_run_in_the_order_of_their_registration_and_get_the_state() -> None:
    callbacks, calls, state = CallbackManager(), [], TrainState()
    for name in "abc":
        callbacks.on("step_end")(lambda given, name=name: calls.append((name, given)))
    callbacks.fire("step_end", state)
    assert [name for name, _ in calls] == ["a", "b", "c"]
    assert all(given is state for _, given in calls)


def test_on_returns_the_function_unchanged() -> None:
    def handler(state: TrainState) -> None: ...

    assert CallbackManager().on("step_end", every=3)(handler) is handler


def test_a_handler_registered_last_runs_after_those_registered_later() -> None:
    callbacks, calls = CallbackManager(), []
    callbacks.on("step_end", last=True)(lambda state: calls.append("last"))
    callbacks.on("step_end")(lambda state: calls.append("first"))
    callbacks.fire("step_end", TrainState())
    assert calls == ["first", "last"]


def test_a_handler_may_register_another_while_its_event_is_fired() -> None:
    callbacks, calls = CallbackManager(), []

    @callbacks.on("step_end")
    def first(state: TrainState) -> None:
        calls.append("first")
        callbacks.on("step_end")(lambda state: calls.append("second"))

    callbacks.fire("step_end", TrainState())
    assert calls == ["first"]
    callbacks.fire("step_end", TrainState())
    assert calls == ["first", "first", "second"]


@pytest.mark.parametrize(
    ("event", "states", "expected"),
    [
        ("step_end", [TrainState(global_step=n) for n in range(1, 7)], [2, 4, 6]),
        ("epoch_end", [TrainState(global_step=10 * n, epoch=n - 1) for n in range(1, 5)], [20, 40]),
        ("eval_end", [TrainState(global_step=n) for n in (3, 6, 9, 12)], [6, 12]),
    ],
)
def test_every_n_counts_the_progress_of_its_event(
    event: Any, states: list[TrainState], expected: list[int]
) -> None:
    callbacks, steps = CallbackManager(), []
    callbacks.on(event, every=2)(lambda state: steps.append(state.global_step))
    for state in states:
        callbacks.fire(event, state)
    assert steps == expected


def test_an_event_that_does_not_exist_is_refused_with_the_nearest_name() -> None:
    callbacks: Any = CallbackManager()
    with pytest.raises(ValueError, match="no event 'step_ended'; did you mean 'step_end'"):
        callbacks.on("step_ended")
    with pytest.raises(ValueError, match="no event 'epoch_finish'"):
        callbacks.fire("epoch_finish", TrainState())


def test_a_handler_that_cannot_take_the_state_alone_is_refused_at_registration() -> None:
    def needs_two(state: TrainState, other: int) -> None: ...

    callbacks: Any = CallbackManager()
    with pytest.raises(TypeError, match="'needs_two' of 'step_end' must take the TrainState"):
        callbacks.on("step_end")(needs_two)
    with pytest.raises(TypeError, match="must be callable"):
        callbacks.on("step_end")(3)


@pytest.mark.parametrize("every", [0, -1, 1.5, True, "2"])
def test_every_must_be_a_positive_integer(every: Any) -> None:
    with pytest.raises(ValueError, match="every must be a positive integer"):
        CallbackManager().on("step_end", every=every)


def test_what_a_handler_raises_passes_through_and_ends_the_round() -> None:
    callbacks, calls = CallbackManager(), []

    @callbacks.on("step_end")
    def fails(state: TrainState) -> None:
        raise RuntimeError("broken handler")

    callbacks.on("step_end")(lambda state: calls.append("after"))
    with pytest.raises(RuntimeError, match="broken handler"):
        callbacks.fire("step_end", TrainState())
    assert calls == []
