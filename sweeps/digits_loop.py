"""Handwritten digits, trained by a loop of one's own: what is saved, reported and stopped takes five lines."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from sweeps.digits import datasets, mlp, optimizer_for
from xaytune import Trial


def train(config: dict[str, Any], trial: Trial) -> None:
    """Trains an MLP: `hidden`, `dropout`, `lr`, `optimizer` and, for sgd, `momentum`."""
    train_set, eval_set = datasets()
    images, labels = eval_set.tensors
    train_loader = DataLoader(train_set, batch_size=64, shuffle=True)
    model = mlp(config["hidden"], config["dropout"])
    optimizer = optimizer_for(model, config)

    trial.keep(model=model, optimizer=optimizer)
    for _ in trial.epochs(27):
        model.train()
        for inputs, targets in trial.steps(train_loader):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(inputs), targets)
            loss.backward()
            optimizer.step()
            trial.log(loss=loss)
        model.eval()
        with torch.no_grad():
            trial.report(eval_accuracy=(model(images).argmax(1) == labels).float().mean())
