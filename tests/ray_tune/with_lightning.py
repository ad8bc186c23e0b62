"""A recipe whose training is Lightning's."""

from __future__ import annotations

from typing import Any

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader

from tests.integrations.lightning_recipes import Classifier
from tests.models import dataset, loader
from xaytune.integrations.lightning import XaytuneCallback
from xaytune.trial.run.trial import Trial


class Tuned(Classifier):
    def __init__(self, lr: float) -> None:
        super().__init__()
        self.lr = lr

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


def train(config: dict[str, Any], trial: Trial) -> None:
    trainer = pl.Trainer(accelerator="cpu", max_epochs=9, callbacks=[XaytuneCallback(trial)], logger=False)
    trainer.fit(Tuned(config["lr"]), loader(), DataLoader(dataset(), 16), ckpt_path=trial.latest_checkpoint)
