"""Batches: moving them to a device, and telling how many examples they have."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils._pytree import tree_flatten

from xaytune.trainer.indexed import IndexedBatch

_CONTAINERS = (tuple, list, Mapping)
BatchSize = Callable[[Any], "int | float | Tensor"]


def to_device(batch: Any, device: torch.device) -> Any:
    """Moves every tensor of a batch to the device, in nested tuples, lists, dicts and dataclasses.

    A batch that is not read yet is read.
    """
    if isinstance(batch, IndexedBatch):
        batch = batch.read()
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, PackedSequence):  # a part of it has to stay on the CPU
        return batch.to(device)  # type: ignore[arg-type]
    if isinstance(batch, (tuple, list)):
        moved = [to_device(value, device) for value in batch]
        return type(batch)(*moved) if hasattr(batch, "_fields") else type(batch)(moved)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        values = {field.name: to_device(getattr(batch, field.name), device) for field in _fields(batch)}
        return dataclasses.replace(batch, **values)
    return batch


def batch_size(batch: Any, *, in_parts: bool) -> int:
    """Returns the number of examples of a batch: the first dimension of its tensors, which must all agree.

    Args:
        batch: The batch.
        in_parts: Whether a list is known to hold the parts of a batch (inputs, targets), not its examples.

    Raises:
        ValueError: They do not agree, or there is none, or it may be a list of examples.
    """
    if not in_parts and isinstance(batch, (tuple, list)) and all(isinstance(part, _CONTAINERS) for part in batch):
        raise ValueError(_unknown("it may be a list of examples, or of parts of a batch", batch))
    sizes = sorted(set(_sizes(batch)))
    if len(sizes) != 1:
        reason = "its tensors differ in their first dimension: " + ", ".join(map(str, sizes))
        raise ValueError(_unknown(reason if sizes else "it has no tensor with a dimension", batch))
    return sizes[0]


def signature(batch: Any) -> Hashable:
    """Returns what is the same in batches that differ in the numbers of their tensors alone."""
    if isinstance(batch, IndexedBatch):
        return batch.signature()
    if type(batch) is list and all(type(part) is Tensor for part in batch):  # as a loader over tensors has them
        return tuple([(part.shape, part.dtype) for part in batch])
    flat, structure = tree_flatten(batch)
    return structure, tuple(map(_signature_of_leaf, flat))


def describe(value: Any) -> str:
    """Describes a value, for messages."""
    if isinstance(value, Mapping):
        return f"a dict with the keys {', '.join(map(str, value))}"
    if isinstance(value, (tuple, list)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Tensor):
        return f"a Tensor of shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


def _signature_of_leaf(leaf: Any) -> Hashable:
    if isinstance(leaf, Tensor):
        return leaf.shape, leaf.dtype
    if isinstance(leaf, (np.ndarray, np.generic)):  # a long one is not written out in full
        return "array", leaf.shape, str(leaf.dtype), leaf.tobytes()
    if isinstance(leaf, (type(None), bool, int, float, complex, str, bytes)):
        return type(leaf).__name__, repr(leaf)
    return type(leaf).__name__, id(leaf)  # it may hold tensors


def _sizes(batch: Any) -> Iterator[int]:
    if isinstance(batch, PackedSequence):
        yield int(batch.batch_sizes[0])
    elif isinstance(batch, (Tensor, np.ndarray)):
        if batch.ndim:
            yield batch.shape[0]
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _sizes(value)
    elif isinstance(batch, (tuple, list)):
        for value in batch:
            yield from _sizes(value)
    elif dataclasses.is_dataclass(batch):
        for field in _fields(batch):
            yield from _sizes(getattr(batch, field.name))


def _fields(batch: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(batch) if field.init]


def _unknown(reason: str, batch: Any) -> str:
    return (
        f"the number of examples of a batch is not known ({describe(batch)}): {reason}; "
        "give the Trainer batch_size=, a function of the batch that returns it"
    )
