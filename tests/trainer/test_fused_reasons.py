"""Why runs are not trained at once, told to who wrote their models."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.trainer import odd_programs
from tests.trainer.odd_programs import X, Y
from tests.trainer.test_fused_differences import Net, trainer_of
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.trainer import Trainer


def told(caplog: pytest.LogCaptureFixture) -> str:
    (message,) = {record.getMessage() for record in caplog.records}
    return message


@pytest.mark.parametrize(
    ("between", "reason"),
    [
        (
            lambda net, x: x.relu() if x.mean() > 0 else x.tanh(),
            "branches on its data, or takes a number",
        ),
        (lambda net, x: x * (1 + x.mean().item()), "branches on its data, or takes a number"),
        (lambda net, x: F.dropout(x, 0.1), "draws random numbers in its forward pass other than by nn.Dropout"),
        (
            lambda net, x: torch.utils.checkpoint.checkpoint(torch.tanh, x, use_reentrant=False),
            "keeps a tensor of its forward pass, as torch.utils.checkpoint does",
        ),
    ],
    ids=["branch", "item", "dropout", "checkpoint"],
)
def test_the_reason_is_in_the_words_of_a_model(
    between: object, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    fit_fused([trainer_of(Net(between), num_epochs=1) for _ in range(3)])  # type: ignore[arg-type]
    assert reason in told(caplog)
    assert "vmap" not in told(caplog)


def test_a_recurrent_module_is_named(caplog: pytest.LogCaptureFixture) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.last = nn.LSTM(6, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.last(self.memory(x.unsqueeze(1))[0][:, -1])
            return found

    fit_fused([trainer_of(Recurrent(), num_epochs=1) for _ in range(3)])
    assert "the model's memory is a recurrent module, LSTM, which cannot be fused" in told(caplog)


def test_that_no_two_of_few_runs_are_alike_is_said(caplog: pytest.LogCaptureFixture) -> None:
    fit_fused([trainer_of(Net(factor=factor), num_epochs=1) for factor in (0.5, 1.0, 2.0)])
    assert told(caplog) == "trained alone: the first 3 shapes differ in their model's factor"


class NegatedAtOnce(nn.Module):
    """Its outputs have another sign where many are evaluated at once."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = odd_programs.mlp()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x).abs()
        return -found if not self.training and torch._C._functorch.is_batchedtensor(found) else found


def of_any_sign(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.abs(), targets)


def test_an_accuracy_that_is_not_that_of_evaluating_alone_is_found_also_where_the_loss_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loader = DataLoader(TensorDataset(X, Y), 48)

    def made() -> list[Trainer]:
        torch.manual_seed(0)
        options = {"loss_fn": of_any_sign, "eval_loader": loader, "num_epochs": 2, "train_loader": loader}
        return [odd_programs.trainer_of(NegatedAtOnce(), **options) for _ in range(4)]

    fused, alone = made(), [trainer.fit() for trainer in made()]
    fit_fused(fused)
    assert told(caplog) == "evaluations are not fused: they give other values than alone"
    assert [run.state.metrics["eval_accuracy"] for run in fused] == [run.metrics["eval_accuracy"] for run in alone]
