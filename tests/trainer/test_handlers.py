from __future__ import annotations

import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.models import checkpoints, loader, make_trainer
from tests.trainer.own_loops import run_of
from xaytune.trainer.callbacks import CallbackManager, Event, TrainState
from xaytune.trainer.handlers import (
    EarlyStopping,
    GradientNorm,
    LogMetrics,
    NonFiniteGuard,
    SaveBest,
    SaveCheckpoint,
    Throughput,
    forget,
)
from xaytune.trainer.trainer import Trainer


def evaluations(handler: EarlyStopping, values: list[float]) -> int:
    """How many evaluations with these values a run gets to."""
    state = TrainState()
    for count, value in enumerate(values, start=1):
        state.metrics["eval_loss"] = value
        handler(state)
        if state.should_stop:
            return count
    return len(values) + 1


def test_early_stopping_waits_for_its_patience() -> None:
    assert evaluations(EarlyStopping("eval_loss", mode="min", patience=2), [3, 2, 2.5, 1, 1, 1, 1]) == 6
    assert evaluations(EarlyStopping("eval_loss", mode="max", patience=1), [1, 2, 3, 3]) == 4
    assert evaluations(EarlyStopping("eval_loss", mode="min", patience=1, min_delta=0.5), [3, 2.8]) == 2


def test_early_stopping_counts_what_is_not_a_number_as_no_improvement() -> None:
    for values, ends_at in (
        ([math.nan] * 5, 3),
        ([math.nan, 2, math.nan, 1, 1, 1], 6),
        ([2, math.nan, math.nan], 3),
    ):
        assert evaluations(EarlyStopping("eval_loss", mode="min", patience=2), values) == ends_at


def test_early_stopping_leaves_a_best_value_of_the_programs_own_alone() -> None:
    handler = EarlyStopping("eval_loss", mode="min", patience=1)
    state = TrainState()
    for value in (3.0, 2.0, 1.0):
        state.metrics.update(eval_loss=value, best_eval_loss=value)
        handler(state)
    assert (state.should_stop, state.metrics["best_eval_loss"]) == (False, 1.0)


def test_early_stopping_remembers_across_a_resume(tmp_path: Path) -> None:
    def run(max_epochs: int) -> TrainState:
        batches = loader(shuffle=False)
        trainer = make_trainer(lr=0.0, num_epochs=max_epochs, eval_loader=batches, checkpoint_dir=tmp_path)
        trainer.callbacks.on("eval_end")(EarlyStopping("eval_loss", mode="min", patience=3))
        return trainer.fit()

    assert not run(2).should_stop
    state = run(10)
    assert state.should_stop
    assert state.epoch == 3  # the first evaluation is the best; three more follow, over both runs


@pytest.mark.parametrize("options", [{}, {"every": 2}, {"last": True}, {"every": 2, "last": True}])
@pytest.mark.parametrize("event", ["eval_end", "epoch_end"])
def test_a_run_that_early_stopping_has_ended_is_not_trained_on_when_it_is_started_again(
    event: Event, options: dict[str, Any], tmp_path: Path
) -> None:
    def run() -> TrainState:
        batches = loader(shuffle=False)
        trainer = make_trainer(lr=0.0, num_epochs=10, eval_loader=batches, checkpoint_dir=tmp_path)
        trainer.callbacks.on(event, **options)(EarlyStopping("eval_loss", mode="min", patience=2))
        return trainer.fit()

    first, again = run(), run()
    assert first.should_stop
    assert again.global_step == first.global_step < 60


def test_a_loop_of_ones_own_that_early_stopping_has_ended_is_not_trained_on_whenever_it_was_killed(
    tmp_path: Path,
) -> None:
    def steps() -> list[int]:
        run = run_of(tmp_path)  # and its process is killed after the loop
        run.callbacks.on("eval_end", every=1)(EarlyStopping("score", mode="max", patience=2))
        for _ in run.steps(9):
            run.log(loss=1.0)
            run.report(score=0.5)
        return run.history

    assert [steps() for _ in range(3)] == [[1, 2, 3], [], []]


def test_two_that_stop_early_by_one_metric_count_by_themselves_or_the_second_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.callbacks.on("eval_end")(EarlyStopping("score", mode="max", patience=8))
    with pytest.raises(ValueError, match=r"another handler of this run: give one of them a name .* name="):
        run.callbacks.on("epoch_end")(EarlyStopping("score", mode="max", patience=3, min_delta=0.5))
    coarse = EarlyStopping("score", mode="max", patience=12, min_delta=0.5, name="coarse")
    assert repr(coarse) == "EarlyStopping('score', mode='max', patience=12, name='coarse')"
    run.callbacks.on("eval_end")(coarse)
    for _ in run.epochs(20):
        run.report(score=0.0)
    run.finish()
    assert run.state.global_step == 9
    forget(run.state.metrics, "score")
    assert run.state.metrics == {}


@pytest.mark.parametrize("options", [{"mode": "best", "patience": 1}, {"mode": "min", "patience": 0}])
def test_early_stopping_refuses_what_makes_no_sense(options: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        EarlyStopping("eval_loss", **options)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_the_guard_stops_a_run_that_is_not_finite(value: float) -> None:
    state = TrainState(metrics={"loss": value})
    NonFiniteGuard()(state)
    assert state.should_stop


def test_the_guard_lets_a_finite_run_go_on() -> None:
    trainer = make_trainer()
    trainer.callbacks.on("step_end")(NonFiniteGuard())
    assert not trainer.fit().should_stop


def test_throughput_is_a_metric_of_every_step_but_the_first() -> None:
    trainer = make_trainer(num_epochs=1)
    trainer.callbacks.on("step_end")(Throughput())
    assert trainer.fit().metrics["steps_per_second"] > 0


def with_sparse_gradients() -> Trainer:
    batches = DataLoader(TensorDataset(torch.randint(5, (16, 4)), torch.randint(3, (16,))), 8)
    return make_trainer(model=nn.EmbeddingBag(5, 3, sparse=True), train_loader=batches, num_epochs=1)


@pytest.mark.parametrize("make", [lambda: make_trainer(num_epochs=1), with_sparse_gradients])
def test_the_gradient_norm_of_a_module(make: Callable[[], Trainer]) -> None:
    trainer = make()
    trainer.callbacks.on("step_end")(GradientNorm(trainer.model, "norm"))
    metrics = trainer.fit().metrics
    assert float(metrics["norm"]) == pytest.approx(float(metrics["grad_norm"]))


def test_metrics_are_logged_where_they_are_there(caplog: pytest.LogCaptureFixture) -> None:
    callbacks = CallbackManager()
    callbacks.on("step_end", every=50)(LogMetrics("learning_rate", "phase", "missing"))
    with caplog.at_level(logging.INFO):
        for step in range(1, 101):
            callbacks.fire(
                "step_end", TrainState(global_step=step, metrics={"learning_rate": 0.125, "phase": "warm"})
            )
    assert caplog.messages == [f"step {step}: learning_rate 0.125, phase warm" for step in (50, 100)]


def test_the_checkpoint_of_the_best_evaluation_is_kept_beside_the_last(tmp_path: Path) -> None:
    scores = iter([0.1, 0.5, 0.3, float("nan"), 0.7, 0.2])
    trainer = make_trainer(
        num_epochs=6, eval_loader=loader(), eval_fn=lambda *_: {"score": next(scores)}, checkpoint_dir=tmp_path
    )
    trainer.callbacks.on("eval_end")(SaveBest(trainer, "score", mode="max"))
    trainer.fit()
    assert checkpoints(tmp_path) == ["step-00000030.pt", "step-00000036.pt"]


def test_two_that_save_the_best_of_one_metric_save_their_own_or_the_second_is_refused(tmp_path: Path) -> None:
    scores = iter([0.2, 0.5, 0.3])
    trainer = make_trainer(
        num_epochs=3, eval_loader=loader(), eval_fn=lambda *_: {"score": next(scores)}, checkpoint_dir=tmp_path
    )
    trainer.callbacks.on("eval_end")(SaveBest(trainer, "score", mode="max"))
    with pytest.raises(ValueError, match=r"SaveBest\('score', mode='min'\) would share .* name="):
        trainer.callbacks.on("eval_end")(SaveBest(trainer, "score", mode="min"))
    trainer.callbacks.on("eval_end")(SaveBest(trainer, "score", mode="min", name="worst"))
    metrics = trainer.fit().metrics
    assert (metrics["saved_best_score"], metrics["saved_best_worst"]) == (0.5, 0.2)
    assert checkpoints(tmp_path) == [f"step-{n:08d}.pt" for n in (6, 12, 18)]
    forget(metrics, "score")
    assert not [name for name in metrics if "score" in name or "worst" in name]


def test_one_handler_may_be_called_at_two_events_each_of_which_is_a_check(tmp_path: Path) -> None:
    trainer = make_trainer(num_epochs=9, eval_loader=loader(), checkpoint_dir=tmp_path)
    trainer.callbacks.on("train_start")(lambda state: state.metrics.update(same=0.0))
    for handler in (SaveBest(trainer, "same", mode="max"), EarlyStopping("same", mode="max", patience=4)):
        trainer.callbacks.on("eval_end")(handler)
        trainer.callbacks.on("epoch_end")(handler)
    assert trainer.fit().epoch == 2


def test_a_checkpoint_every_n_steps(tmp_path: Path) -> None:
    trainer = make_trainer(checkpoint_dir=tmp_path)
    trainer.callbacks.on("step_end", every=7)(SaveCheckpoint(trainer))
    trainer.fit()
    assert checkpoints(tmp_path) == [f"step-{n:08d}.pt" for n in (7, 14, 18)]
