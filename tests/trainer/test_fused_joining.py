"""Runs that join others, which are trained already."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.trainer.fused_models import Case, fit_joining, table, trainer_of
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
    fit_joining(trainers, steps=3)  # the others have just been evaluated
    assert first_alone == [0, 1, 2], "they show what runs of their shape train"
