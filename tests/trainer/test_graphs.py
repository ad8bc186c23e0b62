"""Steps by CUDA graphs. On a CPU the same code is made to run here, and repeats what it would have recorded."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader

from tests.models import CLASSES, FEATURES, dataset, loader, make_trainer, weights
from tests.trainer.fused_models import Case, table, trainer_of
from tests.trainer.test_fused import compare
from xaytune.trainer import step
from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused import group
from xaytune.trainer.trainer import Trainer


@pytest.fixture(autouse=True)
def repeated_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step, "is_recorded", lambda device: True)
    monkeypatch.setattr(group, "is_recorded", lambda device: True)
    monkeypatch.setattr(group, "_AFTER", 2)


on_each_device = pytest.mark.parametrize(
    "device",
    ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))],
)


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(FEATURES, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, CLASSES))


def measured(model: nn.Module, batch: Any) -> dict[str, Any]:
    inputs, targets = batch
    outputs = model(inputs)
    return {"loss": F.cross_entropy(outputs, targets), "largest": outputs.max()}


def history(options: dict[str, Any], change: Callable[[Trainer], None] | None = None) -> tuple[Tensor, Tensor]:
    """Returns the weights at the end, and the metrics of each step (steps, metrics)."""
    torch.manual_seed(0)
    trainer = make_trainer(**{name: given() if name == "model" else given for name, given in options.items()})
    rows: list[dict[str, Any]] = []

    @trainer.callbacks.on("step_end")
    def keep(state: TrainState) -> None:
        rows.append(dict(state.metrics))

    if change is not None:
        change(trainer)
    trainer.fit()
    table = torch.tensor([[float(row[name]) for name in ("loss", "grad_norm", "learning_rate")] for row in rows])
    return weights(trainer).cpu(), table


def assert_equal(one: Tensor, other: Tensor, device: str) -> None:
    close = 0.0 if device == "cpu" else 1e-3
    torch.testing.assert_close(one, other, atol=close, rtol=close)


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "clipped": {"clip_grad_norm": 0.5},
    "accumulated": {"accumulate": 2},
    "a ragged last batch": {"train_loader": loader(7)},
    "bf16": {"precision": "bf16"},
    "batch norm": {"model": with_batch_norm},
    "a schedule": {"schedule": lambda optimizer: CosineAnnealingLR(optimizer, 40), "lr_interval": "step"},
    "a step of one's own": {"loss_fn": None, "training_step": measured},
    "evaluated": {"eval_loader": loader(), "eval_every": 4},
}


@on_each_device
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_run_by_graphs_is_the_run_without(
    options: dict[str, Any], device: str, caplog: pytest.LogCaptureFixture
) -> None:
    options = {"num_epochs": 8, "device": device, **options}
    usual, rows = history(options)
    graphed, graphed_rows = history({**options, "cuda_graph": True})
    assert_equal(graphed_rows, rows, device)
    assert_equal(graphed, usual, device)
    assert not caplog.messages


def freezes_a_layer(trainer: Trainer) -> None:
    @trainer.callbacks.on("epoch_end")
    def freeze(state: TrainState) -> None:
        if state.epoch == 3:
            next(iter(trainer.model.children())).requires_grad_(False)


def changes_dropout(trainer: Trainer) -> None:
    @trainer.callbacks.on("epoch_end")
    def change(state: TrainState) -> None:
        for module in trainer.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.1 * (state.epoch % 3)


def reads_and_clips_gradients(trainer: Trainer) -> None:
    @trainer.callbacks.on("step_end")
    def read(state: TrainState) -> None:
        gradients = [p.grad for p in trainer.model.parameters()]
        assert all(gradient is not None for gradient in gradients)
        state.metrics["loss"] = torch.stack([g.abs().sum() for g in gradients if g is not None]).sum()


@on_each_device
@pytest.mark.parametrize("change", [freezes_a_layer, changes_dropout, reads_and_clips_gradients])
def test_what_handlers_change_and_read_is_as_without_graphs(
    change: Callable[[Trainer], None], device: str
) -> None:
    options = {"num_epochs": 8, "device": device}
    usual, rows = history(options, change)
    graphed, graphed_rows = history({**options, "cuda_graph": True}, change)
    assert_equal(graphed_rows, rows, device)
    assert_equal(graphed, usual, device)


@on_each_device
def test_numbers_that_python_counts_are_noticed_and_the_run_goes_on_without_graphs(
    device: str, caplog: pytest.LogCaptureFixture
) -> None:
    counted = itertools.count()

    def training_step(model: nn.Module, batch: Any) -> dict[str, Any]:
        return measured(model, batch) | {"count": next(counted)}

    trainer = make_trainer(loss_fn=None, training_step=training_step, cuda_graph=True, num_epochs=4, device=device)
    trainer.fit()
    assert trainer.state.global_step == 24
    assert "not recorded as CUDA graphs: they give other values than tensors" in caplog.text


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_what_cannot_be_recorded_is_trained_without_and_said(caplog: pytest.LogCaptureFixture) -> None:
    def training_step(model: nn.Module, batch: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return loss * 2 if loss.item() > 1e9 else loss

    trainer = make_trainer(loss_fn=None, training_step=training_step, cuda_graph=True, num_epochs=4, device="cuda")
    trainer.fit()
    assert trainer.state.global_step == 24
    assert "not recorded as CUDA graphs" in caplog.text


def test_random_numbers_of_the_host_are_drawn_at_each_step(caplog: pytest.LogCaptureFixture) -> None:
    def training_step(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0] + random.random()), batch[1])

    def trained(**options: Any) -> Tensor:
        random.seed(0)
        trainer = make_trainer(loss_fn=None, training_step=training_step, num_epochs=4, **options)
        trainer.fit()
        return weights(trainer)

    assert torch.equal(trained(cuda_graph=True), trained())
    assert "not recorded as CUDA graphs: they draw random numbers on the host" in caplog.text


class Counts(nn.Linear):
    """A model that counts its forward passes."""

    calls = 0

    def forward(self, input: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(input) / self.calls


def test_a_model_that_counts_its_passes_is_trained_without_graphs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts = Counts(FEATURES, CLASSES)
    trainer = make_trainer(model=counts, cuda_graph=True, num_epochs=25)
    trainer.fit()
    assert counts.calls == trainer.state.global_step == 150
    assert "not recorded as CUDA graphs: 128 of them differed" in caplog.text


def test_fp16_and_odd_batches_are_trained_without_graphs_and_said(caplog: pytest.LogCaptureFixture) -> None:
    def collated(examples: list[Any]) -> tuple[Tensor, Tensor, object]:
        inputs, targets = zip(*examples, strict=True)
        return torch.stack(inputs), torch.stack(targets), object()

    def training_step(model: nn.Module, batch: Any) -> Tensor:
        return F.cross_entropy(model(batch[0]), batch[1])

    make_trainer(precision="fp16", cuda_graph=True).fit()
    assert "not recorded as CUDA graphs: fp16" in caplog.text
    odd: DataLoader[Any] = DataLoader(dataset(), 8, collate_fn=collated)
    make_trainer(train_loader=odd, loss_fn=None, training_step=training_step, cuda_graph=True).fit()
    assert "not recorded as CUDA graphs: a batch holds a object" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("case", table()[1::5], ids=str)
def test_fused_members_by_graphs_end_as_they_would_alone(case: Case, caplog: pytest.LogCaptureFixture) -> None:
    assert compare(lambda member: trainer_of(case, member)) < 1e-10
    assert not [line for line in caplog.messages if "CUDA" in line]
