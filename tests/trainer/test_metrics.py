"""Each metric of an evaluation is what it says, or is refused."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.models import FEATURES, dataset, loader, make_trainer


def evaluated(model: nn.Module, inputs: Tensor, targets: Tensor, loss_fn: Any, **options: Any) -> dict[str, Any]:
    """The metrics of a model as it is."""
    batches = DataLoader(TensorDataset(inputs, targets), 4)
    settings: dict[str, Any] = {
        "model": model,
        "lr": 0.0,
        "train_loader": batches,
        "eval_loader": batches,
        "num_epochs": 1,
    }
    return make_trainer(**settings | {"loss_fn": loss_fn} | options).fit().metrics


class Scores(nn.Module):
    """Gives the highest score to the class that it was given: (N, ...) to (N, C, ...), or (N, ..., C)."""

    def __init__(self, classes: int, *, last: bool = False) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self._classes, self._last = classes, last

    def forward(self, inputs: Tensor) -> Tensor:
        scores = F.one_hot(inputs, self._classes).float() * 10 * self.scale
        return scores if self._last else scores.movedim(-1, 1)


def flat_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten())


def test_accuracy_leaves_out_what_the_loss_ignores() -> None:
    inputs = torch.randint(5, (8, 6))
    targets = inputs.clone()
    targets[:, 3:] = -100
    assert evaluated(Scores(5), inputs, targets, F.cross_entropy)["eval_accuracy"] == 1.0
    targets[:, 3:] = 4
    for loss_fn in (nn.CrossEntropyLoss(ignore_index=4), functools.partial(F.cross_entropy, ignore_index=4)):
        assert evaluated(Scores(5), inputs, targets, loss_fn)["eval_accuracy"] == 1.0


def test_a_loss_that_ignores_no_target_may_say_so() -> None:
    class Loss(nn.Module):
        ignore_index = None

        def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return F.cross_entropy(outputs, targets)

    inputs = torch.randint(5, (8, 6))
    assert evaluated(Scores(5), inputs, inputs, Loss())["eval_accuracy"] == 1.0


def test_accuracy_is_right_where_there_are_as_many_classes_as_places() -> None:
    inputs = torch.tensor([[0, 1, 2], [0, 0, 1], [2, 0, 0], [1, 1, 2]])
    assert evaluated(Scores(3), inputs, inputs, F.cross_entropy)["eval_accuracy"] == 1.0
    # Of a loss of the user's own it is not known whether the classes are the second dimension, or the last.
    assert "eval_accuracy" not in evaluated(Scores(3, last=True), inputs, inputs, flat_cross_entropy)


@pytest.mark.parametrize(
    ("targets", "loss_fn"),
    [
        (torch.ones(8).long(), lambda o, t: F.binary_cross_entropy_with_logits(o.squeeze(1), t.float())),
        (torch.arange(8), lambda o, t: F.poisson_nll_loss(o.squeeze(1), t.float())),
        (torch.rand(8), lambda o, t: F.mse_loss(o.squeeze(1), t)),
    ],
    ids=["one logit", "counts", "regression"],
)
def test_accuracy_is_not_measured_where_there_are_no_scores_of_classes(targets: Tensor, loss_fn: Any) -> None:
    metrics = evaluated(nn.Linear(FEATURES, 1), torch.randn(8, FEATURES), targets, loss_fn)
    assert "eval_loss" in metrics
    assert "eval_accuracy" not in metrics


class Recall:
    """A metric with the interface of torchmetrics."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.found = self.all = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.found += int(((outputs.argmax(1) == 1) & (targets == 1)).sum())
        self.all += int((targets == 1).sum())

    def compute(self) -> Tensor:
        return torch.tensor(self.found / self.all)


def test_metrics_of_the_users_own_are_measured_over_all_batches_of_each_evaluation() -> None:
    trainer = make_trainer(eval_loader=loader(7), eval_metrics={"recall": Recall()})
    found = trainer.fit().metrics["eval_recall"]
    trainer.model.eval()
    inputs, targets = dataset().tensors
    right = (trainer.model(inputs).argmax(1) == 1)[targets == 1].float().mean().item()
    assert found == pytest.approx(right)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_fn": None, "training_step": lambda model, batch: None}, "with a training_step, measure them"),
        ({"eval_fn": lambda model, batches: {}}, "not both"),
        ({"eval_loader": None}, "need an eval_loader"),
    ],
)
def test_metrics_that_could_not_be_measured_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_trainer(**dict[str, Any](eval_loader=loader(), eval_metrics={"recall": Recall()}) | options)


def test_the_mean_of_a_loss_over_tokens_is_over_tokens() -> None:
    inputs = torch.randint(5, (10, 6))
    targets = torch.randint(5, (10, 6))
    targets[torch.arange(6) > torch.randint(6, (10, 1))] = -100
    right = F.cross_entropy(Scores(5)(inputs), targets).item()
    assert evaluated(Scores(5), inputs, targets, F.cross_entropy)["eval_loss"] == pytest.approx(right, rel=1e-6)
    by_class = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    right = by_class(Scores(5)(inputs), targets).item()
    assert evaluated(Scores(5), inputs, targets, by_class)["eval_loss"] == pytest.approx(right, rel=1e-6)


@pytest.mark.parametrize("kind", ["drop_last", "iterator"])
def test_an_evaluation_of_nothing_is_refused_by_name(kind: str) -> None:
    batches: Any = DataLoader(dataset(), 100, drop_last=True) if kind == "drop_last" else iter(loader())
    with pytest.raises(ValueError, match=r"eval_loader .*(yielded no batch|used up after one evaluation)"):
        make_trainer(eval_loader=batches).fit()


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (0.3, r"metrics by name, \{'eval_loss': 0.3\} \(got a float\)"),
        (None, r"metrics by name.*\(got a NoneType\)"),
        ({"f1": {"a": 1.0}}, "one number as 'f1'.*a dict with the keys a"),
        ({"f1": np.ones(3)}, "one number as 'f1'.*a ndarray"),
        ({"f1": torch.ones(3)}, "one number as 'f1'.*a Tensor of shape"),
    ],
)
def test_what_an_eval_fn_returns_is_numbers_by_name_or_refused(returned: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        make_trainer(eval_loader=loader(), eval_fn=lambda model, batches: returned).fit()
