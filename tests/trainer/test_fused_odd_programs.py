"""Programs that do more than usual: fused they end as they would alone, or are refused."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader, TensorDataset

from tests.trainer.odd_programs import (
    Once,
    Program,
    X,
    Y,
    assert_ends_as_alone,
    at,
    from_the_second_epoch,
    loader,
    mlp,
    sgd,
    trainer_of,
)
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.trainer import Trainer


def hooks_a_weight(member: int, once: Once) -> Trainer:
    model = mlp()
    weight: Any = model[0].weight
    return from_the_second_epoch(
        trainer_of(model), lambda: weight.register_hook(lambda gradient: gradient.clamp(-0.001, 0.001))
    )


def clamp(model: nn.Module, size: float = 0.2) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.clamp_(-size, size)


def hooks_its_optimizer(member: int, once: Once) -> Trainer:
    optimizer = sgd(model := mlp())
    trainer = trainer_of(model, optimizer=optimizer)
    return from_the_second_epoch(trainer, lambda: optimizer.register_step_post_hook(lambda *_: clamp(model)))


def steps_by_itself_under_a_schedule(member: int, once: Once) -> Trainer:
    optimizer = sgd(model := mlp())

    def step(self: Any, closure: Any = None) -> None:
        torch.optim.SGD.step(self, closure)
        clamp(model)

    optimizer.step = types.MethodType(step, optimizer)  # type: ignore[method-assign]
    return trainer_of(model, optimizer=optimizer, lr_scheduler=StepLR(optimizer, 2))


class Counting(nn.Module):
    def __init__(self, *, in_a_buffer: bool) -> None:
        super().__init__()
        self.net, self.in_a_buffer, self.calls = mlp(), in_a_buffer, 0
        self.seen = nn.Buffer(torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        if self.in_a_buffer:
            self.seen.add_(1)
        elif not self.training:
            self.calls += 1
        return self.net(x) * (1 + 0.01 * (self.seen + self.calls)) if self.training else self.net(x)


def counts_evaluations(*, in_a_buffer: bool) -> Callable[[int, Once], Trainer]:
    def build(member: int, once: Once) -> Trainer:
        evaluated = DataLoader(TensorDataset(X, Y), 48)
        return trainer_of(Counting(in_a_buffer=in_a_buffer), eval_loader=evaluated)

    return build


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Any:
        return self.last(self.second(self.first(x).tanh()).tanh())


def ties_memory(member: int, once: Once) -> Trainer:
    model = Tied().double()
    model.second.weight.data = model.first.weight.data
    return trainer_of(model)


def ties_memory_later(member: int, once: Once) -> Trainer:
    model = Tied()

    def tie() -> None:
        model.second.weight.data = model.first.weight.data

    return from_the_second_epoch(trainer_of(model), tie)


class Masked(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.mask = nn.Linear(6, 3), nn.Parameter(torch.tensor([0.0, 0.0, -torch.inf]))

    def forward(self, x: Tensor) -> Any:
        return self.net(x) + self.mask


def masks_by_infinity(kind: Any) -> Callable[[int, Once], Trainer]:
    def build(member: int, once: Once) -> Trainer:
        model = Masked().double()
        optimizer = kind(model.parameters(), lr=0.1, weight_decay=0.01 * (member % 2))
        return trainer_of(model, optimizer=optimizer)

    return build


def normalises_in_place(member: int, once: Once) -> Trainer:
    raw = [[X[i::6] * 3 + 1, Y[i::6]] for i in range(6)]

    class Raw:
        def __len__(self) -> int:
            return len(raw)

        def __iter__(self) -> Iterator[Any]:
            return ([x.clone(), y] for x, y in raw)

    def step(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0].sub_(1).div_(3)), batch[1])

    return trainer_of(mlp(), training_step=step, train_loader=Raw())


def draws_one_gaussian(member: int, once: Once) -> Trainer:
    def step(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0] + 0.3 * np.random.randn()), batch[1])

    return trainer_of(mlp(), training_step=step)


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.head, self.other = nn.Linear(6, 8), nn.Linear(8, 2), nn.Linear(8, 2)


def has_a_second_loss_in_some_batches(member: int, once: Once) -> Trainer:
    batches = [{"x": X[i::6], "y": Y[i::6]} | ({"z": 1 - Y[i::6]} if i == 5 else {}) for i in range(6)]

    def step(model: Any, batch: Any) -> Any:
        hidden = model.trunk(batch["x"]).relu()
        loss = F.cross_entropy(model.head(hidden), batch["y"])
        return loss + F.cross_entropy(model.other(hidden), batch["z"]) if "z" in batch else loss

    return trainer_of(
        TwoHeads(), training_step=step, train_loader=batches, batch_size=lambda batch: len(batch["y"])
    )


def begins_momentum_by_a_state(member: int, once: Once) -> Trainer:
    optimizer = sgd(model := mlp())

    def begin() -> None:
        saved = optimizer.state_dict()
        saved["param_groups"][0]["momentum"] = 0.9
        optimizer.load_state_dict(saved)

    trainer = from_the_second_epoch(trainer_of(model, optimizer=optimizer), begin)
    return at("step_end", trainer, lambda state: None)


class Bag:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __repr__(self) -> str:
        return f"Bag({list(self.x.shape)})"


def takes_bags(member: int, once: Once) -> Trainer:
    def collate(rows: Any) -> Bag:
        return Bag(torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows]))

    def step(model: Any, bag: Bag) -> Tensor:
        return F.cross_entropy(model(bag.x), bag.y)

    return trainer_of(
        mlp(nn.Dropout(0.1 * member)),
        training_step=step,
        train_loader=loader(collate_fn=collate),
        batch_size=lambda bag: len(bag.y),
    )


def penalises_the_largest_weight(member: int, once: Once) -> Trainer:
    model = mlp()

    def step(model: Any, batch: Any) -> Any:
        return F.cross_entropy(model(batch[0]), batch[1]) + 0.1 * sum(p.abs().max() for p in model.parameters())

    trainer = trainer_of(model, training_step=step)
    return at("epoch_end", trainer, lambda state: clamp(model, 0.3))


class HooksActivations(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Any:
        hidden = self.first(x)
        if hidden.requires_grad:
            hidden.register_hook(lambda gradient: gradient.clamp(-0.02, 0.02))
        return self.last(hidden.relu())


def hooks_activations(member: int, once: Once) -> Trainer:
    return trainer_of(HooksActivations())


def keeps_means_of_its_own(member: int, once: Once) -> Trainer:
    config = {"momentum": 0.1 * (member + 1)}

    class Centred(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.mean = mlp(), nn.Buffer(torch.zeros(6))

        @staticmethod
        def momentum() -> float:
            return config["momentum"]

        def forward(self, x: Tensor) -> Any:
            if not self.training:
                return self.net(x - self.mean)
            self.mean.mul_(1 - self.momentum()).add_(self.momentum() * x.mean(0))
            return self.net(x - x.mean(0))

    return trainer_of(Centred())


WORDS = torch.randint(1, 11, (96, 5), generator=torch.Generator().manual_seed(1))
WORDS[48:, 3:] = 0


class Padded(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Parameter(torch.randn(11, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.out(torch.embedding(self.words, x, 0).mean(1))


def pads_by_hand(member: int, once: Once) -> Trainer:
    return trainer_of(Padded(), train_loader=DataLoader(TensorDataset(WORDS, Y), 16))


class Alias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = mlp(), nn.Buffer(torch.zeros(()).double())
        self.count: Any = self.seen

    def forward(self, x: Tensor) -> Any:
        self.seen.add_(1)
        return self.net(x) * (1 + 0.01 * (self.count - 8).clamp(min=0))


def has_a_buffer_by_two_names(member: int, once: Once) -> Trainer:
    return trainer_of(Alias().double())


def has_a_rate_that_becomes_a_tensor(member: int, once: Once) -> Trainer:
    optimizer = sgd(model := mlp())
    group = optimizer.param_groups[0]

    def lower(state: TrainState) -> None:
        if state.global_step == 2:
            group["lr"] = torch.tensor(0.1).double()
        if state.global_step > 2:
            group["lr"].mul_(0.8)

    return at("step_end", trainer_of(model, optimizer=optimizer), lower)


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Any:
        return self.net(x)


class Tripled(Plain):
    def forward(self, x: Tensor) -> Any:
        return 3 * self.net(x)


def changes_its_class(member: int, once: Once) -> Trainer:
    model = Plain()

    def swap() -> None:
        if member % 2:
            model.__class__ = Tripled

    return from_the_second_epoch(trainer_of(model), swap)


def captures_what_is_not_there(member: int, once: Once) -> Trainer:
    use = False

    def step(model: Any, batch: Any) -> Any:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return loss + extra(model) if use else loss

    if use:

        def extra(model: Any) -> float:
            return 0.0

    return trainer_of(mlp(), training_step=step)


class RefersToItself:
    def __init__(self) -> None:
        self.base = self.cross_entropy

    def cross_entropy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.base(outputs, targets)


def has_a_loss_that_refers_to_itself(member: int, once: Once) -> Trainer:
    return trainer_of(mlp(), loss_fn=RefersToItself())


class Bank(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.bank = mlp(), nn.Buffer(torch.zeros(1))

    def forward(self, x: Tensor) -> Any:
        return self.net(x) + self.bank.mean()


def grows_a_buffer(member: int, once: Once) -> Trainer:
    model = Bank()

    def grow() -> None:
        if member == 2:
            model.bank.resize_(4).fill_(1)

    return from_the_second_epoch(trainer_of(model), grow)


PROGRAMS: dict[str, Program] = {
    "a hook of a weight": hooks_a_weight,
    "a hook of the optimizer": hooks_its_optimizer,
    "a step of its own under a schedule": steps_by_itself_under_a_schedule,
    "a buffer that evaluations change": counts_evaluations(in_a_buffer=True),
    "an attribute that evaluations change": counts_evaluations(in_a_buffer=False),
    "weights in the same memory": ties_memory,
    "weights that come to be in the same memory": ties_memory_later,
    "an infinite weight, SGD": masks_by_infinity(torch.optim.SGD),
    "an infinite weight, Adam": masks_by_infinity(torch.optim.Adam),
    "batches that are changed in place": normalises_in_place,
    "one gaussian number a step": draws_one_gaussian,
    "a second loss in some batches": has_a_second_loss_in_some_batches,
    "momentum from a loaded state": begins_momentum_by_a_state,
    "batches of a class": takes_bags,
    "the largest of equal weights": penalises_the_largest_weight,
    "hooks of activations": hooks_activations,
    "means by a local class": keeps_means_of_its_own,
    "padding by hand": pads_by_hand,
    "a buffer by two names": has_a_buffer_by_two_names,
    "a rate that becomes a tensor": has_a_rate_that_becomes_a_tensor,
    "another class": changes_its_class,
    "a name that is never bound": captures_what_is_not_there,
    "a loss that refers to itself": has_a_loss_that_refers_to_itself,
    "a buffer that grows": grows_a_buffer,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_an_odd_program_ends_as_it_would_alone_or_is_refused(program: str) -> None:
    assert_ends_as_alone(PROGRAMS[program])
