"""A loop of one's own is resumed with its loaders where they were: their generators, samplers and places."""

from __future__ import annotations

import random
import tracemalloc
from collections import UserDict
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, TensorDataset

from xaytune.trainer.data import generators_of
from xaytune.trainer.own import OwnLoop

DATA = TensorDataset(torch.arange(12))


class Killed(BaseException):
    """The process ends here."""


class Shifting(Sampler[int]):
    """Another order each epoch, by a count that it saves."""

    def __init__(self) -> None:
        self.epoch = 0

    def __len__(self) -> int:
        return len(DATA)

    def __iter__(self) -> Iterator[int]:
        self.epoch += 1
        return iter([(at + self.epoch) % len(DATA) for at in range(len(DATA))])

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch = state["epoch"]


class Late(RandomSampler):
    """Makes its generator when it is iterated, and seeds it by what it is told of."""

    def __iter__(self) -> Iterator[int]:
        if self.generator is None:
            self.generator = torch.Generator()
        self.generator.manual_seed(int(torch.randint(100, ())))
        yield from super().__iter__()


def with_a_generator(seed: int) -> DataLoader[Any]:
    return DataLoader(DATA, 4, shuffle=True, generator=torch.Generator().manual_seed(seed))


def with_a_state(seed: int) -> DataLoader[Any]:
    return DataLoader(DATA, 4, sampler=Shifting())


def with_a_late_generator(seed: int) -> DataLoader[Any]:
    return DataLoader(DATA, 4, sampler=Late(DATA))


def through_a_generator(loader: DataLoader[Any]) -> Iterator[Any]:
    yield from loader


Make = Callable[[int], DataLoader[Any]]


def trained(
    make: Make,
    folder: Path | None,
    killed_at: tuple[int, ...] = (),
    way: Callable[[DataLoader[Any]], Any] = lambda loader: loader,
) -> list[Any]:
    """Trains until the process ends, and returns the steps with their batches."""
    torch.manual_seed(0)
    trial = OwnLoop(checkpoint_dir=folder, save_every_s=0)
    trial.keep(model=torch.nn.Linear(1, 1))
    loaders = make(1), make(2)
    steps: list[Any] = []
    for epoch in trial.epochs(3):
        for part, loader in enumerate(loaders):
            if (epoch, part) == killed_at:
                raise Killed
            for (batch,) in trial.steps(way(loader)):
                steps.append((trial.state.global_step, batch.tolist()))
                if (epoch, part, trial.state.step) == killed_at:
                    raise Killed
                trial.log(loss=random.random())
    trial.finish()
    return steps


PLACES = [(1, 0), (1, 0, 1), (1, 1), (1, 1, 4), (2, 0, 0), (2, 1)]


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("make", [with_a_generator, with_a_state, with_a_late_generator])
def test_a_resumed_loop_is_given_the_batches_that_it_would_have_been_given(
    make: Make, place: tuple[int, ...], tmp_path: Path
) -> None:
    undisturbed = trained(make, None)
    with pytest.raises(Killed):
        trained(make, tmp_path, place)
    with pytest.raises(Killed):  # again, where the second loop of the epoch would begin
        trained(make, tmp_path, (place[0], 1))
    resumed = trained(make, tmp_path)
    assert resumed == undisturbed[-len(resumed) :]
    assert len(resumed) <= 12, "the first epoch is over"


@pytest.mark.parametrize("place", PLACES, ids=str)
def test_batches_of_a_generator_function_come_back_with_the_generator_of_their_loader(
    place: tuple[int, ...], tmp_path: Path
) -> None:
    undisturbed = trained(with_a_generator, None)
    with pytest.raises(Killed):
        trained(with_a_generator, tmp_path, place, through_a_generator)
    resumed = trained(with_a_generator, tmp_path, (), through_a_generator)
    assert resumed == undisturbed[-len(resumed) :]


@pytest.mark.parametrize("way", [enumerate, iter, lambda loader: zip(loader, range(9), strict=False)])
def test_a_loader_whose_generator_was_drawn_from_before_the_steps_is_refused(
    way: Callable[[DataLoader[Any]], Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"random generator of its own.*enumerate\(trial.steps\(loader\)\)"):
        trained(with_a_generator, tmp_path, (), lambda loader: way(loader))


class Noisy(TensorDataset):
    """Data that is changed at random by a generator of its own."""

    def __init__(self) -> None:
        super().__init__(torch.arange(12.0))
        self.rng = np.random.default_rng(0)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return (self.tensors[0][index] + self.rng.normal(),)


class Archived(Dataset[Any]):
    """Data that are read from an archive when they are asked for, and a generator."""

    def __init__(self, path: Path) -> None:
        np.savez(path, images=np.zeros(1_000_000))
        self.archive = np.load(path)
        self.options = UserDict(generator=np.random.default_rng(0))


def test_looking_for_generators_reads_no_archive_of_the_datasets(tmp_path: Path) -> None:
    data = Archived(tmp_path / "data.npz")
    tracemalloc.start()
    try:
        assert generators_of(DataLoader(data, sampler=[])) == [data.options["generator"]]
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shuffle", [False, True])
def test_a_loader_whose_data_draws_from_its_own_generator_may_be_enumerated(shuffle: bool, tmp_path: Path) -> None:
    def way(loader: DataLoader[Any]) -> Iterator[Any]:
        return map(itemgetter(1), enumerate(loader))

    assert len(trained(lambda seed: DataLoader(Noisy(), 4, shuffle=shuffle), tmp_path, (), way)) == 18
