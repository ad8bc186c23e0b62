"""Handwritten digits (8x8 pixels, 10 classes) from scikit-learn: an MLP and a small CNN."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from xaytune import Trainer, TrainState, Trial
from xaytune.trainer.handlers import SaveBest


@cache
def datasets() -> tuple[TensorDataset, TensorDataset]:
    """Returns 1347 digits to train on and 450 to evaluate on, pixels from 0 to 1."""
    images, labels = load_digits(return_X_y=True)
    parts = train_test_split(images / 16.0, labels, test_size=0.25, random_state=0, stratify=labels)
    x_train, x_eval, y_train, y_eval = (torch.as_tensor(part) for part in parts)
    return TensorDataset(x_train.float(), y_train), TensorDataset(x_eval.float(), y_eval)


def mlp(hidden: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, hidden),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden, 10),
    )


def cnn(channels: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)),
        nn.Conv2d(1, channels, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(channels, channels, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(channels * 16, 10),
    )


def optimizer_for(model: nn.Module, config: dict[str, Any]) -> torch.optim.Optimizer:
    if config["optimizer"] == "sgd":
        return torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=config["momentum"])
    return torch.optim.AdamW(model.parameters(), lr=config["lr"])


def fit(model: nn.Module, config: dict[str, Any], trial: Trial) -> TrainState:
    train_set, eval_set = datasets()
    trainer = Trainer(
        model,
        optimizer=optimizer_for(model, config),
        loss_fn=F.cross_entropy,
        train_loader=DataLoader(train_set, batch_size=64, shuffle=True),
        eval_loader=DataLoader(eval_set, batch_size=450),
        num_epochs=27,
        clip_grad_norm=5.0,
        trial=trial,
    )

    # A callback of the recipe's own, registered with this trial alone.
    @trial.callbacks.on("eval_end")
    def measure_sparsity(state: TrainState) -> None:
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        state.metrics["small_weights"] = (weights.abs() < 1e-3).float().mean()

    # After it: a checkpoint holds the metrics that were measured before it was written.
    trial.callbacks.on("eval_end")(SaveBest(trainer, "eval_accuracy", mode="max"))
    return trainer.fit()


def train(config: dict[str, Any], trial: Trial) -> TrainState:
    """Trains an MLP: `hidden`, `dropout`, `lr`, `optimizer` and, for sgd, `momentum`."""
    return fit(mlp(config["hidden"], config["dropout"]), config, trial)


def train_cnn(config: dict[str, Any], trial: Trial) -> TrainState:
    """Trains a CNN: `channels`, `dropout`, `lr`, `optimizer` and, for sgd, `momentum`."""
    return fit(cnn(config["channels"], config["dropout"]), config, trial)
