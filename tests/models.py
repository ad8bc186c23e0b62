"""A tiny classification problem, and a Trainer for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from xaytune.trainer.trainer import Trainer

EXAMPLES, FEATURES, CLASSES = 48, 6, 3


def dataset(examples: int = EXAMPLES) -> TensorDataset:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(examples, FEATURES, generator=generator)
    return TensorDataset(inputs, inputs[:, :CLASSES].argmax(1))


def loader(batch_size: int = 8, shuffle: bool = True) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(dataset(), batch_size=batch_size, shuffle=shuffle)


def make_trainer(*, lr: float = 0.1, seed: int = 0, **options: Any) -> Trainer:
    """Six steps an epoch, with dropout and momentum. `schedule` makes the scheduler of its optimizer."""
    torch.manual_seed(seed)
    model = options.pop("model", None)
    if model is None:
        model = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES))
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    if "schedule" in options:
        options["lr_scheduler"] = options.pop("schedule")(optimizer)
    defaults: dict[str, Any] = {
        "loss_fn": F.cross_entropy,
        "train_loader": loader(),
        "num_epochs": 3,
        "device": "cpu",
    }
    return Trainer(model, optimizer=optimizer, **{**defaults, **options})


def weights(trainer: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


def checkpoints(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def stopped_at(trainer: Trainer, step: int) -> Trainer:
    trainer.callbacks.on("step_end")(lambda state: state.global_step == step and state.stop_training())
    return trainer
