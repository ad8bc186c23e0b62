"""However a run ends, train_end fires once, last, after error; what was told to stop leaves a checkpoint."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.models import checkpoints, loader, make_trainer
from xaytune.trainer.callbacks import EVENTS, Event, TrainState
from xaytune.trainer.trainer import Trainer

STEP = ["step_start", "step_end"]


def record(trainer: Trainer) -> list[str]:
    events: list[str] = []
    for event in EVENTS:
        trainer.callbacks.on(event)(lambda state, event=event: events.append(event))
    return events


def at(trainer: Trainer, event: Event, step: int, do: Callable[[TrainState], Any]) -> None:
    @trainer.callbacks.on(event)
    def handler(state: TrainState) -> None:
        if state.global_step == step:
            do(state)


def raises(error: BaseException) -> Callable[[TrainState], None]:
    def handler(state: TrainState) -> None:
        raise error

    return handler


def test_a_finished_run_fires_every_event_at_its_place(tmp_path: Path) -> None:
    trainer = make_trainer(num_epochs=2, eval_loader=loader(), checkpoint_dir=tmp_path)
    events = record(trainer)
    state = trainer.fit()
    evaluation = ["eval_start", "eval_end"]
    first = ["epoch_start", *STEP * 6, *evaluation, "epoch_end"]
    second = ["epoch_start", *STEP * 6, *evaluation, "checkpoint_saved", "epoch_end"]
    assert events == ["train_start", *first, *second, "train_end"]
    assert (state.epoch, state.step, state.global_step, state.should_stop) == (1, 6, 12, False)
    assert checkpoints(tmp_path) == ["step-00000012.pt"]


def test_a_stop_after_a_step_ends_through_checkpoint_epoch_end_and_train_end(tmp_path: Path) -> None:
    trainer = make_trainer(eval_loader=loader(), checkpoint_dir=tmp_path)
    events = record(trainer)
    at(trainer, "step_end", 2, TrainState.stop_training)
    state = trainer.fit()
    assert events == ["train_start", "epoch_start", *STEP * 2, "checkpoint_saved", "epoch_end", "train_end"]
    assert state.global_step == 2
    assert checkpoints(tmp_path) == ["step-00000002.pt"]


def test_a_stop_at_the_end_of_an_epoch_trains_no_further_step(tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint_dir=tmp_path)
    events = record(trainer)
    at(trainer, "epoch_end", 6, TrainState.stop_training)
    assert trainer.fit().global_step == 6
    assert events[-3:] == ["epoch_end", "checkpoint_saved", "train_end"]
    assert events.count("step_end") == 6


def test_a_stop_before_the_first_step_trains_none(tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint_dir=tmp_path)
    events = record(trainer)
    at(trainer, "train_start", 0, TrainState.stop_training)
    assert trainer.fit().global_step == 0
    assert events == ["train_start", "checkpoint_saved", "train_end"]


def test_max_steps_ends_the_run_with_an_evaluation_and_a_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(max_steps=8, eval_loader=loader(), checkpoint_dir=tmp_path)
    events = record(trainer)
    assert trainer.fit().global_step == 8
    assert events[-5:] == ["eval_start", "eval_end", "checkpoint_saved", "epoch_end", "train_end"]


@pytest.mark.parametrize(
    "event", ["train_start", "epoch_start", "step_start", "step_end", "eval_end", "epoch_end"]
)
def test_a_handler_that_raises_fails_the_run_after_error_and_train_end(event: Event, tmp_path: Path) -> None:
    trainer = make_trainer(num_epochs=1, eval_loader=loader(), checkpoint_dir=tmp_path)
    events = record(trainer)
    trainer.callbacks.on(event)(raises(RuntimeError("broken handler")))
    with pytest.raises(RuntimeError, match="broken handler"):
        trainer.fit()
    assert events[-2:] == ["error", "train_end"]
    assert (events.count("error"), events.count("train_end")) == (1, 1)
    assert trainer.state.metrics["error"] == "RuntimeError: broken handler"


def test_a_model_that_raises_fails_the_run_after_error_and_train_end() -> None:
    trainer = make_trainer(loss_fn=lambda outputs, targets: outputs @ targets)
    events = record(trainer)
    with pytest.raises(RuntimeError):
        trainer.fit()
    assert events == ["train_start", "epoch_start", "step_start", "error", "train_end"]


def test_train_end_fires_even_if_a_handler_of_error_raises() -> None:
    trainer = make_trainer()
    events = record(trainer)
    at(trainer, "step_end", 1, raises(RuntimeError("first")))
    trainer.callbacks.on("error")(raises(ValueError("second")))
    with pytest.raises(ValueError, match="second"):
        trainer.fit()
    assert events[-2:] == ["error", "train_end"]


def test_a_handler_of_train_end_that_raises_does_not_fire_it_again() -> None:
    trainer = make_trainer()
    events = record(trainer)
    trainer.callbacks.on("train_end")(raises(RuntimeError("at the end")))
    with pytest.raises(RuntimeError, match="at the end"):
        trainer.fit()
    assert events.count("train_end") == 1
    assert "error" not in events


def test_ctrl_c_stops_the_run_through_its_loop_and_is_raised_at_the_end(tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint_dir=tmp_path)
    events = record(trainer)
    at(trainer, "step_start", 3, lambda state: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert events[-3:] == ["checkpoint_saved", "epoch_end", "train_end"]
    assert "error" not in events
    assert trainer.state.global_step == 4
    assert signal.getsignal(signal.SIGINT) is before


def test_a_second_ctrl_c_ends_the_run_at_once_through_error_and_train_end() -> None:
    trainer = make_trainer()
    events = record(trainer)

    def twice(state: TrainState) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at(trainer, "step_start", 3, twice)
    with pytest.raises(KeyboardInterrupt):
        trainer.fit()
    assert events[-2:] == ["error", "train_end"]
    assert trainer.state.global_step == 3


def test_a_pause_unwinds_the_run_without_an_end(tmp_path: Path) -> None:
    class Pause(BaseException):
        pass

    trainer = make_trainer(checkpoint_dir=tmp_path)
    events = record(trainer)
    at(trainer, "step_end", 2, raises(Pause()))
    with pytest.raises(Pause):
        trainer.fit()
    assert events[-1] == "step_end"


def test_a_run_without_a_checkpoint_dir_keeps_no_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer()
    events = record(trainer)
    trainer.fit()
    assert "checkpoint_saved" not in events
    with pytest.raises(ValueError, match="no checkpoint_dir"):
        trainer.save_checkpoint()
