"""What odd programs are made of, and how their fused runs are compared with the same alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.fused.held import SharedError
from xaytune.trainer.random_state import seed_everything
from xaytune.trainer.trainer import Trainer

X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X.sum(1) > 0).long()
FACTORS = (0.5, 1.0, 1.5, 2.0, 0.7)
# What a process makes once, for all of its runs.
Once = dict[str, Any]


def mlp(*middle: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 8), *middle, nn.ReLU(), nn.Linear(8, 2)).double()


def sgd(model: nn.Module, **options: Any) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), **{"lr": 0.1, **options})


def loader(*data: Tensor, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*(data or (X, Y))), 16, shuffle=True, **options)


def trainer_of(model: nn.Module, **options: Any) -> Trainer:
    model.double()
    options = {"optimizer": sgd(model), "train_loader": loader(), "num_epochs": 3, **options}
    if "training_step" not in options:
        options.setdefault("loss_fn", F.cross_entropy)
    return Trainer(model, device="cpu", **options)


def at(event: str, trainer: Trainer, handler: Callable[[TrainState], object]) -> Trainer:
    trainer.callbacks.on(event)(lambda state: (handler(state), None)[1])  # type: ignore[arg-type]
    return trainer


def from_the_second_epoch(trainer: Trainer, change: Callable[[], object]) -> Trainer:
    return at("epoch_start", trainer, lambda state: change() if state.epoch == 1 else None)


Program = Callable[[int, Once], Trainer]


def ended(program: Program, *, fused: bool, members: int) -> list[dict[str, Tensor]]:
    once: Once = {}
    trainers = []
    for member in range(members):
        seed_everything(100 + member)
        trainers.append(program(member, once if fused else {}))
    seed_everything(7)
    if fused:
        fit_fused(trainers)
    else:
        for trainer in trainers:
            seed_everything(7)
            trainer.fit()
    return [trainer.model.state_dict() for trainer in trainers]


def assert_ends_as_alone(program: Program, members: int = 5) -> None:
    """Fused runs end as the same would alone, or are refused."""
    try:
        fused = ended(program, fused=True, members=members)
    except SharedError:
        return
    except ExceptionGroup as errors:  # of what was found while they trained
        if errors.split(SharedError)[1] is not None:
            raise
        return
    for alone, other in zip(ended(program, fused=False, members=members), fused, strict=True):
        for name, tensor in alone.items():
            torch.testing.assert_close(other[name], tensor, rtol=1e-7, atol=1e-10, equal_nan=True)
