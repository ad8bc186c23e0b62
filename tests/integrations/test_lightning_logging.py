"""What a LightningModule logs: it is what it would be alone, also where the run was resumed within an epoch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lightning")

import lightning.pytorch as pl
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import LearningRateFinder, ModelCheckpoint
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MaxMetric
from torchmetrics.classification import MulticlassAccuracy

from xaytune.integrations.lightning import XaytuneCallback
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.own import OwnLoop

pytestmark = pytest.mark.slow

X = torch.randn(48, 8, generator=torch.Generator().manual_seed(0))
DATA = TensorDataset(X, (X.sum(1) > 0).long())
BATCHES = 6


class Killed(BaseException):
    """The process ends here."""


class Logging(pl.LightningModule):
    """Logs a number of each batch by every reduction, and metrics of torchmetrics."""

    def __init__(self, killed_at: int = -1, lr: float = 0.1) -> None:
        super().__init__()
        self.network, self.killed_at, self.lr = nn.Linear(8, 2), killed_at, lr
        self.accuracy, self.largest = MulticlassAccuracy(2, average="micro"), MaxMetric()
        self.losses: list[float] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        if len(self.losses) == self.killed_at:
            raise Killed
        outputs = self.network(batch[0])
        loss = F.cross_entropy(outputs, batch[1])
        self.losses.append(float(loss.detach()))
        for reduction in ("mean", "sum", "max", "min"):
            self.log(reduction, loss, on_step=False, on_epoch=True, reduce_fx=reduction)
        self.log("both", loss, on_step=True, on_epoch=True)
        self.accuracy(outputs, batch[1])
        self.largest(loss)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log("largest", self.largest, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("eval_loss", F.cross_entropy(self.network(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), self.lr)


def trainer_of(trial: OwnLoop, *callbacks: Any, **options: Any) -> pl.Trainer:
    return pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[XaytuneCallback(trial, save_every_s=0), *callbacks],
        **{"max_epochs": 3, **options},
    )


def fit(trainer: pl.Trainer, module: Logging, trial: OwnLoop) -> None:
    trainer.fit(module, DataLoader(DATA, 8), DataLoader(DATA, 48), ckpt_path=trial.latest_checkpoint)


def epochs_of(trial: OwnLoop, killed_at: int = -1) -> list[dict[str, Any]]:
    """Trains, and returns the metrics at the end of each epoch."""
    torch.manual_seed(0)
    found: list[dict[str, Any]] = []

    @trial.callbacks.on("epoch_end")
    def note(state: TrainState) -> None:
        found.append({name: float(value) for name, value in state.metrics.items()})

    fit(trainer_of(trial), Logging(killed_at), trial)
    return found


@pytest.mark.parametrize("killed_at", [BATCHES + 1, BATCHES + 4])
def test_metrics_of_an_epoch_are_those_of_all_its_batches_where_the_run_was_resumed_within_it(
    killed_at: int, tmp_path: Path
) -> None:
    undisturbed = epochs_of(OwnLoop(checkpoint_dir=tmp_path / "whole"))
    with pytest.raises(Killed):
        epochs_of(OwnLoop(checkpoint_dir=tmp_path / "killed"), killed_at)
    assert epochs_of(OwnLoop(checkpoint_dir=tmp_path / "killed")) == undisturbed[1:]


def test_the_loss_of_a_step_is_that_of_its_last_batch_however_many_are_accumulated() -> None:
    trial, module = OwnLoop(), Logging(lr=0.0)
    found: list[float] = []
    trial.callbacks.on("step_end")(lambda state: found.append(float(state.metrics["loss"])))
    fit(trainer_of(trial, accumulate_grad_batches=3, max_epochs=1), module, trial)
    assert found == pytest.approx([module.losses[2], module.losses[5]])


def test_an_evaluation_measures_nothing_anew_of_what_is_logged_for_an_epoch_of_training() -> None:
    trial, seen = OwnLoop(), {"now": 0, "changed": 0}
    before: dict[str, Any] = {}
    trial.callbacks.on("eval_start")(lambda state: before.update(state.metrics))

    @trial.callbacks.on("eval_end")
    def compare(state: TrainState) -> None:
        seen["now"] += 1
        of_epochs = before.keys() & {"mean", "sum", "max", "min", "both_epoch", "accuracy", "largest"}
        seen["changed"] += any(state.metrics[name] is not before[name] for name in of_epochs)

    fit(trainer_of(trial), Logging(), trial)
    assert seen == {"now": 3, "changed": 0}


@pytest.mark.parametrize("first", [True, False])
def test_the_best_checkpoint_is_that_of_the_users_own_callback(first: bool, tmp_path: Path) -> None:
    trial = OwnLoop(checkpoint_dir=tmp_path / "trial")
    best = ModelCheckpoint(tmp_path / "best", monitor="eval_loss")
    trainer = trainer_of(trial, best)
    if first:
        trainer.callbacks.reverse()  # type: ignore[attr-defined]
    fit(trainer, Logging(), trial)
    (measured,) = trainer.validate(Logging(), DataLoader(DATA, 48), ckpt_path="best", verbose=False)
    assert measured["eval_loss"] == pytest.approx(float(best.best_model_score))  # type: ignore[arg-type]


def test_without_a_callback_that_keeps_the_best_lightning_says_so() -> None:
    trial = OwnLoop()
    trainer = trainer_of(trial)
    fit(trainer, Logging(), trial)
    with pytest.raises(ValueError, match="not configured to save the best model"):
        trainer.validate(Logging(), DataLoader(DATA, 48), ckpt_path="best")


@pytest.mark.parametrize("by", ["callback", "tuner"])
def test_a_search_of_the_learning_rate_before_the_run_is_no_run(by: str, tmp_path: Path) -> None:
    trial, module = OwnLoop(checkpoint_dir=tmp_path / "trial"), Logging()
    steps: list[int] = []
    trial.callbacks.on("step_end")(lambda state: steps.append(state.global_step))
    found = [LearningRateFinder(num_training_steps=20)] if by == "callback" else []
    trainer = trainer_of(trial, *found, default_root_dir=tmp_path)
    if by == "tuner":
        Tuner(trainer).lr_find(module, DataLoader(DATA, 8), num_training=20)
    fit(trainer, module, trial)
    assert steps == list(range(1, 3 * BATCHES + 1))
