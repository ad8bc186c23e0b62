"""Gradients are measured, clipped and stepped as in a plain loop, over what the optimizer trains."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tests.models import CLASSES, FEATURES, loader, make_trainer, weights
from xaytune.trainer.trainer import Trainer


@pytest.mark.parametrize("clip", [None, 0.5])
def test_gradients_are_measured_and_clipped_over_what_is_optimized(clip: float | None) -> None:
    def build() -> tuple[nn.Sequential, torch.optim.Optimizer]:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        return model, torch.optim.SGD(model[2].parameters(), lr=0.5)

    model, optimizer = build()
    batches = loader(shuffle=False)
    trainer = Trainer(
        model, optimizer=optimizer, train_loader=batches, loss_fn=F.cross_entropy, num_epochs=3,
        clip_grad_norm=clip, device="cpu",
    )  # fmt: skip
    norms: list[float] = []
    trainer.callbacks.on("step_end")(lambda state: norms.append(float(state.metrics["grad_norm"])))
    trainer.fit()
    plain, optimizer = build()
    expected = []
    for _ in range(3):
        for inputs, targets in batches:
            plain.zero_grad()
            F.cross_entropy(plain(inputs), targets).backward()
            expected.append(float(nn.utils.clip_grad_norm_(plain[2].parameters(), clip or 1e9)))
            optimizer.step()
    assert norms == expected
    # The backbone's gradients are one step's, not the sum of all.
    for parameter, other in zip(model[0].parameters(), plain[0].parameters(), strict=True):
        assert parameter.grad is not None
        assert other.grad is not None
        assert torch.equal(parameter.grad, other.grad)


@pytest.mark.parametrize("clip", [None, 0.1])
def test_sparse_gradients_are_measured_and_clipped_like_dense_ones(clip: float | None) -> None:
    words, targets = torch.randint(20, (8, 5)), torch.randint(CLASSES, (8,))
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        model = nn.Sequential(nn.EmbeddingBag(20, 4, sparse=sparse), nn.Linear(4, CLASSES))
        trainer = make_trainer(model=model, train_loader=[(words, targets)], clip_grad_norm=clip, num_epochs=1)
        found.append((float(trainer.fit().metrics["grad_norm"]), weights(trainer)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-7)


def test_parameters_of_two_dtypes_are_measured_and_clipped_together() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Linear(FEATURES, FEATURES).to(torch.bfloat16)
            self.head = nn.Linear(FEATURES, CLASSES)

        def forward(self, inputs: Tensor) -> Any:
            return self.head(self.body(inputs.to(torch.bfloat16)).float())

    trainer = make_trainer(model=Mixed(), clip_grad_norm=0.1, max_steps=1)
    trainer.fit()
    clipped = [p.grad.double().flatten() for p in trainer.model.parameters() if p.grad is not None]
    assert float(torch.cat(clipped).norm()) == pytest.approx(0.1, rel=1e-2)


def test_a_step_that_fp16_skips_does_not_advance_the_schedule() -> None:
    calls = iter(range(100))

    def step(model: nn.Module, batch: Any) -> Tensor:
        loss = F.cross_entropy(model(batch[0]).float(), batch[1])
        return loss * (float("inf") if next(calls) in (0, 2) else 1.0)

    trainer = make_trainer(
        lr=1.0, loss_fn=None, training_step=step, precision="fp16", max_steps=6, lr_interval="step",
        schedule=lambda optimizer: LambdaLR(optimizer, lambda count: 0.5**count),
    )  # fmt: skip
    rates: list[float] = []
    trainer.callbacks.on("step_end")(lambda state: rates.append(state.metrics["learning_rate"]))
    trainer.fit()
    assert rates == [1.0, 1.0, 0.5, 0.5, 0.25, 0.125]


def test_optimizers_that_the_trainer_does_not_step_are_refused_when_it_is_made() -> None:
    model = nn.Linear(FEATURES, CLASSES)
    several: Any = [torch.optim.SGD([model.weight]), torch.optim.SGD([model.bias])]
    others = torch.optim.SGD(nn.Linear(2, 2).parameters())
    for optimizer, message in (
        (torch.optim.LBFGS(model.parameters()), "LBFGS.*loop of your own"),
        (several, "a list"),
        (others, "no parameter of the model"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            Trainer(model, optimizer=optimizer, train_loader=loader(), loss_fn=F.cross_entropy)


def test_the_state_of_an_optimizer_that_was_made_before_the_model_was_moved_follows_it() -> None:
    model = nn.Linear(FEATURES, CLASSES, device="meta")  # any device that is not the CPU
    optimizer = torch.optim.Adagrad(model.parameters())
    for state in optimizer.state.values():
        state["sum"] = torch.zeros(state["sum"].shape)
    Trainer(model, optimizer=optimizer, train_loader=loader(), loss_fn=F.cross_entropy, device="meta")
    assert {state["sum"].device.type for state in optimizer.state.values()} == {"meta"}
    assert {state["step"].device.type for state in optimizer.state.values()} == {"cpu"}
