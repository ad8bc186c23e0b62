"""Batches of a loader over tensors: rows that are read by index at once, be it for one run or for several."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any, NamedTuple, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
    default_collate,
)

_SAMPLERS = (RandomSampler, SequentialSampler, SubsetRandomSampler, WeightedRandomSampler)


class IndexedBatch(NamedTuple):
    """A batch that is not read yet.

    Attributes:
        tensors: Of the dataset.
        rows: Numbers of the rows of them that are the batch (examples,).
        pin_memory: Whether it is read into memory that a device reads while the host goes on.
        kinds: Shape of an example, and kind of numbers, of each tensor.
    """

    tensors: tuple[Tensor, ...]
    rows: NDArray[np.int64]
    pin_memory: bool
    kinds: Hashable

    def read(self) -> list[Tensor]:
        """Returns the batch, as the loader would have collated it."""
        return _read(self.tensors, self.rows, self.pin_memory)

    def signature(self) -> Hashable:
        """Returns what is the same in batches that differ in the numbers of their tensors alone."""
        return len(self.rows), self.kinds


def read_stacked(batches: Sequence[IndexedBatch]) -> list[Tensor]:
    """Reads batches of as many rows of the same tensors, as one (batches, examples, ...)."""
    return _read(batches[0].tensors, np.stack([batch.rows for batch in batches]), batches[0].pin_memory)


def _read(tensors: tuple[Tensor, ...], rows: NDArray[np.int64], pin_memory: bool) -> list[Tensor]:
    index = torch.from_numpy(rows)
    if tensors[0].device.type != "cpu":  # without waiting for it
        index = index.pin_memory().to(tensors[0].device, non_blocking=True)
    batch = [tensor[index] for tensor in tensors]
    return [tensor.pin_memory() for tensor in batch] if pin_memory else batch


def is_over_tensors(loader: Any) -> TypeGuard[DataLoader[Any]]:
    """Whether a batch is just rows of tensors: examples need not be read one by one and put together again."""
    return (
        type(loader) is DataLoader
        and type(loader.dataset) is TensorDataset
        and loader.num_workers == 0
        and loader.batch_sampler is not None
        and loader.collate_fn is default_collate
        and all(tensor.layout is torch.strided and not tensor.is_quantized for tensor in loader.dataset.tensors)
    )


def draws_at_its_beginning(loader: Any) -> bool:
    """Whether the order of an epoch is drawn with its first batch, or from a generator of its own."""
    batches = loader.batch_sampler  # whose sampler is not the loader's, where the user has made them
    return type(batches) is BatchSampler and type(batches.sampler) in _SAMPLERS


def indexed_batches(loader: Any, skip: int = 0) -> Iterator[IndexedBatch]:
    """Returns the batches of a loader over tensors but the first `skip`.

    Order, bits and draws of random numbers are those of ``iter(loader)``.
    """
    batches = iter(loader)  # which draws a seed for workers
    tensors, pin_memory = loader.dataset.tensors, loader.pin_memory and torch.accelerator.is_available()
    if _is_drawn_at_once(loader):
        order = np.fromiter(loader.sampler, np.int64, len(loader.sampler))
        rows = _parts(order, loader.batch_size, skip, drop_last=loader.drop_last)
    else:
        for _ in range(skip):
            batches._next_index()
        rows = _one_by_one(batches)
    kinds = tuple([(tensor.shape[1:], tensor.dtype) for tensor in tensors])
    return (IndexedBatch(tensors, part, pin_memory, kinds) for part in rows)


def _is_drawn_at_once(loader: Any) -> bool:
    """Whether all of an epoch's order is there once it begins, so that it need not be asked for row by row."""
    sampler = loader.sampler
    if type(loader.batch_sampler) is not BatchSampler or loader.batch_sampler.sampler is not sampler:
        return False
    if type(sampler) is RandomSampler:
        whole = not sampler.replacement and sampler.num_samples == len(sampler.data_source)
        return whole and sampler.generator is None  # one of the user's own is drawn from at the epoch's end too
    return type(sampler) is SequentialSampler


def _parts(order: NDArray[np.int64], size: int, skip: int, *, drop_last: bool) -> Iterator[NDArray[np.int64]]:
    end = len(order) - len(order) % size if drop_last else len(order)
    for begin in range(skip * size, end, size):
        yield order[begin : begin + size]


def _one_by_one(batches: Any) -> Iterator[NDArray[np.int64]]:
    while True:
        try:
            index = batches._next_index()
        except StopIteration:
            return
        yield np.array(index, dtype=np.int64)  # torch.tensor would take six times as long
