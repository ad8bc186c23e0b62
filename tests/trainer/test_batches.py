"""Batches of every form and size are read in order, counted, and weighed by their examples."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence
from torch.utils.data import DataLoader, TensorDataset

from tests.models import CLASSES, FEATURES, dataset, make_trainer, weights
from xaytune.trainer.batches import batch_size, to_device
from xaytune.trainer.data import batches_of


@dataclass
class Pair:
    inputs: Tensor
    targets: Tensor


INPUTS, TARGETS = dataset(10).tensors
FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], dict[str, Any]]] = {
    "tuple": (lambda x, y: (x, y), {}),
    "nested": (
        lambda x, y: ({"x": x}, {"y": y}),
        {"loss_fn": lambda o, t: F.cross_entropy(o, t["y"])},
    ),
    "mapping of mappings": (
        lambda x, y: {"in": {"x": x}, "out": {"y": y}},
        {"training_step": lambda model, batch: F.cross_entropy(model(batch["in"]), batch["out"]["y"])},
    ),
    "dataclass": (
        Pair,
        {"training_step": lambda model, batch: F.cross_entropy(model(batch.inputs), batch.targets)},
    ),
    "told": (
        lambda x, y: {"weights": torch.ones(7), "x": x, "y": y},
        {
            "training_step": lambda model, batch: F.cross_entropy(model(batch["x"]), batch["y"]),
            "batch_size": lambda batch: len(batch["x"]),
        },
    ),
}


class Unpacking(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, inputs: Any) -> Any:
        return self.layer(inputs["x"] if isinstance(inputs, dict) else inputs)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("accumulate", [1, 3])
def test_means_are_over_examples_for_unequal_batches_of_every_form(form: str, accumulate: int) -> None:
    wrap, options = FORMS[form]
    batches = [wrap(INPUTS[i : i + 4], TARGETS[i : i + 4]) for i in (0, 4, 8)]
    model = Unpacking()
    right = F.cross_entropy(model(INPUTS), TARGETS).item()
    given: dict[str, Any] = {"loss_fn": None} if "training_step" in options else {}
    trainer = make_trainer(
        model=model, lr=0.0, num_epochs=1, train_loader=batches, eval_loader=batches, accumulate=accumulate,
        **given | options,
    )  # fmt: skip
    metrics = trainer.fit().metrics
    assert metrics["eval_loss"] == pytest.approx(right, rel=1e-6)
    if accumulate == 3:
        assert float(metrics["loss"]) == pytest.approx(right, rel=1e-6)


def test_the_gradient_of_unequal_batches_is_that_of_all_their_examples_at_once() -> None:
    results = []
    start = nn.Linear(FEATURES, CLASSES).state_dict()
    for sizes, accumulate in (((4, 4, 2), 3), ((10,), 1)):
        model = nn.Linear(FEATURES, CLASSES)
        model.load_state_dict(start)
        batches = list(zip(INPUTS.split(sizes), TARGETS.split(sizes), strict=True))
        trainer = make_trainer(model=model, num_epochs=1, train_loader=batches, accumulate=accumulate)
        trainer.fit()
        results.append(weights(trainer))
    assert torch.allclose(results[0], results[1], atol=1e-6)


@pytest.mark.parametrize(
    "batch",
    [
        {"weights": torch.ones(7), "x": INPUTS, "y": TARGETS},
        [(x, y) for x, y in zip(INPUTS, TARGETS, strict=True)],
        3,
    ],
    ids=["two sizes", "a list of examples", "a number"],
)
def test_a_batch_whose_size_is_not_known_is_refused_in_the_first_step(batch: Any) -> None:
    steps: list[int] = []
    trainer = make_trainer(
        model=nn.Linear(FEATURES, CLASSES), loss_fn=None,
        training_step=lambda model, batch: F.cross_entropy(model(INPUTS), TARGETS),
        train_loader=[batch], eval_loader=[batch],
    )  # fmt: skip
    trainer.callbacks.on("step_end")(lambda state: steps.append(state.global_step))
    with pytest.raises(
        ValueError, match=r"the number of examples of a batch is not known.*give the Trainer batch_size="
    ):
        trainer.fit()
    assert steps == []


def test_packed_sequences_and_dataclasses_are_moved_and_counted() -> None:
    packed = pack_sequence([torch.ones(3, 2), torch.ones(2, 2)])
    moved = to_device({"a": packed, "b": Pair(torch.ones(2, 1), torch.ones(2))}, torch.device("meta"))
    assert isinstance(moved["a"], PackedSequence)
    assert (moved["a"].data.device.type, moved["a"].batch_sizes.device.type) == ("meta", "cpu")
    assert moved["b"].targets.device.type == "meta"
    assert batch_size((packed, torch.ones(2)), in_parts=True) == 2


def test_all_metrics_of_a_window_are_means_over_it() -> None:
    count = iter(range(1, 100))

    def step(model: nn.Module, batch: Any) -> dict[str, Any]:
        number = float(next(count))
        return {"loss": model(batch[0]).sum() * 0 + number, "number": number, "tensor": torch.tensor(number)}

    trainer = make_trainer(loss_fn=None, training_step=step, accumulate=3, max_steps=1)
    metrics = trainer.fit().metrics
    assert {name: float(metrics[name]) for name in ("loss", "number", "tensor")} == {
        "loss": 2.0,
        "number": 2.0,
        "tensor": 2.0,
    }


def test_a_window_does_not_hold_the_batches_that_it_has_used() -> None:
    alive: set[int] = set()
    most = 0

    class Counted:
        def __init__(self, number: int) -> None:
            self.number = number
            alive.add(number)

        def __del__(self) -> None:
            alive.discard(self.number)

    class Loader:
        def __iter__(self) -> Any:
            return (Counted(number) for number in range(8))

    def step(model: nn.Module, batch: Any) -> Tensor:
        nonlocal most
        most = max(most, len(alive))
        return F.cross_entropy(model(INPUTS), TARGETS)

    make_trainer(
        loss_fn=None, training_step=step, train_loader=Loader(), accumulate=8, num_epochs=1, batch_size=lambda b: 1
    ).fit()
    assert most <= 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss_fn": lambda o, t: (F.cross_entropy(o, t), 1)}, TypeError, "one number.*a tuple of 2"),
        ({"loss_fn": lambda o, t: {"loss": F.cross_entropy(o, t)}}, TypeError, "one number.*keys loss"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="none")}, ValueError, "reduction is 'none'"),
        ({"loss_fn": nn.CrossEntropyLoss(reduction="sum")}, ValueError, "must be a mean: its reduction is 'sum'"),
        ({"loss_fn": lambda o, t: F.cross_entropy(o, t, reduction="none")}, TypeError, r"of shape \(8,\)"),
    ],
)
def test_a_loss_that_is_not_a_mean_of_one_number_is_refused_in_words(
    options: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        make_trainer(**options).fit()


def test_a_loader_over_tensors_is_read_in_the_same_order_with_the_same_bits() -> None:
    data = TensorDataset(torch.randn(23, 3), torch.randint(5, (23,)), torch.rand(23) > 0.5)
    own = {"shuffle": True, "generator": torch.Generator()}
    ways: list[dict[str, Any]] = [{"shuffle": True}, {}, own, {"drop_last": True}]
    for options in ways:
        read = []
        for way in (iter, batches_of):
            torch.manual_seed(1)
            if "generator" in options:
                options["generator"].manual_seed(2)
            batches: DataLoader[Any] = DataLoader(data, 4, **options)
            read.append(([[*batch] for _ in range(2) for batch in way(batches)], torch.get_rng_state()))
        (one, state), (other, other_state) = read
        assert len(one) == len(other)
        assert all(torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
        assert torch.equal(state, other_state)
