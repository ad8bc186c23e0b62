"""A loop of one's own: its events, what it is told, and how it ends, however it is left."""

from __future__ import annotations

import gc
import itertools
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from tests.models import loader, make_trainer
from tests.trainer import own_loops
from tests.trainer.own_loops import run_of
from xaytune.testing.training import JudgedRun
from xaytune.trainer import checkpoint, checkpoint_files
from xaytune.trainer.callbacks import EVENTS, TrainState
from xaytune.trainer.own import OwnLoop
from xaytune.trainer.trainer import Trainer


def rows(run: OwnLoop) -> list[tuple[int, int, int, dict[str, Any]]]:
    """What a history records: the state at the end of each step, with what was measured before the next."""
    found: list[tuple[int, int, int, dict[str, Any]]] = []

    @run.callbacks.on("step_end")
    def add(state: TrainState) -> None:
        found.append((state.epoch, state.step, state.global_step, dict(state.metrics)))

    @run.callbacks.on("eval_end")
    def update(state: TrainState) -> None:
        found[-1][3].update(state.metrics)

    return found


def test_epochs_without_steps_have_a_row_each_with_what_was_reported_in_them(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    found = rows(run)
    for epoch in run.epochs(3):
        run.report(score=0.1 * epoch)
    run.finish()
    assert found == [(0, 1, 1, {"score": 0.0}), (1, 1, 2, {"score": 0.1}), (2, 1, 3, {"score": 0.2})]
    assert run.state.num_epochs == 3


def test_a_report_belongs_to_the_steps_that_were_logged_before_it(tmp_path: Path) -> None:
    evaluated: list[tuple[int, float]] = []
    run = run_of(tmp_path)
    run.callbacks.on("eval_end")(lambda state: evaluated.append((state.global_step, state.metrics["score"])))
    for step in run.steps(4):
        if step == 2:
            run.report(score=0.0)
        run.log(loss=1.0)
        if step == 3:
            run.report(score=1.0)
    run.finish()
    assert evaluated == [(2, 0.0), (4, 1.0)]


def test_of_two_reports_at_a_step_the_later_counts_which_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path)
    found = rows(run)
    for _ in run.epochs(3):
        run.report(score=0.1)
        run.report(score=0.5)
    run.finish()
    assert [metrics["score"] for *_, metrics in found] == [0.5] * 3
    assert caplog.text.count("trial.report() of score again at step 0: the later value counts") == 1


def test_a_stop_at_the_top_of_a_step_is_known_at_once_and_what_is_trained_after_it_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path, by="global_step", stop_at=2)
    told = []
    for _ in run.steps(9):
        told.append(run.report(score=1.0))
        assert run.log(loss=1.0) is told[-1]
    run.finish()
    assert told == [False, False, True]
    assert run.state.global_step == 2
    assert "told to stop at step 2 and trains on" in caplog.text


def test_a_loop_that_the_trial_does_not_see_is_told_to_stop_by_log_and_its_steps_after_that_do_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = run_of(tmp_path)
    run.callbacks.on("step_end")(lambda state: state.stop_training() if state.global_step == 5 else None)
    told = [run.log(loss=1.0) for _ in run.epochs(3) for _ in range(4)]
    run.finish()
    assert told == [False] * 4 + [True] * 4
    assert run.history == [1, 2, 3, 4, 5]
    assert caplog.text.count("trains on") == 1


def test_a_loop_left_by_break_ends_through_checkpoint_epoch_end_and_train_end(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for _ in run.epochs(9):
        for step in run.steps(4):
            run.log(loss=1.0)
            if step == 1:
                break
        break
    run.finish()
    assert run.order().endswith("SsCet")
    again = run_of(tmp_path)
    assert list(again.epochs(9)) == []
    again.finish()
    assert again.order() == "Tt"


def test_an_epoch_left_by_break_is_finished_if_a_report_was_the_last_it_did(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for epoch in run.epochs(9):
        run.report(score=epoch)
        if epoch == 2:
            break
    run.finish()
    assert (run.state.epoch, run.state.global_step) == (2, 3)
    assert run.order().endswith("ESsVvCet")


def test_a_loop_left_by_return_within_a_function_ends_as_by_break(tmp_path: Path) -> None:
    def train(run: JudgedRun) -> int:
        for step in run.steps(9):
            run.log(loss=1.0)
            if step == 3:
                return step
        raise AssertionError

    run = run_of(tmp_path)
    train(run)
    run.finish()
    assert run.history == [1, 2, 3, 4]
    assert run.order().endswith("SsCet")


def test_an_exception_saves_nothing_and_fires_error_and_train_end(tmp_path: Path) -> None:
    run = OwnLoop(checkpoint_dir=tmp_path)
    run.keep()
    events: list[str] = []
    for event in EVENTS:
        run.callbacks.on(event)(lambda state, event=event: events.append(event))
    try:
        for _ in run.steps(9):
            run.log(loss=1.0)
            raise ValueError("broken")
    except ValueError as error:
        run.finish(error)
    assert events == ["train_start", "epoch_start", "step_start", "step_end", "error", "train_end"]
    assert run.state.metrics["error"] == "ValueError: broken"
    assert not checkpoint_files.list_checkpoints(tmp_path)


def test_an_exception_that_the_program_catches_is_a_break(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    try:
        for step in run.steps(9):
            run.log(loss=1.0)
            if step == 2:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    run.finish()
    assert run.order().endswith("SsCet")
    assert run.history == [1, 2, 3]


@pytest.mark.parametrize("kept_after", [False, True])
@pytest.mark.parametrize("again", [False, True], ids=["once", "and started again"])
def test_a_run_whose_last_loop_was_left_by_break_had_the_epochs_that_it_trained(
    again: bool, kept_after: bool, tmp_path: Path
) -> None:
    for _ in range(1 + again):
        run = JudgedRun(tmp_path)
        run.keep()
        for _ in run.epochs(3):
            run.report(score=1.0)
        for epoch in run.epochs(9):
            run.report(score=1.0)
            if epoch == 1:
                break
        if kept_after:
            run.keep(model=nn.Linear(1, 1))
        run.finish()
        assert run.state.num_epochs == 5


def test_a_report_without_a_loop_is_one_epoch_of_one_step(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    found = rows(run)
    run.report(score=0.5)
    run.finish()
    assert run.order() == "TESsVvet"
    assert found == [(0, 1, 1, {"score": 0.5})]


def test_a_run_without_a_word_fires_nothing(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    run.finish()
    assert run.order() == ""


def test_numbers_of_numpy_say_how_many_epochs_and_steps_there_are(tmp_path: Path) -> None:
    run, sizes = run_of(tmp_path), dict[str, Any](epochs=np.int32(3), steps=np.int64(2))
    assert [[*run.steps(sizes["steps"])] for _ in run.epochs(sizes["epochs"])] == [[0, 1]] * 3
    run.finish()


def test_folds_count_their_epochs_on(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    epochs: list[int] = []
    run.callbacks.on("epoch_end")(lambda state: epochs.append(state.epoch))
    assert [[*run.epochs(2)] for _ in range(3)] == [[0, 1]] * 3
    run.finish()
    assert epochs == [0, 1, 2, 3, 4, 5]
    assert run.order().count("T") == run.order().count("t") == 1


@pytest.mark.parametrize("stop_at", [None, 2], ids=["by the program", "for a stop"])
def test_after_a_loop_left_by_break_another_begins_whose_things_are_not_in_its_checkpoint(
    stop_at: int | None, tmp_path: Path
) -> None:
    run = JudgedRun(tmp_path, stop_at=stop_at)
    weights = []
    for _fold in range(2):
        model = nn.Linear(1, 1)
        run.keep(model=model)
        weights.append(model.weight.detach())
        for epoch in run.epochs(5):
            run.report(score=1.0)
            if epoch == 1:
                break
    run.finish()
    saved = [checkpoint.load(path) for path in checkpoint_files.list_checkpoints(tmp_path)]
    kept = {s["place"]["loop"]: s["kept"]["model"]["state"]["weight"] for s in saved}
    assert [kept[fold] for fold in kept] == weights[: len(kept)]
    assert len(kept) == (2 if stop_at is None else 1)


def test_what_a_fold_has_trained_with_is_let_go_where_the_next_fold_takes_its_place(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    held: list[weakref.ref[Any]] = []
    for _fold in range(2):
        model = nn.Linear(1, 1)
        optimizer = torch.optim.Adam(model.parameters())
        batches = DataLoader(TensorDataset(torch.ones(1, 1)), num_workers=1, persistent_workers=True)
        held += [weakref.ref(thing) for thing in (model, optimizer, batches)]
        run.keep(model=model, optimizer=optimizer)
        for _ in run.epochs(1):
            for (inputs,) in run.steps(batches):
                model(inputs).sum().backward()
                optimizer.step()
    gc.collect()
    assert [ref() is None for ref in held] == [True] * 3 + [False] * 3
    run.finish()


def test_a_trainer_is_ended_by_the_trials_stop_too(tmp_path: Path) -> None:
    for before, steps in ((False, 4), (True, 0)):
        run = run_of(tmp_path / f"{steps}")
        trainer = make_trainer(num_epochs=3, trial=run)
        if before:
            run.stop("not worth it")
        run.callbacks.on("step_end")(lambda state, run=run: run.stop("good") if state.global_step == 4 else None)
        assert trainer.fit().global_step == steps
        assert (run.stopped, run.stop_reason) == (True, "not worth it" if before else "good")


def test_a_finished_trial_of_a_trainer_that_is_started_again_trains_nothing_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        make_trainer(num_epochs=1, trial=run_of(tmp_path)).fit()
    assert caplog.messages == ["the run was finished before, at step 6: nothing is trained"]


def test_what_is_stopped_by_the_program_finishes_its_epoch_and_says_why(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for epoch in run.epochs(9):
        run.report(score=epoch)
        if epoch == 1:
            run.stop("good enough")
    run.finish()
    assert (run.state.epoch, run.stopped, run.stop_reason) == (1, True, "good enough")
    resumed = run_of(tmp_path)
    assert next(resumed.epochs(9)) == 2


def test_a_finished_run_that_is_started_again_trains_nothing_and_has_what_it_trained(tmp_path: Path) -> None:
    first = JudgedRun(tmp_path)
    weights = own_loops.nested(first)
    first.finish()
    again = JudgedRun(tmp_path)
    assert torch.equal(own_loops.nested(again), weights)
    again.finish()
    assert again.order() == "Tt"


def test_a_new_learning_rate_takes_the_place_of_the_saved_one(tmp_path: Path) -> None:
    def train(rate: float, epochs: int) -> float:
        run = JudgedRun(tmp_path)
        model = nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), rate)
        run.keep(model=model, optimizer=optimizer)
        for _ in run.epochs(epochs):
            pass
        run.finish()
        return float(optimizer.param_groups[0]["lr"])

    train(0.1, 2)
    assert train(0.3, 4) == 0.3


def test_a_group_of_parameters_that_was_added_on_the_way_is_refused_with_what_to_do(tmp_path: Path) -> None:
    def train(epochs: int) -> None:
        run = JudgedRun(tmp_path)
        first, second = nn.Linear(2, 1), nn.Linear(2, 1)
        optimizer = torch.optim.SGD(first.parameters(), 0.1)
        run.keep(first=first, second=second, optimizer=optimizer)
        for epoch in run.epochs(epochs):
            if epoch == 1:
                optimizer.add_param_group({"params": list(second.parameters())})
        run.finish()

    train(2)
    with pytest.raises(ValueError, match="make the optimizer with all of them"):
        train(4)


def test_a_metric_that_is_logged_carries_no_graph(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    weight = torch.ones(1, requires_grad=True)
    for _ in run.steps(1):
        run.log(loss=weight * 2)
    assert type(run.state.metrics["loss"]) is float  # read at once where no device is waited for
    assert run.state.metrics["loss"] == 2.0


def test_a_logged_tensor_that_is_changed_in_place_later_stays_what_it_was(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    total, seen = torch.zeros(()), []
    run.callbacks.on("step_end")(lambda state: seen.append(float(state.metrics["total"])))
    for _ in run.steps(2):
        total += 1
        run.log(total=total)
        total *= 10
    assert seen == [1.0, 11.0]


def test_without_keep_nothing_is_saved(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    for _ in run.epochs(2):
        pass
    run.finish()
    assert not list(tmp_path.iterdir())


def test_checkpoints_that_only_the_time_asked_for_make_place_for_later_ones(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    for _ in run.epochs(9):
        pass
    run.finish()
    assert [checkpoint_files.step_of(path) for path in checkpoint_files.list_checkpoints(tmp_path)] == [7, 8, 9]
    assert run.latest_checkpoint == checkpoint.path_for(tmp_path, 9)


def test_a_body_of_steps_is_one_row_whether_or_not_it_logs_or_its_epoch_reports(tmp_path: Path) -> None:
    for logs, reports in itertools.product([False, True], repeat=2):
        run = run_of(tmp_path / f"{logs}{reports}")
        for _ in run.epochs(2):
            for _ in run.steps(3):
                if logs:
                    run.log(loss=1.0)
            if reports:
                run.report(score=1.0)
        run.finish()
        assert run.history == [1, 2, 3, 4, 5, 6]
        assert run.order().count("Vv") == (2 if reports else 0)


def test_the_run_of_a_trainer_ends_once_for_its_trial(tmp_path: Path) -> None:
    run = JudgedRun(tmp_path)
    model = own_loops.network()
    Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), 0.1),
        loss_fn=nn.functional.cross_entropy,
        train_loader=loader(),
        trial=run,
    ).fit()
    run.finish()
    assert run.order().count("t") == 1


class Interrupted(OwnLoop):
    """A run that is to be resumed when it has stopped."""

    is_pausing = True


def test_what_is_evaluated_after_an_interruption_within_an_epoch_counts_when_the_epoch_is_trained(
    tmp_path: Path,
) -> None:
    evaluated: list[tuple[int, float]] = []

    def train(run: OwnLoop, stops_at: int) -> None:
        run.keep(model=nn.Linear(1, 1))
        run.callbacks.on("step_end")(
            lambda state: state.stop_training() if state.global_step == stops_at else None
        )
        run.callbacks.on("eval_end")(lambda state: evaluated.append((state.global_step, state.metrics["score"])))
        for epoch in run.epochs(3):
            for _ in run.steps(5):
                run.log(loss=1.0)
            run.report(score=float(epoch))
        run.finish()

    train(Interrupted(checkpoint_dir=tmp_path), stops_at=7)
    assert evaluated == [(5, 0.0)]
    train(OwnLoop(checkpoint_dir=tmp_path), stops_at=-1)
    assert evaluated == [(5, 0.0), (10, 1.0), (15, 2.0)]
