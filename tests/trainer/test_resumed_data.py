"""A resumed run trains the batches that it would have trained: none twice, none left out."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset

from tests.models import CLASSES, FEATURES, checkpoints, dataset, loader, make_trainer, stopped_at, weights
from xaytune.trainer.callbacks import Event
from xaytune.trainer.trainer import Trainer


@pytest.mark.parametrize("where", ["step_start", "error"])
@pytest.mark.parametrize("at", [0, 3, 6])
@pytest.mark.parametrize("stateful", [False, True])
def test_the_batches_of_a_step_that_was_not_done_are_trained_after_the_resume(
    where: Event, at: int, stateful: bool, tmp_path: Path
) -> None:
    def build(folder: Path | None, *, fails: bool) -> Trainer:
        def loss(outputs: Tensor, targets: Tensor) -> Tensor:
            if fails and trainer.state.global_step == at:
                raise RuntimeError("once")
            return F.cross_entropy(outputs, targets)

        batches = DataLoader(dataset(), 8, sampler=Stateful(saves=True)) if stateful else loader()
        trainer = make_trainer(loss_fn=loss, train_loader=batches, checkpoint_dir=folder)
        return trainer

    undisturbed = build(None, fails=False)
    undisturbed.fit()
    failing = build(tmp_path, fails=True)
    failing.callbacks.on(where)(lambda state: state.global_step == at and failing.save_checkpoint())
    with pytest.raises(RuntimeError, match="once"):
        failing.fit()
    assert checkpoints(tmp_path) == [f"step-{at:08d}.pt"]
    resumed = build(tmp_path, fails=False)
    state = resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert "error" not in state.metrics


def test_a_checkpoint_in_the_middle_of_a_step_is_refused(tmp_path: Path) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        trainer.save_checkpoint()
        return F.cross_entropy(outputs, targets)

    trainer = make_trainer(loss_fn=loss, checkpoint_dir=tmp_path)
    with pytest.raises(ValueError, match="in the middle of a step"):
        trainer.fit()


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Draws random numbers in the workers."""

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs, targets = dataset().tensors
        return inputs[index] + torch.rand(FEATURES), targets[index]


@pytest.mark.slow
@pytest.mark.parametrize("stop", [2, 5])  # at the end of an epoch of two steps, and within the third
def test_workers_that_would_live_on_over_epochs_resume_with_the_same_bits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, stop: int
) -> None:
    def trainer(folder: str) -> Trainer:
        batches = DataLoader(Noisy(), 8, shuffle=True, num_workers=1, persistent_workers=True)
        return make_trainer(train_loader=batches, checkpoint_dir=tmp_path / folder)

    undisturbed = trainer("undisturbed")
    undisturbed.fit()
    stopped_at(trainer("stopped"), stop).fit()
    resumed = trainer("stopped")
    resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
    assert "workers are started anew each epoch" in caplog.text


class Counting(Dataset[tuple[Tensor, Tensor]]):
    loaded = 0

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        Counting.loaded += 1
        inputs, targets = dataset().tensors
        return inputs[index], targets[index]


def test_a_resume_within_an_epoch_loads_only_what_it_trains(tmp_path: Path) -> None:
    def build() -> Trainer:
        return make_trainer(
            train_loader=DataLoader(Counting(), 8, shuffle=True), checkpoint_dir=tmp_path, num_epochs=1
        )

    stopped_at(build(), 5).fit()
    Counting.loaded = 0
    build().fit()
    assert Counting.loaded == 8


@pytest.mark.slow
def test_batches_that_have_to_be_loaded_again_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def build() -> Trainer:
        batches = DataLoader(dataset(), 8, shuffle=True, num_workers=1)
        return make_trainer(train_loader=batches, checkpoint_dir=tmp_path, num_epochs=1)

    stopped_at(build(), 4).fit()
    build().fit()
    assert "loads 4 batches that were trained already" in caplog.text


class Stateful(Sampler[int]):
    """A sampler whose order depends on how often it was iterated, and on generators of its own."""

    def __init__(self, *, saves: bool) -> None:
        self.epoch = 0
        self.python, self.numpy = random.Random(1), np.random.default_rng(1)
        self.legacy = np.random.RandomState(1)
        self.system = random.SystemRandom()  # which has no state
        if saves:
            self.state_dict = lambda: {"epoch": self.epoch}
            self.load_state_dict = lambda state: setattr(self, "epoch", state["epoch"])

    def __len__(self) -> int:
        return 48

    def __iter__(self) -> Iterator[int]:
        shift = self.epoch if hasattr(self, "state_dict") else 0
        self.epoch += 1
        order = list(self.numpy.permutation(48))
        self.python.shuffle(order)
        self.legacy.shuffle(order)
        return iter([(int(i) + shift) % 48 for i in order])


@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("stop", [2, 6, 8, 15])
def test_samplers_with_generators_and_states_of_their_own_come_back(
    saves: bool, stop: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def build(folder: Path | None) -> Trainer:
        return make_trainer(
            train_loader=DataLoader(dataset(), 8, sampler=Stateful(saves=saves)), checkpoint_dir=folder
        )

    undisturbed = build(None)
    undisturbed.fit()
    stopped_at(build(tmp_path), stop).fit()
    resumed = build(tmp_path)
    resumed.fit()
    assert torch.equal(weights(resumed), weights(undisturbed))
    # It cannot be known whether the order depends on what is not saved: it is said.
    assert ("Stateful.epoch changes while train_loader is read" in caplog.text) is not saves


class KeepsItsPlace:
    """A loader that keeps its place itself, as torchdata's StatefulDataLoader does."""

    def __init__(self) -> None:
        self.generator = random.Random(0)
        self.order: list[int] = []
        self.at = 0
        self.over, self.resumes = True, False

    def __iter__(self) -> Iterator[Any]:
        if not self.resumes:
            self.order, self.at = self.generator.sample(range(6), 6), 0
        self.resumes = self.over = False
        while self.at < 6:
            self.at += 1
            chosen = slice(8 * self.order[self.at - 1], 8 * self.order[self.at - 1] + 8)
            yield dataset()[chosen]
        self.over = True

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.generator.getstate(), "order": self.order, "at": self.at, "over": self.over}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        version, internal, gauss = state["random"]
        self.generator.setstate((version, tuple(internal), gauss))
        self.order, self.at, self.resumes = state["order"], state["at"], not state["over"]


@pytest.mark.parametrize("stop", [2, 5, 6, 8, 12, 15])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_loader_that_keeps_its_place_itself_is_asked_to(stop: int, in_place: bool, tmp_path: Path) -> None:
    undisturbed = make_trainer(train_loader=KeepsItsPlace())
    undisturbed.fit()
    first = stopped_at(make_trainer(train_loader=KeepsItsPlace(), checkpoint_dir=tmp_path), stop)
    first.fit()
    resumed = first if in_place else make_trainer(train_loader=KeepsItsPlace(), checkpoint_dir=tmp_path)
    assert resumed.fit().global_step == 18
    assert torch.equal(weights(resumed), weights(undisturbed))


def test_an_epoch_that_is_continued_with_another_batch_size_trains_each_of_its_examples_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = TensorDataset(torch.randn(40, FEATURES), torch.arange(40) % CLASSES, torch.arange(40))
    seen: list[int] = []

    def trainer(batch_size: int) -> Trainer:
        def step(model: nn.Module, batch: Any) -> Tensor:
            seen.extend(batch[2].tolist())
            return F.cross_entropy(model(batch[0]), batch[1])

        model = nn.Linear(FEATURES, CLASSES)
        return Trainer(
            model,
            optimizer=torch.optim.SGD(model.parameters()),
            train_loader=DataLoader(data, batch_size, shuffle=True),
            training_step=step,
            checkpoint_dir=tmp_path,
        )

    stopped_at(trainer(10), 2).fit()
    trainer(5).fit()
    assert sorted(seen) == list(range(40))
    assert "continued after the first 20 of its examples" in caplog.text


def test_a_counter_that_begins_as_an_attribute_of_its_class_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Rotated(Sampler[int]):
        epoch = 0

        def __iter__(self) -> Iterator[int]:
            self.epoch += 1
            return iter([(i + self.epoch) % 12 for i in range(12)])

        def __len__(self) -> int:
            return 12

    model = nn.Linear(FEATURES, CLASSES)
    Trainer(
        model,
        optimizer=torch.optim.SGD(model.parameters()),
        train_loader=DataLoader(Subset(dataset(), range(12)), 4, sampler=Rotated()),
        loss_fn=F.cross_entropy,
        checkpoint_dir=tmp_path,
    ).fit()
    assert "Rotated.epoch changes while train_loader is read and is in no checkpoint" in caplog.text
