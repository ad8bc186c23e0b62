"""Runs whose loaders have samplers of the user's own are trained side by side as they would be alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Sampler, SequentialSampler, TensorDataset

from tests.trainer.odd_programs import Once, X, Y, assert_ends_as_alone, mlp, trainer_of
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.fused.checks import member_to_compare
from xaytune.trainer.random_state import seed_everything
from xaytune.trainer.trainer import Trainer

DATA = TensorDataset(X, Y)


def over_a_fold(member: int) -> DataLoader[Any]:
    rows = range(16 * member, 16 * member + 20)
    return DataLoader(DATA, batch_sampler=BatchSampler(rows, 10, drop_last=False))


def over_the_first(member: int) -> DataLoader[Any]:
    return DataLoader(DATA, 10, sampler=SequentialSampler(range(10 + 16 * member)))


def alike(member: int) -> DataLoader[Any]:
    return DataLoader(DATA, batch_sampler=BatchSampler(SequentialSampler(DATA), 10, drop_last=False))


@pytest.mark.parametrize("loader", [over_a_fold, over_the_first, alike])
def test_each_run_is_evaluated_on_the_rows_of_its_own_sampler(
    loader: Callable[[int], DataLoader[Any]], caplog: pytest.LogCaptureFixture
) -> None:
    def of(member: int) -> Trainer:
        seed_everything(member)
        return trainer_of(mlp(), eval_loader=loader(member))

    fused = [of(member) for member in range(3)]
    seed_everything(7)
    fit_fused(fused)
    assert not caplog.records, "no evaluation was found to differ from the same alone"
    for member, trainer in enumerate(fused):
        alone = of(member)
        seed_everything(7)
        assert trainer.state.metrics["eval_loss"] == pytest.approx(alone.fit().metrics["eval_loss"], rel=1e-6)


class Resampled(Sampler[int]):
    """Draws each row when it is asked for."""

    def __len__(self) -> int:
        return len(X)

    def __iter__(self) -> Iterator[int]:
        for _ in range(len(X)):
            yield int(torch.randint(len(X), ()))


def test_a_sampler_in_a_batch_sampler_draws_for_each_run_what_it_draws_alone() -> None:
    def program(member: int, once: Once) -> Trainer:
        batches = BatchSampler(Resampled(), 16, drop_last=False)
        return trainer_of(mlp(), train_loader=DataLoader(DATA, batch_sampler=batches))

    assert_ends_as_alone(program, members=3)


@pytest.mark.parametrize("members", [1, 2, 3, 9])
def test_every_member_is_compared_in_its_turn(members: int) -> None:
    turns = [member_to_compare(10**check, members) for check in range(members)]
    assert sorted(turns) == list(range(members))
    assert turns[-1] == 0, "all is computed with what the first one has: it shows no difference"
