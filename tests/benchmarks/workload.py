"""The workload that all peers share: the same configurations of the same loop over digits."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MAX_EPOCHS = 27
BATCH_SIZE = 16

Metrics = dict[str, Any]


def configuration(number: int) -> dict[str, Any]:
    """Returns the configuration of a trial: the same for every peer."""
    draw = random.Random(number)
    return {"lr": 10 ** draw.uniform(-4, -0.5), "hidden": draw.choice([32, 64, 128, 256]), "number": number}


def of_one_shape(number: int) -> dict[str, Any]:
    """Returns the configuration of a trial, where the models of all have the same shape."""
    return {**configuration(number), "hidden": 32, "batch_size": 64}


@cache
def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sklearn.datasets import load_digits

    images, labels = (torch.as_tensor(part) for part in load_digits(return_X_y=True))
    images = images.float() / 16
    return images[:1347], labels[:1347], images[1347:], labels[1347:]


def mlp(hidden: int) -> nn.Module:
    return nn.Sequential(
        nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 10)
    )


def train(
    config: dict[str, Any],
    on_step: Callable[[Metrics], object],
    on_epoch: Callable[[float], bool],
    compute_log: str | None = None,
    epochs: int = MAX_EPOCHS,
) -> None:
    """Trains the MLP of a configuration.

    Args:
        config: From :func:`configuration`.
        on_step: Called after each step with four metrics.
        on_epoch: Called after each epoch with the accuracy; returns whether to stop.
        compute_log: File that the CPU seconds of each epoch are appended to.
        epochs: How many, at most.
    """
    torch.set_num_threads(1)
    torch.manual_seed(config["number"])
    x_train, y_train, x_eval, y_eval = digits()
    model = mlp(config["hidden"])
    optimizer = torch.optim.SGD(model.parameters(), lr=config["lr"], momentum=0.9)
    for epoch in range(epochs):
        began = time.thread_time()
        order = torch.randperm(len(x_train))
        for step, batch in enumerate(order.split(config.get("batch_size", BATCH_SIZE))):
            optimizer.zero_grad()
            loss = F.cross_entropy(model(x_train[batch]), y_train[batch])
            loss.backward()
            optimizer.step()
            on_step({"loss": loss.item(), "lr": config["lr"], "epoch": epoch, "batch": step})
        with torch.no_grad():
            accuracy = (model(x_eval).argmax(1) == y_eval).double().mean().item()
        if compute_log is not None:
            note(compute_log, time.thread_time() - began)
        if on_epoch(accuracy):
            return


def note(file: str, value: float) -> None:
    """Appends a number to a file that several processes share."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(handle, f"{value!r}\n".encode())
    os.close(handle)


def noted(file: Path) -> list[float]:
    """Returns the numbers of a file."""
    return [float(line) for line in file.read_text().split()] if file.exists() else []
