"""Models, losses and schedules that do more than usual: fused they end as they would alone, or are refused."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, StepLR

from tests.trainer.odd_programs import (
    FACTORS,
    Once,
    Program,
    assert_ends_as_alone,
    at,
    from_the_second_epoch,
    mlp,
    sgd,
    trainer_of,
)
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.trainer import Trainer


def penalised(beta: Callable[[], float]) -> Callable[[Any, Any], Any]:
    def step(model: Any, batch: Any) -> Any:
        outputs = model(batch[0])
        return F.cross_entropy(outputs, batch[1]) + beta() * outputs.square().mean()

    return step


class TwoDropouts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.drop = nn.Linear(6, 8), nn.Linear(8, 2), nn.Dropout(0.3)

    def forward(self, x: Tensor) -> Any:
        return self.last(F.dropout(self.drop(self.first(x)), 0.2, self.training))


def drops_twice(member: int, once: Once) -> Trainer:
    return trainer_of(TwoDropouts())


def smooths_labels(member: int, once: Once) -> Trainer:
    loss = nn.CrossEntropyLoss(torch.tensor([1.0, 2.0]).double(), label_smoothing=0.1)
    return trainer_of(mlp(nn.Dropout(0.3)), loss_fn=loss)


def draws_its_rate(member: int, once: Once) -> Trainer:
    optimizer = sgd(model := mlp())
    schedule = LambdaLR(optimizer, lambda steps: random.uniform(0.5, 1))
    return trainer_of(model, optimizer=optimizer, lr_scheduler=schedule, lr_interval="step")


class ByNorm(LRScheduler):
    def get_lr(self) -> list[float | Tensor]:
        groups = self.optimizer.param_groups
        return [b / float(g["params"][0].detach().norm()) for b, g in zip(self.base_lrs, groups, strict=True)]


def rates_by_norm(interval: str) -> Callable[[int, Once], Trainer]:
    def build(member: int, once: Once) -> Trainer:
        optimizer = sgd(model := mlp(), lr=0.3 * FACTORS[member])
        return trainer_of(model, optimizer=optimizer, lr_scheduler=ByNorm(optimizer), lr_interval=interval)

    return build


class Shrinking(StepLR):
    def get_lr(self) -> list[float | Tensor]:
        if self.last_epoch == 8:
            with torch.no_grad():
                self.optimizer.param_groups[0]["params"][0].mul_(0.5)
        return super().get_lr()


def shrinks_by_its_schedule(member: int, once: Once) -> Trainer:
    optimizer = sgd(model := mlp())
    return trainer_of(model, optimizer=optimizer, lr_scheduler=Shrinking(optimizer, 5), lr_interval="step")


def anneals_an_attribute_of_its_loss(member: int, once: Once) -> Trainer:
    step: Any = penalised(lambda: step.beta)
    step.beta = 0.0

    def anneal(state: TrainState) -> None:
        step.beta = FACTORS[member] * state.epoch

    return at("epoch_start", trainer_of(mlp(), training_step=step), anneal)


def anneals_by_a_bound_method(member: int, once: Once) -> Trainer:
    config = {"beta": 0.0}
    get = config.get

    def step(model: Any, batch: Any) -> Any:
        outputs = model(batch[0])
        return F.cross_entropy(outputs, batch[1]) + (get("beta") or 0.0) * outputs.square().mean()

    trainer = trainer_of(mlp(), training_step=step)
    return at("epoch_start", trainer, lambda state: config.update(beta=FACTORS[member] * state.epoch))


def anneals_what_its_model_captures(member: int, once: Once) -> Trainer:
    config = {"tau": 1.0}

    class Heated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Any:
            return self.net(x) / config["tau"]

    trainer = trainer_of(Heated())
    return at("epoch_start", trainer, lambda state: config.update(tau=FACTORS[member] ** state.epoch))


def has_a_class_of_its_own(member: int, once: Once) -> Trainer:
    class Penalised(nn.Module):
        penalties = (0.1 * FACTORS[member],)

        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Any:
            return self.net(x)

    def step(model: Any, batch: Any) -> Any:
        return (
            F.cross_entropy(model(batch[0]), batch[1]) + model.penalties[0] * model.net[0].weight.square().mean()
        )

    return trainer_of(Penalised(), training_step=step)


def counts_its_calls(member: int, once: Once) -> Trainer:
    def step(model: Any, batch: Any) -> Any:
        step.calls += 1  # type: ignore[attr-defined]
        return F.cross_entropy(model(batch[0]), batch[1]) * (1 + 0.01 * step.calls)  # type: ignore[attr-defined]

    step.calls = 0  # type: ignore[attr-defined]
    return trainer_of(mlp(), training_step=step)


class Student(nn.Module):
    """A model with a copy of itself that follows it: the momentum encoder of MoCo, the target of BYOL."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net, self.target = net, copy.deepcopy(net).requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


def follow(target: nn.Module, net: nn.Module) -> None:
    with torch.no_grad():
        for mine, other in zip(target.parameters(), net.parameters(), strict=True):
            mine.lerp_(other, 0.1)


def distilled(model: Any, batch: Any, target: nn.Module) -> Any:
    outputs = model(batch[0])
    return F.cross_entropy(outputs, batch[1]) + F.mse_loss(outputs, target(batch[0]))


def has_a_momentum_encoder(member: int, once: Once) -> Trainer:
    def step(model: Any, batch: Any) -> Any:
        follow(model.target, model.net)
        return distilled(model, batch, model.target)

    return trainer_of(Student(mlp()), training_step=step)


class Following(Student):
    def forward(self, x: Tensor) -> Any:
        if self.training:
            follow(self.target, self.net)
        return self.net(x) + self.target(x)


def follows_in_its_forward(member: int, once: Once) -> Trainer:
    return trainer_of(Following(mlp()))


def captures_a_momentum_encoder(member: int, once: Once) -> Trainer:
    net = mlp()
    target = copy.deepcopy(net).requires_grad_(False)

    def step(model: Any, batch: Any) -> Any:
        follow(target, model)
        return distilled(model, batch, target)

    return trainer_of(net, training_step=step)


def captures_one_that_a_handler_moves(member: int, once: Once) -> Trainer:
    net = mlp()
    target = copy.deepcopy(net).requires_grad_(False)
    trainer = trainer_of(net, training_step=lambda model, batch: distilled(model, batch, target))
    return at("step_end", trainer, lambda state: follow(target, net))


def captures_a_wide_one(member: int, once: Once) -> Trainer:
    net = nn.Sequential(nn.Linear(6, 4000), nn.ReLU(), nn.Linear(4000, 2)).double()
    target = copy.deepcopy(net).requires_grad_(False)
    trainer = trainer_of(net, training_step=lambda model, batch: distilled(model, batch, target))

    def move(state: TrainState) -> None:
        for mine, other in zip(target.parameters(), net.parameters(), strict=True):
            mine.data.lerp_(other.data, 0.1)

    return at("step_end", trainer, move)


def has_a_momentum_encoder_that_a_handler_moves(member: int, once: Once) -> Trainer:
    model = Student(mlp())
    trainer = trainer_of(model, training_step=lambda model, batch: distilled(model, batch, model.target))
    return at("step_end", trainer, lambda state: follow(model.target, model.net))


def counts_in_a_tensor(member: int, once: Once) -> Trainer:
    calls = torch.zeros(())

    def step(model: Any, batch: Any) -> Any:
        calls.add_(1)
        return F.cross_entropy(model(batch[0]), batch[1]) * (1 + 0.01 * calls)

    return trainer_of(mlp(), training_step=step)


def remembers_its_last_outputs(member: int, once: Once) -> Trainer:
    memory: list[Tensor] = []

    def step(model: Any, batch: Any) -> Any:
        outputs = model(batch[0])
        loss = F.cross_entropy(outputs, batch[1])
        if memory:
            loss = loss + F.mse_loss(outputs, memory[-1])
        memory.append(outputs.detach())
        return loss

    return trainer_of(mlp(), training_step=step)


def holds(make: Callable[[], Any]) -> Program:
    return lambda member, once: trainer_of(changed(mlp(), make()))


def holds_later(make: Callable[[], Any]) -> Program:
    def build(member: int, once: Once) -> Trainer:
        trainer = trainer_of(mlp())
        return from_the_second_epoch(trainer, lambda: changed(trainer.model, make()))

    return build


def changed(model: nn.Module, held: Any) -> nn.Module:
    model.held = held
    return model


def captures_what_is_sparse(member: int, once: Once) -> Trainer:
    weights = sparse()
    return trainer_of(mlp(), loss_fn=lambda outputs, y: F.cross_entropy(outputs, y) * weights.to_dense().mean())


def sparse() -> Tensor:
    return torch.eye(3).to_sparse()


def itself() -> list[Any]:
    within: list[Any] = []
    within.append(within)
    return within


# What cannot be compared with what another run has.
HELD: dict[str, Callable[[], Any]] = {
    "a sparse tensor": sparse,
    "a sparse buffer": lambda: nn.Buffer(sparse()),
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged),
    "a tensor without numbers": lambda: torch.ones(3, device="meta"),
    "a conjugated tensor": lambda: torch.ones(3, dtype=torch.complex64).conj(),
    "a list that is in itself": itself,
}
PROGRAMS: dict[str, Program] = {
    **{held: holds(make) for held, make in HELD.items()},
    **{f"{held}, made by a handler": holds_later(make) for held, make in HELD.items() if "buffer" not in held},
    "a loss that captures what is sparse": captures_what_is_sparse,
    "a layer that is lazy": lambda member, once: trainer_of(nn.Sequential(nn.LazyLinear(8), nn.Linear(8, 2))),
    "a momentum encoder": has_a_momentum_encoder,
    "a momentum encoder that its loss captures": captures_a_momentum_encoder,
    "a momentum encoder that moves in forward": follows_in_its_forward,
    "one that a handler moves": has_a_momentum_encoder_that_a_handler_moves,
    "one that its loss captures, and a handler moves": captures_one_that_a_handler_moves,
    "a wide one that its loss captures, and a handler moves": captures_a_wide_one,
    "a loss that counts in a tensor": counts_in_a_tensor,
    "a loss that remembers outputs": remembers_its_last_outputs,
    "dropout beside what cannot be computed at once": drops_twice,
    "dropout beside a loss that cannot": smooths_labels,
    "a schedule that draws": draws_its_rate,
    "a schedule by step that reads weights": rates_by_norm("step"),
    "a schedule by epoch that reads weights": rates_by_norm("epoch"),
    "a schedule that changes weights": shrinks_by_its_schedule,
    "an attribute of a loss": anneals_an_attribute_of_its_loss,
    "a bound method of a dict": anneals_by_a_bound_method,
    "a dict that a local model captures": anneals_what_its_model_captures,
    "a tuple of a local class": has_a_class_of_its_own,
    "a loss that counts": counts_its_calls,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_run_with_an_odd_model_loss_or_schedule_ends_as_it_would_alone(program: str) -> None:
    assert_ends_as_alone(PROGRAMS[program])
