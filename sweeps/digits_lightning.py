"""Handwritten digits, trained by Lightning: a callback, and the checkpoint to resume from, make it a trial."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from sweeps.digits import datasets, mlp, optimizer_for
from xaytune import Trial
from xaytune.integrations.lightning import XaytuneCallback


class Digits(L.LightningModule):
    """An MLP over the pixels of a digit."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.config = config
        self.network = mlp(config["hidden"], config["dropout"])

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Returns the loss of a batch."""
        return F.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Logs the accuracy of a batch."""
        self.log("eval_accuracy", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Makes the optimizer that the configuration names."""
        return optimizer_for(self.network, self.config)


def train(config: dict[str, Any], trial: Trial) -> None:
    """Trains an MLP: `hidden`, `dropout`, `lr`, `optimizer` and, for sgd, `momentum`."""
    train_set, eval_set = datasets()
    trainer = L.Trainer(
        max_epochs=9,
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        callbacks=[XaytuneCallback(trial)],
    )
    trainer.fit(
        Digits(config),
        DataLoader(train_set, batch_size=64, shuffle=True),
        DataLoader(eval_set, batch_size=450),
        ckpt_path=trial.latest_checkpoint,
    )
