"""A run of Lightning that goes on from the checkpoint of another configuration, as under PBT."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import BackboneFinetuning
from torch.optim import SGD, lr_scheduler
from torch.utils.data import DataLoader

from tests.integrations.lightning_recipes import Classifier, fit
from tests.models import FEATURES, dataset, loader
from xaytune.integrations.lightning import XaytuneCallback
from xaytune.testing.training import JudgedRun

pytestmark = pytest.mark.slow


class Killed(BaseException):
    """The process ends here."""


class Configured(Classifier):
    """Notes the hyperparameters of each step."""

    killed_after = 24

    def __init__(self, rate: float, momentum: float, gamma: float, schedule: str) -> None:
        super().__init__()
        self.rate, self.momentum, self.gamma, self.schedule = rate, momentum, gamma, schedule
        self.seen: list[tuple[float, float]] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        if len(self.seen) == self.killed_after:
            raise Killed
        optimizer: Any = self.optimizers()
        self.seen.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))

    def configure_optimizers(self) -> Any:
        optimizer = SGD(self.parameters(), self.rate, momentum=self.momentum)
        made: Any = None
        if self.schedule == "by epoch":
            made = lr_scheduler.ExponentialLR(optimizer, self.gamma)
        elif self.schedule == "by step":
            functions = lr_scheduler.LambdaLR(optimizer, lambda step: self.gamma**step)
            made = {"scheduler": functions, "interval": "step"}
        return optimizer if made is None else {"optimizer": optimizer, "lr_scheduler": made}


@pytest.mark.parametrize("schedule", ["by epoch", "by step", "none"])
@pytest.mark.parametrize("changed", [{"rate": 0.03}, {"momentum": 0.5}, {"gamma": 0.6}, {}])
@pytest.mark.parametrize("killed_after", [12, 15])
def test_it_trains_with_the_hyperparameters_of_its_own_configuration(
    tmp_path: Path, schedule: str, changed: dict[str, float], killed_after: int
) -> None:
    def seen(folder: str, options: dict[str, float], killed_after: int = 24) -> list[tuple[float, float]]:
        torch.manual_seed(0)
        module = Configured(**{"rate": 0.1, "momentum": 0.9, "gamma": 0.8, **options}, schedule=schedule)
        module.killed_after = killed_after
        with contextlib.suppress(Killed):
            fit(JudgedRun(tmp_path / folder), module, max_epochs=4)
        return module.seen

    assert len(seen("one", {}, killed_after)) == killed_after
    resumed, expected = seen("one", changed), seen("other", changed)
    assert len(resumed) == 24 - killed_after
    for mine, other in zip(resumed, expected[killed_after:], strict=True):
        assert mine == pytest.approx(other)


class Backbone(Classifier):
    """A backbone that Lightning's callback unfreezes, in a group of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = torch.nn.Linear(FEATURES, FEATURES)

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        return super().training_step([self.backbone(batch[0]), batch[1]], batch_idx)

    def configure_optimizers(self) -> Any:
        return SGD([p for p in self.parameters() if p.requires_grad], 0.1)


def test_a_backbone_that_is_unfrozen_on_the_way_is_resumed(tmp_path: Path) -> None:
    def train(epochs: int) -> int:
        run = JudgedRun(tmp_path)
        unfreezes = BackboneFinetuning(unfreeze_backbone_at_epoch=1, verbose=False)
        trainer = pl.Trainer(
            accelerator="cpu",
            logger=False,
            enable_model_summary=False,
            max_epochs=epochs,
            callbacks=[unfreezes, XaytuneCallback(run, save_every_s=0.0)],
        )
        trainer.fit(Backbone(), loader(), DataLoader(dataset(), 16), ckpt_path=run.latest_checkpoint)
        return trainer.global_step

    train(3)
    assert train(4) == 24
