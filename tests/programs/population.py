"""Recipes of a population: whatever trains, the metric is what `x` says, and ten less once it has gone on."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from xaytune import Trainer, TrainState, Trial

EPOCHS = 6


def worth(config: dict[str, Any], epoch: int) -> float:
    """What a configuration is worth after an epoch: no trial reaches what another one was worth at first."""
    return float(config["x"]) - (10 if epoch >= 2 else 0)


def own_loop(config: dict[str, Any], trial: Trial) -> None:
    trial.keep(model=nn.Linear(1, 1))
    for epoch in trial.epochs(EPOCHS):
        for _ in trial.steps(2):
            trial.log(loss=1.0)
        trial.report(acc=worth(config, epoch))


def leaves_its_loop(config: dict[str, Any], trial: Trial) -> None:
    trial.keep(model=nn.Linear(1, 1))
    for epoch in trial.epochs(EPOCHS):
        for _ in trial.steps(2):
            trial.log(loss=1.0)
        trial.report(acc=worth(config, 0))
        if epoch == 1:
            break
    print("after the loop")


def trainer(config: dict[str, Any], trial: Trial) -> TrainState:
    model, zeros = nn.Linear(1, 1), torch.zeros(4, 1)

    @trial.callbacks.on("epoch_end")
    def report(state: TrainState) -> None:
        state.metrics["acc"] = worth(config, state.epoch)

    return Trainer(
        model=model,
        optimizer=torch.optim.SGD(model.parameters(), lr=0.1),
        loss_fn=F.mse_loss,
        train_loader=DataLoader(TensorDataset(zeros, zeros), 2),
        num_epochs=EPOCHS,
        trial=trial,
    ).fit()
