"""Batches: moving them to a device, and walking a loader so that a walk can be taken up in the middle."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch

from xaytune.trainer import random_state

__all__ = ["ResumableLoader", "to_device"]


def to_device(batch: Any, device: torch.device) -> Any:
    """Moves every tensor of a batch (nested tuples, lists and dicts) to the device."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: to_device(value, device) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(to_device(value, device) for value in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(to_device(value, device) for value in batch)
    return batch


class ResumableLoader:
    """Walks an iterable of batches epoch by epoch, and knows its place.

    The place is the state of the random generators when the epoch began, and how many batches were taken
    since. To return to it, the epoch begins anew from those generators and skips as many batches: any
    loader whose order depends on random generators alone comes back exactly, a shuffled
    ``torch.utils.data.DataLoader`` among them.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self._loader = loader
        batch_sampler = getattr(loader, "batch_sampler", None)
        owners = (loader, getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
        found = (getattr(owner, "generator", None) for owner in owners)
        # A loader and its samplers often share one generator: keep it once.
        self.generators = list(dict.fromkeys(g for g in found if isinstance(g, torch.Generator)))
        self._epoch_start: dict[str, Any] | None = None
        self._taken = 0

    def epoch(self) -> Iterator[Any]:
        """Yields the batches of an epoch, or what is left of one that is not finished."""
        if self._epoch_start is None:
            self._epoch_start = random_state.capture(self.generators)
            batches = iter(self._loader)
        else:
            batches = self._return_to_place(self._epoch_start)
        for batch in batches:
            self._taken += 1
            yield batch

    def finish_epoch(self) -> None:
        """Lets the next :meth:`epoch` be a new one."""
        self._epoch_start, self._taken = None, 0

    def _return_to_place(self, epoch_start: dict[str, Any]) -> Iterator[Any]:
        now = random_state.capture(self.generators)
        random_state.restore(epoch_start, self.generators)
        batches = iter(self._loader)
        for _ in itertools.islice(batches, self._taken):
            pass
        random_state.restore(now, self.generators)
        return batches

    def state_dict(self) -> dict[str, Any]:
        """Returns the place, in tensors and plain values."""
        return {"epoch_start": self._epoch_start, "taken": self._taken}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Returns to a place: the next :meth:`epoch` begins there."""
        self._epoch_start, self._taken = state["epoch_start"], state["taken"]
