"""Runs that differ or change in more than parameters: fused they end as they would alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters
from torch.utils.data import DataLoader, IterableDataset, Sampler, TensorDataset

from xaytune.trainer.callbacks import TrainState
from xaytune.trainer.fused import fit_fused
from xaytune.trainer.trainer import Trainer

FACTORS = (0.5, 1.0, 0.5, 2.0, 0.5)
X = torch.randn(96, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
Y = (X.sum(1) > 0).long()


class Net(nn.Module):
    """Two layers with something between them."""

    kept: Any
    scale: Any
    factor: Any
    other: Any

    def __init__(self, between: Callable[[Any, Tensor], Any] = lambda net, x: x, **attributes: Any) -> None:
        super().__init__()
        self.first, self.last, self.drop = nn.Linear(6, 8), nn.Linear(8, 2), nn.Dropout(0.0)
        self.between = between
        for name, value in attributes.items():
            if isinstance(value, nn.Buffer):
                self.register_buffer(name, value)
            else:
                setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.drop(self.between(self, self.first(x).relu())))
        return found


def trainer_of(model: nn.Module, **options: Any) -> Trainer:
    options = {
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
        "train_loader": DataLoader(TensorDataset(X, Y), 16, shuffle=True),
        "num_epochs": 3,
        **options,
    }
    if "training_step" not in options:
        options.setdefault("loss_fn", F.cross_entropy)
    return Trainer(model.double(), **options)


def changed(trainer: Trainer, change: Callable[[TrainState], object], event: str = "epoch_start") -> Trainer:
    """A Trainer with a handler."""

    @trainer.callbacks.on(event)  # type: ignore[arg-type]
    def handle(state: TrainState) -> None:
        change(state)

    return trainer


def annealed(make: Callable[[float], Any], change: Callable[[Any, float], object]) -> Callable[[float], Trainer]:
    """Runs whose loss adds what it captures times a mean square; their handlers change that."""

    def build(factor: float) -> Trainer:
        beta = make(0.0)

        def step(model: nn.Module, batch: Any) -> Tensor:
            outputs = model(batch[0])
            share = torch.as_tensor(beta["beta"] if isinstance(beta, dict) else beta)
            loss: Tensor = F.cross_entropy(outputs, batch[1]) + share * outputs.square().mean()
            return loss

        trainer = trainer_of(Net(), training_step=step)
        return changed(trainer, lambda state: change(beta, factor * state.epoch))

    return build


def with_weighted_classes(factor: float) -> Trainer:
    weight = torch.ones(2, dtype=torch.float64)
    loss = nn.CrossEntropyLoss(weight=weight)
    return changed(trainer_of(Net(), loss_fn=loss), lambda state: weight[0].add_(factor * state.epoch))


def with_a_class_of_its_own(factor: float) -> Trainer:
    class Local(Net):
        scales = (factor, 1.0)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * self.scales[0]

    return trainer_of(Local())


def with_batch_norm_and_a_class_of_its_own(factor: float) -> Trainer:
    class Local(Net):
        scales = (factor, 1.0)

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(6)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(self.norm(x)) * self.scales[0]

    return trainer_of(Local())


def with_a_lambda(factor: float) -> Trainer:
    model = Net(lambda net, x: net.scale(x), factor=nn.Buffer(torch.tensor(factor)))
    model.scale = lambda x: x * model.factor
    return trainer_of(model)


def reads_its_dropout(factor: float) -> Trainer:
    model = Net(lambda net, x: x * (1 - net.drop.p))
    model.drop.p = factor / 10
    return trainer_of(model)


def with_attribute(value: Callable[[], Any], change: Callable[[Any, float], object]) -> Callable[[float], Trainer]:
    """Runs whose model has an attribute, which a handler changes in place."""

    def between(net: Net, x: Tensor) -> Any:
        return x * torch.as_tensor(net.kept)

    def build(factor: float) -> Trainer:
        model = Net(between, kept=value())
        return changed(trainer_of(model), lambda state: change(model.kept, factor))

    return build


def clamps(factor: float) -> Trainer:
    model = Net()

    def clamp(state: TrainState) -> None:
        for parameter in model.parameters():
            parameter.data = parameter.data.clamp(-factor / 5, factor / 5)

    return changed(trainer_of(model), clamp, "step_end")


def sets_all_parameters(factor: float) -> Trainer:
    model = Net()
    return changed(
        trainer_of(model),
        lambda state: vector_to_parameters(
            parameters_to_vector(model.parameters()).detach() * (1 - factor / 10), model.parameters()
        ),
    )


def gives_a_buffer_other_memory(factor: float) -> Trainer:
    model = Net(lambda net, x: x * net.kept, kept=nn.Buffer(torch.ones(8)))

    def change(state: TrainState) -> None:
        model.kept.data = model.kept.data * factor

    return changed(trainer_of(model), change)


def keeps_the_largest(factor: float) -> Trainer:
    def between(net: Net, x: Tensor) -> Any:
        if net.training:
            net.kept = torch.maximum(net.kept, x.detach().amax())
        return x / net.kept

    return trainer_of(Net(between, kept=nn.Buffer(torch.tensor(1e-3, dtype=torch.float64))))


def counts_in_a_dict(factor: float) -> Trainer:
    def between(net: Net, x: Tensor) -> Any:
        net.kept["calls"]["forward"] += 1
        return x * (1 + 0.01 * net.kept["calls"]["forward"])

    return trainer_of(Net(between, kept={"calls": {"forward": 0}}))


class Padded(nn.Module):
    """An embedding with padding."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.out = nn.Embedding(9, 4, padding_idx=0), nn.Linear(4, 2)

    def forward(self, words: Tensor) -> Tensor:
        found: Tensor = self.out(self.words(words).mean(1))
        return found


def pads_later(factor: float) -> Trainer:
    words = torch.randint(1, 9, (96, 5), generator=torch.Generator().manual_seed(1))
    words[48:, 3:] = 0
    return trainer_of(Padded(), train_loader=DataLoader(TensorDataset(words, Y), 16))


def with_a_second_head(factor: float) -> Trainer:
    model = Net()
    model.other = nn.Linear(8, 2)

    def step(model: Any, batch: Any) -> Tensor:
        head = model.other if batch["kind"] == "other" else model.last
        return F.cross_entropy(head(model.first(batch["x"]).relu()), batch["y"])

    batches = [{"x": X[at::6], "y": Y[at::6], "kind": ("first", "other")[at % 2]} for at in range(6)]
    return trainer_of(model, training_step=step, train_loader=batches, batch_size=lambda batch: len(batch["y"]))


class Labelled(IterableDataset[Any]):
    """Labels examples by a model as it is."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __iter__(self) -> Iterator[Any]:
        for at in range(6):
            yield X[at::6], (self.model(X[at::6]).detach() + F.one_hot(Y[at::6])).argmax(1)


class Hardest(Sampler[int]):
    """Goes through the examples with the largest loss first."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __len__(self) -> int:
        return len(X)

    def __iter__(self) -> Iterator[int]:
        with torch.no_grad():
            losses = F.cross_entropy(self.model(X), Y, reduction="none")
        return iter(losses.argsort(descending=True).tolist())


def labels_by_its_model(factor: float) -> Trainer:
    model = Net()
    return trainer_of(model, train_loader=DataLoader(Labelled(model), batch_size=None))


def begins_with_the_hardest(factor: float) -> Trainer:
    model = Net()
    return trainer_of(model, train_loader=DataLoader(TensorDataset(X, Y), 16, sampler=Hardest(model)))


def has_a_rate_by_its_norm(factor: float) -> Trainer:
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1 * factor)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 1 / float(model.last.weight.detach().norm())
    )
    return trainer_of(model, optimizer=optimizer, lr_scheduler=schedule, lr_interval="step")


def forgets(part: slice) -> Callable[[float], Trainer]:
    """Runs whose handler clears what the optimizer keeps of some parameters."""

    def build(factor: float) -> Trainer:
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01 * factor)

        def clear(state: TrainState) -> None:
            for parameter in list(model.parameters())[part]:
                optimizer.state.pop(parameter, None)

        return changed(trainer_of(model, optimizer=optimizer), clear)

    return build


def takes_arrays(factor: float) -> Trainer:
    def step(model: nn.Module, batch: Any) -> Tensor:
        x = torch.from_numpy(batch["x"])[:, 20:26]
        return F.cross_entropy(model(x), torch.from_numpy(batch["y"]))

    wide = np.zeros((96, 1000))
    wide[:, 20:26] = X.numpy() * factor
    batches = [{"x": wide[at::6], "y": Y.numpy()[at::6]} for at in range(6)]
    return trainer_of(Net(), training_step=step, train_loader=batches, batch_size=lambda batch: len(batch["y"]))


def anneals_alike_and_stops_first(factor: float) -> Trainer:
    beta = {"beta": 0.0}

    def step(model: nn.Module, batch: Any) -> Tensor:
        outputs = model(batch[0])
        loss: Tensor = F.cross_entropy(outputs, batch[1]) + beta["beta"] * outputs.square().mean()
        return loss

    trainer = trainer_of(Net(), training_step=step)
    first = not anneals_alike_and_stops_first.begun  # type: ignore[attr-defined]
    anneals_alike_and_stops_first.begun = True  # type: ignore[attr-defined]

    def change(state: TrainState) -> None:
        beta["beta"] = float(state.epoch)
        state.should_stop = first and state.epoch == 1

    return changed(trainer, change)


CASES: dict[str, Callable[[float], Trainer]] = {
    "a dict that the loss captures": annealed(lambda b: {"beta": b}, lambda beta, to: beta.update(beta=to)),
    "a tensor that the loss captures": annealed(torch.tensor, lambda beta, to: beta.fill_(to)),
    "an array that the loss captures": annealed(np.array, lambda beta, to: beta.fill(to)),
    "the weights of a loss": with_weighted_classes,
    "a loss that changes alike in all": anneals_alike_and_stops_first,
    "an attribute of a class": with_a_class_of_its_own,
    "an attribute of a class beside a batch norm": with_batch_norm_and_a_class_of_its_own,
    "a buffer that a lambda reads": with_a_lambda,
    "a probability of dropout that is read": reads_its_dropout,
    "a tensor of the model": with_attribute(lambda: torch.ones(8), lambda kept, by: kept.mul_(by)),
    "a tensor's data": with_attribute(lambda: torch.ones(8), lambda kept, by: kept.data.mul_(by)),
    "an array of the model": with_attribute(lambda: np.ones(8), lambda kept, by: kept.__imul__(by)),
    "a list of the model": with_attribute(lambda: [1.0] * 8, lambda kept, by: kept.__setitem__(0, by)),
    "parameters with other memory": clamps,
    "parameters that are all set": sets_all_parameters,
    "a buffer with other memory": gives_a_buffer_other_memory,
    "a buffer that is assigned": keeps_the_largest,
    "a count in a dict": counts_in_a_dict,
    "padding in later batches": pads_later,
    "a head of every second batch": with_a_second_head,
    "a loader that reads the model": labels_by_its_model,
    "a sampler that reads the model": begins_with_the_hardest,
    "a schedule that reads the model": has_a_rate_by_its_norm,
    "a state of the optimizer that is cleared": forgets(slice(None)),
    "a part of that state": forgets(slice(2)),
    "long arrays as batches": takes_arrays,
}


def ended(case: str, *, fused: bool) -> list[dict[str, Tensor]]:
    anneals_alike_and_stops_first.begun = False  # type: ignore[attr-defined]
    trainers = []
    for seed, factor in enumerate(FACTORS):
        torch.manual_seed(seed)
        trainers.append(CASES[case](factor))
    torch.manual_seed(100)
    if fused:
        fit_fused(trainers)
    else:
        for trainer in trainers:
            torch.manual_seed(100)
            trainer.fit()
    return [trainer.model.state_dict() for trainer in trainers]


@pytest.mark.parametrize("case", CASES)
def test_what_differs_or_changes_beside_parameters_is_trained_as_it_would_be_alone(case: str) -> None:
    for alone, fused in zip(ended(case, fused=False), ended(case, fused=True), strict=True):
        for name, tensor in alone.items():
            torch.testing.assert_close(fused[name], tensor, rtol=1e-6, atol=1e-9, equal_nan=True)


def test_that_no_runs_are_alike_is_said_with_what_differs(caplog: pytest.LogCaptureFixture) -> None:
    def of(weight: float) -> Trainer:
        return trainer_of(Net(), training_step=lambda m, batch: weight * m(batch[0]).square().mean())

    fit_fused([of(weight) for weight in range(1, 8)])
    assert "differ in their loss" in caplog.text


def test_that_gradients_of_a_model_that_fits_its_data_are_rounding_is_no_difference(
    caplog: pytest.LogCaptureFixture,
) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, weight = torch.randn(64, 300, generator=generator) * 3, torch.randn(300, 1, generator=generator)
    data = TensorDataset(inputs, (inputs.double() @ weight.double()).float())

    def fitted() -> Trainer:
        model = nn.Linear(300, 1, bias=False)
        with torch.no_grad():
            model.weight.copy_(weight.T)
        return Trainer(
            model,
            optimizer=torch.optim.SGD(model.parameters(), lr=1e-5),
            loss_fn=F.mse_loss,
            train_loader=DataLoader(data, 32, shuffle=True),
            num_epochs=5,
        )

    fit_fused([fitted() for _ in range(5)])
    assert caplog.text == ""
