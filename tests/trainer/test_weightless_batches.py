"""Batches that weigh nothing, such as those whose targets are all ignored, count nothing in means over batches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.models import CLASSES, FEATURES, dataset, make_trainer, weights
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.trainer import Trainer

INPUTS, TARGETS = dataset(8).tensors
Part = tuple[Tensor, Tensor]
NOTHING: Part = (INPUTS[:4], torch.full((4,), -100))


def masked(model: nn.Module, batch: Any) -> dict[str, Any]:
    counted = batch[1] != -100
    losses = F.cross_entropy(model(batch[0]), batch[1], reduction="none")
    loss = losses.sum() / counted.sum()
    return {"loss": loss, "loss_again": loss.detach()}


def judged(batch: Any) -> int:
    return int((batch[1] != -100).sum())


CRITERIA: dict[str, dict[str, Any]] = {
    "targets": {"loss_fn": F.cross_entropy},
    "weights of classes": {"loss_fn": nn.CrossEntropyLoss(weight=torch.tensor([0.5, 1.0, 0.2]))},
    "smooth": {"loss_fn": nn.CrossEntropyLoss(label_smoothing=0.1)},
    "sizes": {"loss_fn": None, "training_step": masked, "batch_size": judged},
    "tensors of sizes": {
        "loss_fn": None,
        "training_step": masked,
        "batch_size": lambda batch: (batch[1] != -100).sum(),
    },
}


def trained(parts: list[Part], size: int = 4, *, fused: bool = False, **options: Any) -> Trainer:
    """Trains over batches of so many examples of the parts of the data."""

    def made() -> Trainer:
        torch.manual_seed(0)
        data = TensorDataset(*map(torch.cat, zip(*parts, strict=True)))
        settings: dict[str, Any] = {"model": nn.Linear(FEATURES, CLASSES), "num_epochs": 3, **options}
        return make_trainer(train_loader=DataLoader(data, size), eval_loader=DataLoader(data, size), **settings)

    trainers = [made() for _ in range(3 if fused else 1)]
    if fused:
        fit_fused(trainers)
    else:
        trainers[0].fit()
    return trainers[0]


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("place", range(3))
def test_a_batch_that_weighs_nothing_changes_nothing_in_its_window(
    place: int, criterion: str, fused: bool
) -> None:
    parts = [(INPUTS[:4], TARGETS[:4]), (INPUTS[4:], TARGETS[4:])]
    right = trained(parts, 8, **CRITERIA[criterion])
    parts.insert(place, NOTHING)
    trainer = trained(parts, fused=fused, accumulate=3, **CRITERIA[criterion])
    assert torch.allclose(weights(trainer), weights(right), atol=1e-6)
    for name in ("loss", "eval_loss"):
        assert float(trainer.state.metrics[name]) == pytest.approx(float(right.state.metrics[name]), rel=1e-4)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_window_that_weighs_nothing_has_no_gradients_and_no_loss(criterion: str, fused: bool) -> None:
    trainer = trained([NOTHING, NOTHING], fused=fused, accumulate=2, **CRITERIA[criterion])
    torch.manual_seed(0)
    start = nn.Linear(FEATURES, CLASSES)
    assert torch.equal(weights(trainer), torch.cat([p.detach().flatten() for p in start.parameters()]))
    assert float(trainer.state.metrics["grad_norm"]) == 0.0
    assert math.isnan(float(trainer.state.metrics["loss"]))
