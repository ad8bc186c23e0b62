from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("accelerate")

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState

from xaytune.testing.training import JudgedRun, TrainingContract

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="class")
def _forgotten() -> Iterator[None]:
    """Accelerate keeps its first settings for as long as a process lives; a trial's process is its own."""
    _forget()  # those of other files' tests
    yield
    _forget()


def _forget() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    PartialState._reset_state()


class TestAccelerate(TrainingContract):
    recipe = "tests.integrations.accelerate_recipes:train"


class TestHalfPrecision(TrainingContract):
    recipe = "tests.integrations.accelerate_recipes:half_precision"
    judged_by = ("epoch",)
    kills = 1


def test_what_is_prepared_trains_with_the_rates_of_its_own_configuration(tmp_path: Path) -> None:
    def rates(folder: str, rate: float, epochs: int) -> list[float]:
        run = JudgedRun(tmp_path / folder)
        accelerator = Accelerator(cpu=True)
        model = torch.nn.Linear(2, 1)
        optimizer = torch.optim.SGD(model.parameters(), rate)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=9)
        model, optimizer, schedule = accelerator.prepare(model, optimizer, schedule)
        run.keep(accelerator=accelerator, optimizer=optimizer)
        found = []
        for _ in run.epochs(epochs):
            accelerator.backward(model(torch.ones(1, 2)).mean())
            optimizer.step()
            found.append(float(optimizer.param_groups[0]["lr"]))
            schedule.step()
        run.finish()
        return found

    rates("one", 0.1, 3)
    assert rates("one", 0.02, 6) == pytest.approx(rates("other", 0.02, 6)[3:])


@pytest.mark.parametrize("kept_first", [False, True])
def test_batches_that_accumulate_are_one_step_whether_kept_or_prepared_first(
    kept_first: bool, tmp_path: Path
) -> None:
    run = JudgedRun(tmp_path)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    if kept_first:
        run.keep(accelerator=accelerator)
    model = torch.nn.Linear(2, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    if not kept_first:
        run.keep(accelerator=accelerator)
    for batch in run.steps(list(torch.ones(8, 1, 2))):
        with accelerator.accumulate(model):
            accelerator.backward(model(batch).mean())
            optimizer.step()
            optimizer.zero_grad()
    run.finish()
    assert run.state.global_step == 2
