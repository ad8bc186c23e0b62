"""Runs that share what training changes are not trained side by side; what it does not change may be shared."""

from __future__ import annotations

import gc
import itertools
import random
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset

from tests.trainer.odd_programs import (
    Once,
    X,
    Y,
    assert_ends_as_alone,
    ended,
    from_the_second_epoch,
    loader,
    mlp,
    sgd,
    trainer_of,
)
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.fused.held import Held, SharedError
from xaytune.trainer.trainer import Trainer

DRAWS = random.Random(0)


class Noisy(Dataset[Any]):
    """Examples with noise of a generator at the top of the module."""

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, at: int) -> tuple[Tensor, Tensor]:
        return X[at] + DRAWS.random(), Y[at]


def noisy(model: Any, batch: Any) -> Any:
    return F.cross_entropy(model(batch[0]), batch[1]) * DRAWS.random()


@pytest.mark.parametrize(
    "make",
    [
        lambda: trainer_of(mlp(), train_loader=DataLoader(Subset(Noisy(), range(48)), 16)),
        lambda: trainer_of(mlp(), training_step=noisy),
    ],
    ids=["dataset", "loss"],
)
def test_runs_that_draw_from_one_generator_of_a_module_are_refused(make: Callable[[], Trainer]) -> None:
    with pytest.raises(SharedError, match="random generator"):
        fit_fused([make() for _ in range(3)])


class Jitter:
    def __init__(self) -> None:
        self.generator = np.random.default_rng(0)

    def __call__(self, x: Tensor) -> Tensor:
        return x + self.generator.normal()


class Jittered(Dataset[Any]):
    def __init__(self) -> None:
        self.transform = Jitter()

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(X[index]), Y[index]


def shares_a_transform(member: int, once: Once) -> Trainer:
    return trainer_of(mlp(), train_loader=DataLoader(once.setdefault("data", Jittered()), 16))


def shares_workers(member: int, once: Once) -> Trainer:
    workers = once.setdefault("loader", loader(num_workers=1, persistent_workers=True))
    return trainer_of(mlp(), train_loader=workers)


def frozen() -> nn.Module:
    torch.manual_seed(0)  # the same for each trial, also where it is made for each
    return nn.Linear(6, 6).double().requires_grad_(False)


def shares_a_frozen_backbone(member: int, once: Once) -> Trainer:
    backbone = once["backbone"] if "backbone" in once else once.setdefault("backbone", frozen())
    torch.manual_seed(member)
    return trainer_of(nn.Sequential(backbone, nn.ReLU(), mlp()))


def unfreezes_it(member: int, once: Once) -> Trainer:
    trainer = shares_a_frozen_backbone(member, once)
    backbone: Any = trainer.model[0]  # type: ignore[index]
    return from_the_second_epoch(trainer, lambda: backbone.requires_grad_(True))


def unfreezes_it_for_its_optimizer(member: int, once: Once) -> Trainer:
    trainer = shares_a_frozen_backbone(member, once)
    backbone: Any = trainer.model[0]  # type: ignore[index]

    def unfreeze() -> None:
        backbone.requires_grad_(True)
        trainer.optimizer.add_param_group({"params": [*backbone.parameters()], "lr": 0.01})

    trainer.optimizer.param_groups[:] = sgd(trainer.model[2]).param_groups  # type: ignore[index]
    return from_the_second_epoch(trainer, unfreeze)


PROGRAMS = {
    "a transform with a generator": shares_a_transform,
    "persistent workers of one loader": shares_workers,
    "a frozen backbone": shares_a_frozen_backbone,
    "a frozen backbone that a handler unfreezes": unfreezes_it,
    "a frozen backbone that a handler unfreezes, and gives its optimizer": unfreezes_it_for_its_optimizer,
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_runs_that_share_something_end_as_they_would_alone_or_are_refused(program: str) -> None:
    assert_ends_as_alone(PROGRAMS[program], members=3 if "workers" in program else 5)


def test_a_backbone_that_stays_frozen_is_shared(caplog: pytest.LogCaptureFixture) -> None:
    ended(shares_a_frozen_backbone, fused=True, members=5)
    assert caplog.text == ""


def test_the_next_run_may_have_the_memory_that_tensors_of_another_were_in() -> None:
    held = Held()
    trainers = [trainer_of(mlp()) for _ in range(20)]
    for trainer in trainers:
        held.take(trainer, object())
    for parameter in itertools.chain(*(trainer.model.parameters() for trainer in trainers)):
        parameter.data = parameter.data.clone()
    trainers += [trainer_of(mlp()) for _ in range(40)]
    for trainer in trainers[20:]:
        held.take(trainer, object())


def test_what_a_run_that_has_ended_has_unfrozen_is_not_given_to_the_next() -> None:
    once: Once = {}
    first, second = (unfreezes_it(member, once) for member in range(2))
    first.fit()
    with pytest.raises(SharedError):
        fit_fused([second, shares_a_frozen_backbone(2, once)])


def test_what_a_run_has_trained_is_not_given_to_one_that_freezes_it() -> None:
    once: Once = {"backbone": frozen().requires_grad_(True)}
    first = shares_a_frozen_backbone(0, once)
    once["backbone"].requires_grad_(False)
    second = shares_a_frozen_backbone(1, once)
    once["backbone"].requires_grad_(True)
    held = Held()
    owners = object(), object()
    held.take(first, owners[0])
    once["backbone"].requires_grad_(False)
    with pytest.raises(SharedError):
        held.take(second, owners[1])


class Owner:
    """Stands for whoever may train the same again."""


def test_a_loader_of_a_run_that_has_ended_is_kept_by_nothing_nor_whose_it_was_once_another_has_ended() -> None:
    held, once, owner = Held(), Once(), Owner()
    trainer = shares_workers(0, once)
    held.take(trainer, owner)
    held.leave(trainer)
    with pytest.raises(SharedError):
        held.take(shares_workers(1, once), object())
    kept, whose = weakref.ref(once.pop("loader")), weakref.ref(owner)
    del trainer, owner
    gc.collect()
    assert kept() is None
    another = trainer_of(mlp())
    held.take(another, object())
    held.leave(another)
    assert whose() is None
