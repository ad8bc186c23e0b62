"""Runs that join others, which are trained already."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.trainer.fused_models import CLASSES, FEATURES, Case, data_for, fit_joining, table, trainer_of
from tests.trainer.fused_oddities import ODDITIES
from tests.trainer.test_fused import compare
from xaytune.trainer.step import Step
from xaytune.trainer.trainer import Trainer


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.slow
@pytest.mark.parametrize("case", table()[1::3], ids=str)
def test_members_that_join_others_end_as_they_would_alone(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    assert compare(lambda member: trainer_of(case, member), fit=fit_joining) < 1e-10
    assert not caplog.records, "all of it is fused"


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_a_run_that_joins_others_takes_its_first_step_with_them(optimizer: str) -> None:
    first_alone: list[int] = []
    trainers = [trainer_of(Case(optimizer=optimizer, batch=11, epochs=6), member) for member in range(5)]
    for member, trainer in enumerate(trainers):

        def perform(request: Any, member: int = member, trainer: Trainer = trainer) -> Any:
            if isinstance(request, Step) and trainer.state.global_step == 0:
                first_alone.append(member)
            return Trainer.perform(trainer, request)

        trainer.perform = perform  # type: ignore[method-assign]
    fit_joining(trainers)
    assert first_alone == [0, 1, 2], "they show what runs of their shape train"


@pytest.mark.slow
@pytest.mark.parametrize("name", ODDITIES)
def test_an_odd_model_that_joins_others_is_trained_as_it_would_be_alone_or_refused(name: str) -> None:
    data, build = ODDITIES[name]
    case = Case(model=data, optimizer="adam", batch=11, epochs=4)
    assert compare(lambda member: trainer_of(case, member, build=build), fit=fit_joining) < 1e-9


class OddForLargerBatches(nn.Module):
    """Changes its batches, and counts them, where they are larger than those of the first members."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.calls = nn.Linear(FEATURES, CLASSES), 1

    def forward(self, x: Tensor) -> Tensor:
        if self.training and len(x) > 11:
            x.mul_(0.5)
            self.calls += 1
        found: Tensor = self.layer(x) / self.calls
        return found


class Examples(Dataset[Any]):
    """Tensors that are not made anew for each batch."""

    def __init__(self) -> None:
        self.data = data_for("mlp")

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        return self.data[index]


def test_a_run_that_joins_others_with_batches_of_another_size_is_trained_as_it_would_be_alone() -> None:
    def make(member: int) -> Trainer:
        loader = DataLoader(Examples(), 11 if member < 3 else 22, shuffle=True)
        return trainer_of(Case(batch=11, epochs=6), member, build=OddForLargerBatches, train_loader=loader)

    assert compare(make, fit=fit_joining) < 1e-10
