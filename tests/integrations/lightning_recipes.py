"""Runs of Lightning's Trainer. Each gets a trial, and returns its weights."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.models import CLASSES, FEATURES, dataset, loader
from xaytune.integrations.lightning import XaytuneCallback
from xaytune.testing.training import weights_of
from xaytune.trainer.own import OwnLoop

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", module="lightning")


class Classifier(pl.LightningModule):
    """Six batches an epoch; dropout, momentum, a schedule by epoch, and outputs that it collects in an epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, CLASSES))
        self.losses: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = F.cross_entropy(self.network(batch[0]), batch[1])
        self.losses.append(loss.detach())
        self.log("train_loss", loss)
        return loss

    def on_train_epoch_end(self) -> None:
        torch.stack(self.losses).mean()
        self.losses.clear()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", (self.network(batch[0]).argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.7)]


class OnPlateau(Classifier):
    """The rate falls where the score does not rise: Lightning steps this schedule after all hooks of an epoch."""

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.SGD(self.parameters(), 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, "max", factor=0.5, patience=0, threshold=0.3
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": "score"}}


class Adversaries(pl.LightningModule):
    """Two optimizers, stepped by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = nn.Linear(FEATURES, 1), nn.Linear(FEATURES, 1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizers: Any = self.optimizers()
        gap = (self.first(batch[0]) - self.second(batch[0])).tanh().mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(gap)
        for optimizer in optimizers:
            optimizer.step()
        self.log("gap", gap)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("score", self.first(batch[0]).mean())

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.SGD(self.first.parameters(), 0.1, momentum=0.9),
            torch.optim.SGD(self.second.parameters(), 0.1, momentum=0.9, maximize=True),
        ]


def fit(trial: OwnLoop, module: pl.LightningModule, batches: Any = None, **options: Any) -> Tensor:
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_model_summary=False,
        callbacks=[XaytuneCallback(trial, save_every_s=0.0)],
        **options,
    )
    evaluated = DataLoader(dataset(), 16)
    trainer.fit(module, batches or loader(), evaluated, ckpt_path=trial.latest_checkpoint)
    return weights_of(module)


def by_epochs(trial: OwnLoop) -> Tensor:
    return fit(trial, Classifier(), max_epochs=4)


def evaluated_within_epochs(trial: OwnLoop) -> Tensor:
    return fit(trial, Classifier(), max_epochs=4, val_check_interval=2)


def accumulated(trial: OwnLoop) -> Tensor:
    return fit(trial, Classifier(), loader(4), max_epochs=4, accumulate_grad_batches=5, val_check_interval=5)


def evaluated_within_steps(trial: OwnLoop) -> Tensor:
    return fit(trial, Classifier(), loader(4), max_epochs=4, accumulate_grad_batches=5, val_check_interval=3)


def on_plateau(trial: OwnLoop) -> Tensor:
    return fit(trial, OnPlateau(), max_epochs=4)


def two_optimizers(trial: OwnLoop) -> Tensor:
    return fit(trial, Adversaries(), max_epochs=4, val_check_interval=3)


def with_workers(trial: OwnLoop) -> Tensor:
    batches = DataLoader(dataset(), 8, shuffle=True, num_workers=1)
    return fit(trial, Classifier(), batches, max_epochs=2, val_check_interval=3)
