"""A run that goes on from the checkpoint of another configuration, as under PBT, trains with its own rates."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer, lr_scheduler
from torch.optim.lr_scheduler import ReduceLROnPlateau

from xaytune.testing.training import JudgedRun

Schedule = Callable[[Optimizer, float], Any]
SCHEDULES: dict[str, Schedule] = {
    "chained": lambda o, x: lr_scheduler.ChainedScheduler(
        [lr_scheduler.ConstantLR(o, 0.5, 4), lr_scheduler.ExponentialLR(o, x)]
    ),
    "cosine": lambda o, x: lr_scheduler.CosineAnnealingLR(o, int(10 * x)),
    "cyclic": lambda o, x: lr_scheduler.CyclicLR(o, x / 100, x, step_size_up=3),
    "exponential": lambda o, x: lr_scheduler.ExponentialLR(o, x),
    "lambda": lambda o, x: lr_scheduler.LambdaLR(o, lambda step: x**step),
    "linear": lambda o, x: lr_scheduler.LinearLR(o, x / 7, total_iters=8),
    "multiplicative": lambda o, x: lr_scheduler.MultiplicativeLR(o, lambda step: x),
    "multistep": lambda o, x: lr_scheduler.MultiStepLR(o, [2, 4], x),
    "one cycle": lambda o, x: lr_scheduler.OneCycleLR(o, x, total_steps=12),
    "plateau": lambda o, x: ReduceLROnPlateau(o, factor=x, patience=0, threshold=9.0, threshold_mode="abs"),
    "polynomial": lambda o, x: lr_scheduler.PolynomialLR(o, 12, x),
    "sequence": lambda o, x: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o, x / 2, total_iters=2), lr_scheduler.ExponentialLR(o, x)], milestones=[2]
    ),
    "warm restarts": lambda o, x: lr_scheduler.CosineAnnealingWarmRestarts(o, 4, eta_min=x / 1000),
}


def two_groups(model: nn.Linear, rate: float) -> Optimizer:
    groups: list[dict[str, Any]] = [{"params": [model.weight], "lr": rate / 10}, {"params": [model.bias]}]
    return AdamW(groups, lr=rate)


OPTIMIZERS: dict[str, Callable[[nn.Linear, float], Optimizer]] = {
    "one group": lambda m, x: SGD(m.parameters(), lr=x, momentum=0.9),
    "two groups": two_groups,
}


def rates(folder: Path, how: tuple[Schedule, Any], epochs: int, *, option: float, rate: float) -> list[Any]:
    """Trains, and returns the rates of each epoch."""
    schedule, optimizer = how
    run = JudgedRun(folder)
    model = nn.Linear(4, 1)
    steps = optimizer(model, rate)
    scheduler = schedule(steps, option)
    run.keep(model=model, optimizer=steps, **({} if scheduler is None else {"scheduler": scheduler}))
    found = []
    for _ in run.epochs(epochs):
        model(torch.ones(2, 4)).mean().backward()
        steps.step()
        found.append([group["lr"] for group in steps.param_groups])
        if scheduler is not None:
            scheduler.step(*([1.0] if isinstance(scheduler, ReduceLROnPlateau) else []))
    run.finish()
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("changed", [{"rate": 0.02}, {"option": 0.5}, {"rate": 0.02, "option": 0.5}, {}])
def test_a_loop_of_ones_own_goes_on_with_the_schedule_of_its_own_configuration(
    tmp_path: Path, optimizer: str, schedule: str, changed: dict[str, float]
) -> None:
    how = SCHEDULES[schedule], OPTIMIZERS[optimizer]
    before: dict[str, float] = {"option": 0.7, "rate": 0.1}
    rates(tmp_path / "one", how, 5, **before)
    resumed = rates(tmp_path / "one", how, 9, **(before | changed))
    expected = rates(tmp_path / "other", how, 9, **(before | changed))
    if schedule == "plateau" and "option" in changed:  # what it did before stays: it followed what was measured
        assert resumed[1] == pytest.approx([changed["option"] * rate for rate in resumed[0]])
    else:
        for mine, other in zip(resumed, expected[5:], strict=True):
            assert mine == pytest.approx(other)


@pytest.mark.parametrize("now", ["none", *SCHEDULES])
@pytest.mark.parametrize("before", ["linear", "one cycle", "cosine", "sequence", "plateau"])
def test_a_loop_of_ones_own_goes_on_with_another_kind_of_schedule_as_if_from_its_beginning(
    tmp_path: Path, before: str, now: str
) -> None:
    schedule = (SCHEDULES | {"none": lambda o, x: None})[now]
    optimizer = OPTIMIZERS["two groups"]
    rates(tmp_path / "one", (SCHEDULES[before], optimizer), 5, option=0.7, rate=0.1)
    resumed = rates(tmp_path / "one", (schedule, optimizer), 9, option=0.7, rate=0.1)
    expected = rates(tmp_path / "other", (schedule, optimizer), 9, option=0.7, rate=0.1)
    if now == "plateau":  # it has watched nothing yet
        expected = expected[:4] if before != "plateau" else expected[5:]
    for mine, other in zip(resumed, expected[-4:], strict=True):
        assert mine == pytest.approx(other)


def test_a_schedule_that_takes_its_place_again_is_followed_through_what_others_were_trained_by(
    tmp_path: Path,
) -> None:
    optimizer = OPTIMIZERS["two groups"]
    for now, epochs in (("exponential", 3), ("plateau", 5), ("one cycle", 7)):
        rates(tmp_path / "one", (SCHEDULES[now], optimizer), epochs, option=0.7, rate=0.1)
    again = rates(tmp_path / "one", (SCHEDULES["exponential"], optimizer), 9, option=0.7, rate=0.1)
    expected = rates(tmp_path / "other", (SCHEDULES["exponential"], optimizer), 9, option=0.7, rate=0.1)
    assert again == [pytest.approx(rate) for rate in expected[-2:]]


def test_of_two_schedules_the_one_that_is_left_is_followed_alone(tmp_path: Path) -> None:
    def train(folder: str, epochs: int, *, both: bool) -> float:
        run = JudgedRun(tmp_path / folder)
        optimizer = torch.optim.SGD([nn.Parameter(torch.ones(1))], 1.0)
        schedulers: dict[str, Any] = {"first": lr_scheduler.ExponentialLR(optimizer, 0.9)}
        if both:
            schedulers["second"] = lr_scheduler.StepLR(optimizer, 2, 0.1)
        run.keep(optimizer=optimizer, **schedulers)
        for _ in run.epochs(epochs):
            optimizer.step()
            for scheduler in schedulers.values():
                scheduler.step()
        run.finish()
        return float(optimizer.param_groups[0]["lr"])

    train("one", 4, both=True)
    assert train("one", 5, both=False) == pytest.approx(0.9**5)


def test_a_rate_that_began_at_nothing_is_followed_by_another(tmp_path: Path) -> None:
    def warm_up(optimizer: Optimizer, steps: float) -> Any:
        return lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / steps) if steps else 1.0)

    how = warm_up, OPTIMIZERS["one group"]
    rates(tmp_path / "one", how, 5, option=8, rate=0.1)
    resumed = rates(tmp_path / "one", how, 9, option=0, rate=0.1)
    assert resumed == [[pytest.approx(0.1)]] * 4


class Agent(nn.Module):
    """A model that has its own optimizer, as agents of reinforcement learning do."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.policy, self.log_std = nn.Linear(4, 1), nn.Parameter(torch.zeros(1))
        self.optimizer = SGD(self.parameters(), rate)


def test_a_model_with_an_optimizer_is_no_schedule(tmp_path: Path) -> None:
    def train(rate: float, epochs: int) -> Agent:
        run = JudgedRun(tmp_path)
        agent = Agent(rate)
        run.keep(agent=agent, optimizer=agent.optimizer)
        for _ in run.epochs(epochs):
            (agent.policy(torch.ones(2, 4)).mean() + agent.log_std.sum()).backward()
            agent.optimizer.step()
        run.finish()
        return agent

    before = train(0.1, 2)
    after = train(0.2, 2)
    assert torch.equal(before.policy.weight, after.policy.weight)
    assert train(0.2, 4).optimizer.param_groups[0]["lr"] == 0.2


def test_a_schedule_that_is_kept_between_two_loops_goes_on_as_it_was(tmp_path: Path) -> None:
    def train(folder: str, killed: bool) -> list[float]:
        run = JudgedRun(tmp_path / folder)
        optimizer = SGD(nn.Linear(4, 1).parameters(), 0.1)
        first = lr_scheduler.ExponentialLR(optimizer, 0.5)
        run.keep(optimizer=optimizer, first=first)
        for _ in run.epochs(3):
            optimizer.step()
            first.step()
        second = lr_scheduler.ExponentialLR(optimizer, 0.9)
        run.keep(second=second)
        found = []
        for epoch in run.epochs(6):
            found.append(float(optimizer.param_groups[0]["lr"]))
            optimizer.step()
            second.step()
            if killed and epoch == 3:
                return found
        run.finish()
        return found

    straight = train("straight", killed=False)
    train("run", killed=True)
    resumed = train("run", killed=False)
    assert resumed == pytest.approx(straight[-len(resumed) :])


@pytest.mark.parametrize("killed_in", [0, 1])
def test_a_run_that_goes_on_within_any_of_its_folds_trains_with_the_rates_of_its_own_configuration(
    tmp_path: Path, killed_in: int
) -> None:
    def train(folder: str, rate: float, killed: bool) -> list[float]:
        run = JudgedRun(tmp_path / folder)
        found: list[float] = []
        for fold in range(2):
            optimizer = SGD(nn.Linear(4, 1).parameters(), rate)
            scheduler = lr_scheduler.ExponentialLR(optimizer, 0.5)
            run.keep(optimizer=optimizer, scheduler=scheduler)
            for epoch in run.epochs(4):
                if killed and (fold, epoch) == (killed_in, 2):
                    return found
                found.append(float(optimizer.param_groups[0]["lr"]))
                optimizer.step()
                scheduler.step()
        run.finish()
        return found

    train("run", rate=0.1, killed=True)
    resumed = train("run", rate=0.02, killed=False)
    assert resumed == pytest.approx(train("straight", rate=0.02, killed=False)[-len(resumed) :])


@pytest.mark.parametrize("schedule", [name for name in SCHEDULES if name != "plateau"])
def test_another_kind_of_optimizer_begins_its_state_anew_and_goes_on_with_its_own_schedule(
    tmp_path: Path, schedule: str, caplog: pytest.LogCaptureFixture
) -> None:
    def adam(model: nn.Linear, rate: float) -> Optimizer:
        return AdamW(model.parameters(), rate)

    rates(tmp_path / "one", (SCHEDULES[schedule], OPTIMIZERS["one group"]), 5, option=0.7, rate=0.1)
    resumed = rates(tmp_path / "one", (SCHEDULES[schedule], adam), 9, option=0.7, rate=0.01)
    expected = rates(tmp_path / "other", (SCHEDULES[schedule], adam), 9, option=0.7, rate=0.01)
    for mine, other in zip(resumed, expected[5:], strict=True):
        assert mine == pytest.approx(other)
    assert "'optimizer' was saved with SGD: AdamW begins without its state" in caplog.text
