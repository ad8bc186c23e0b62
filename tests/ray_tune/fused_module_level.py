"""A recipe as people have them: the model and the loader are made once, at the top of the module."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader

from tests.models import CLASSES, FEATURES, dataset, loader
from xaytune import Trainer, TrainState, Trial

torch.manual_seed(3)
MODEL = nn.Linear(FEATURES, CLASSES)
ORDER = torch.Generator().manual_seed(7)
BATCHES: DataLoader[Any] = DataLoader(dataset(), 8, shuffle=True, generator=ORDER)
BACKBONE = nn.Linear(FEATURES, FEATURES).requires_grad_(False)


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    return Trainer(
        MODEL,
        optimizer=torch.optim.SGD(MODEL.parameters(), lr=config["x"]),
        loss_fn=F.cross_entropy,
        train_loader=BATCHES,
        eval_loader=loader(shuffle=False),
        num_epochs=2,
        trial=trial,
    ).fit()


def unfreezes(config: dict[str, Any], trial: Trial) -> TrainState:
    @trial.callbacks.on("epoch_start")
    def unfreeze(state: TrainState) -> None:
        BACKBONE.requires_grad_(state.epoch > 0)

    model = nn.Sequential(BACKBONE, nn.ReLU(), nn.Linear(FEATURES, CLASSES))
    return Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=config["x"]),
        loss_fn=F.cross_entropy,
        train_loader=loader(),
        eval_loader=loader(shuffle=False),
        num_epochs=3,
        trial=trial,
    ).fit()


def raises_for_some(config: dict[str, Any], trial: Trial) -> TrainState:
    if config["number"] in (0, 3, 4):
        raise ValueError("not this one")
    model = nn.Linear(FEATURES, CLASSES)
    return Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=F.cross_entropy,
        train_loader=loader(),
        eval_loader=loader(shuffle=False),
        num_epochs=2,
        trial=trial,
    ).fit()


def raises_always(config: dict[str, Any], trial: Trial) -> TrainState:
    raise ValueError("none of them")
