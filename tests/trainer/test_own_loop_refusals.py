"""What a loop of one's own cannot mean is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.models import make_trainer
from tests.trainer.own_loops import run_of
from xaytune.errors import CheckpointError
from xaytune.testing.training import JudgedRun
from xaytune.trainer import checkpoint
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.own import OwnLoop


def test_what_a_trainer_would_not_save_is_refused(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    run.callbacks.on("step_end")(lambda state: run.memory.update(seen=1))
    with pytest.raises(RuntimeError, match=r"trial.memory in a run that something else trains"):
        make_trainer(num_epochs=1, trial=run).fit()


class Best(NamedTuple):
    """What a program may note of its best epoch."""

    epoch: int
    value: float


class Misuse:
    """Programs that are refused, by what their message says."""

    @staticmethod
    def log_twice(run: OwnLoop) -> None:
        """twice in one body of trial.steps()"""
        for _ in run.steps(2):
            run.log(loss=1.0)
            run.log(loss=2.0)

    @staticmethod
    def log_outside(run: OwnLoop) -> None:
        """outside of a loop"""
        run.log(loss=1.0)

    @staticmethod
    def log_after_the_loop(run: OwnLoop) -> None:
        """outside of a loop"""
        for _ in run.epochs(1):
            pass
        run.log(loss=1.0)

    @staticmethod
    def keep_inside(run: OwnLoop) -> None:
        """keep() within the body of a loop"""
        for _ in run.epochs(1):
            run.keep(model=nn.Linear(1, 1))

    @staticmethod
    def epochs_within_epochs(run: OwnLoop) -> None:
        """epochs do not nest"""
        for _ in run.epochs(2):
            for _ in run.epochs(2):
                pass

    @staticmethod
    def steps_within_steps(run: OwnLoop) -> None:
        """steps do not nest"""
        for _ in run.steps(2):
            for _ in run.steps(2):
                pass

    @staticmethod
    def epochs_of_a_fraction(run: OwnLoop) -> None:
        """trial.epochs() takes how many epochs, or a sequence such as range(1, 28) (got 10.0)"""
        for _ in run.epochs(10.0):  # type: ignore[call-overload]
            pass

    @staticmethod
    def epochs_of_a_word(run: OwnLoop) -> None:
        """such as range(1, 28) (got '3')"""
        for _ in run.epochs("3"):
            pass

    @staticmethod
    def fewer_steps_than_none(run: OwnLoop) -> None:
        """trial.steps() takes a loader, or how many steps (got -5)"""
        for _ in run.steps(-5):
            pass

    @staticmethod
    def within_anothers_run(run: OwnLoop) -> None:
        """trial.report() in a run that something else trains"""
        run.callbacks.fire("train_start", TrainState(num_epochs=2))
        run.report(accuracy=1.0)

    @staticmethod
    def another_metric(run: OwnLoop) -> None:
        """the sweep's metric is 'accuracy': report that in the same call, or name 'acuracy' as"""
        run.report(acuracy=1.0)

    @staticmethod
    def report_without_a_loop(run: OwnLoop) -> None:
        """trial.report() of accuracy again, outside of a loop"""
        for epoch in range(2):
            run.report(accuracy=epoch / 2)

    @staticmethod
    def report_of_a_value(run: OwnLoop) -> None:
        """trial.report() takes metrics by name"""
        run.report(0.5, 1)

    @staticmethod
    def log_of_a_mapping(run: OwnLoop) -> None:
        """trial.log(**metrics) (got {'loss': 0.5} without a name)"""
        for _ in run.steps(1):
            run.log({"loss": 0.5})

    @staticmethod
    def no_number(run: OwnLoop) -> None:
        """'accuracy' must be a number, or a tensor with one element (got a Tensor of shape (2,))"""
        run.report(accuracy=torch.ones(2))

    @staticmethod
    def a_word(run: OwnLoop) -> None:
        """'loss' must be a number, or a tensor with one element (got a str)"""
        for _ in run.steps(1):
            run.log(loss="small")

    @staticmethod
    def workers_that_live_on_in_a_loader_of_ones_own(run: OwnLoop) -> None:
        """the loader, a Loader, has persistent_workers=True"""

        class Loader(DataLoader[Any]):
            pass

        run.keep(model=nn.Linear(1, 1))
        for _ in run.steps(Loader(TensorDataset(torch.ones(4)), num_workers=1, persistent_workers=True)):
            pass

    @staticmethod
    def workers_that_live_on_behind_enumerate(run: OwnLoop) -> None:
        """trial.steps() was given enumerate(loader), and the loader has persistent_workers=True"""
        run.keep(model=nn.Linear(1, 1))
        loader = DataLoader(TensorDataset(torch.ones(4)), num_workers=1, persistent_workers=True)
        for _ in run.steps(enumerate(loader)):
            pass

    @staticmethod
    def a_named_tuple_in_the_memory(run: OwnLoop) -> None:
        """trial.memory['best'] is of the type Best, and would come back from a checkpoint as a list"""
        run.keep(model=nn.Linear(1, 1))
        for _ in run.epochs(1):
            run.memory["best"] = Best(0, 1.0)

    @staticmethod
    def nothing_to_keep(run: OwnLoop) -> None:
        """'model' cannot be kept"""
        run.keep(model=object())


MISUSES = [getattr(Misuse, name) for name in vars(Misuse) if not name.startswith("_")]


@pytest.mark.parametrize("program", MISUSES, ids=lambda program: program.__name__)
def test_misuse_is_refused_in_words(program: Any, tmp_path: Path) -> None:
    with pytest.raises((RuntimeError, TypeError, ValueError)) as refused:
        program(OwnLoop(checkpoint_dir=tmp_path, metric="accuracy"))
    assert program.__doc__ in str(refused.value)


def test_a_trainers_checkpoint_is_not_resumed_from(tmp_path: Path) -> None:
    checkpoint.save({"model": {}}, checkpoint.path_for(tmp_path, 3))
    run = run_of(tmp_path)
    with pytest.raises(CheckpointError, match="are not those of a loop of"):
        next(run.epochs(1))


def test_a_checkpoint_of_other_things_is_refused(tmp_path: Path) -> None:
    first = JudgedRun(tmp_path)
    first.keep(model=nn.Linear(1, 1))
    for _ in first.epochs(1):
        pass
    first.finish()
    second = JudgedRun(tmp_path)
    second.keep(network=nn.Linear(1, 1))
    with pytest.raises(ValueError, match="has no state of 'network'"):
        next(second.epochs(2))


def join(rank: int, store: Path) -> None:
    """Joins a group of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)


@pytest.mark.slow
def test_a_run_of_several_processes_of_which_one_has_the_trial_is_not_resumed(tmp_path: Path) -> None:
    def train(epochs: int) -> None:
        run = JudgedRun(tmp_path)
        run.keep(model=nn.Linear(1, 1))
        for _ in run.epochs(epochs):
            pass
        run.finish()

    other = multiprocessing.get_context("spawn").Process(target=join, args=(1, tmp_path / "store"))
    other.start()
    join(0, tmp_path / "store")
    try:
        train(1)
        with pytest.raises(CheckpointError, match="is trained by 2 processes, and only this one has the trial"):
            train(2)
    finally:
        distributed.destroy_process_group()
        other.join()
    train(2)
