"""A loop whose counts cannot be right is told so at once; one that may be meant is understood."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.trial.reported_loop import Loop
from xaytune.messages import Assignment
from xaytune.trainer.callbacks import TrainState


def test_a_loop_that_never_sets_the_epoch_is_told_at_its_second(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path).start().steps(4, score=0.1).end_epoch()
    loop.state.epoch = 0
    loop.steps(4)
    with pytest.raises(ValueError, match=r"state\.epoch 0, and that epoch had ended before: set state\.epoch"):
        loop.callbacks.fire("epoch_end", loop.state)


def test_a_loop_that_counts_epochs_from_one_is_told_at_its_first_step(tmp_path: Path) -> None:
    loop = Loop("epoch", (1, 3), tmp_path, epoch=1)
    with pytest.raises(ValueError, match=r"the first step of all has state\.epoch 1"):
        loop.steps(1)


@pytest.mark.parametrize("steps", [[0], [1, 1], [2, 1]])
def test_a_loop_that_does_not_count_its_steps_is_told_at_once(tmp_path: Path, steps: list[int]) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    for step in steps[:-1]:
        loop.state.global_step = step
        loop.callbacks.fire("step_end", loop.state)
    loop.state.global_step = steps[-1]
    with pytest.raises(
        ValueError, match=rf"state\.global_step {steps[-1]} after step .*count each optimizer step"
    ):
        loop.callbacks.fire("step_end", loop.state)


def test_a_run_that_begins_within_another_is_refused_and_the_rows_of_that_stay(tmp_path: Path) -> None:
    loop = Loop("epoch", (), tmp_path).start()
    loop.steps(2, score=0.5)
    with pytest.raises(RuntimeError, match="train_start was fired after the first step"):
        loop.callbacks.fire("train_start", TrainState())
    assert [row.global_step for row in loop.reporter.unreported.rows] == [1, 2]


@pytest.mark.parametrize("epoch", [2, 3])
def test_a_loop_that_resumes_with_the_index_of_its_last_epoch_is_judged_as_one_with_their_number(
    tmp_path: Path, epoch: int
) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(12,), last_judged=3, judged_step=12)
    loop = Loop("epoch", (1, 3, 5), tmp_path, assignment=resumed, epoch=epoch, global_step=12).start()
    loop.state.epoch = 3
    loop.steps(4, score=0.4).end_epoch().steps(4, score=0.5).end_epoch()
    assert loop.decisions == [(5, 0.5, True)]


def test_a_loop_that_resumes_with_an_epoch_that_cannot_be_is_told_at_once(tmp_path: Path) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(12,), last_judged=3, judged_step=12)
    loop = Loop("epoch", (1, 3, 5), tmp_path, assignment=resumed, global_step=12).start()
    with pytest.raises(
        ValueError, match=r"it resumes after step 12, where 3 epochs were finished, with state\.epoch 0"
    ):
        loop.steps(1)


def test_a_loop_that_is_restored_after_train_start_keeps_the_history_before(tmp_path: Path) -> None:
    resumed = Assignment(trial=0, seed=0, config={}, checkpoints=(4, 8))
    loop = Loop("epoch", (), tmp_path, assignment=resumed).start()
    loop.state.epoch, loop.state.global_step = 2, 8
    ended = loop.steps(4).end_epoch().end()
    assert (ended.resumed_at, ended.epoch) == (8, 3)
