"""Loaders: walking one epoch by epoch, so that a walk can be taken up in the middle with the same bits."""

from __future__ import annotations

import copy
import hashlib
import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset, Subset, SubsetRandomSampler, TensorDataset
from torch.utils.data.dataloader import _BaseDataLoaderIter

from xaytune.trainer import random_state
from xaytune.trainer.indexed import IndexedBatch, draws_at_its_beginning, indexed_batches, is_over_tensors
from xaytune.trainer.random_state import Generator
from xaytune.trainer.reach import reachable

logger = logging.getLogger(__name__)


def batches_of(loader: Iterable[Any]) -> Iterator[Any]:
    """Yields the batches of a loader; over tensors, each is read by index at once.

    Order, bits and draws of random numbers are those of ``iter(loader)``, whichever way they are read.
    """
    return (batch.read() for batch in indexed_batches(loader)) if is_over_tensors(loader) else iter(loader)


def _unread(loader: Iterable[Any], skip: int = 0) -> Iterator[Any]:
    """Yields the batches of a loader but the first `skip`; over tensors, unread."""
    if is_over_tensors(loader):
        return indexed_batches(loader, skip)
    batches = iter(loader)
    if skip:
        _pass_over(loader, batches, skip)
    return batches


def _pass_over(loader: Any, batches: Any, count: int) -> None:
    """Passes over batches that were trained: in the sampler where nothing else depends on their being loaded."""
    if type(loader) is DataLoader and loader.num_workers == 0 and not isinstance(loader.dataset, IterableDataset):
        for _ in range(count):
            batches._next_index()
        return
    if not isinstance(loader, (list, tuple, range)):
        why = "it cannot skip; one that shuffles anew on its way, without an end, continues in another order"
        if getattr(loader, "num_workers", 0):
            why = "random numbers of its workers depend on it"
        logger.warning("the loader loads %d batches that were trained already, to resume: %s", count, why)
    for _ in itertools.islice(batches, count):
        pass


def with_workers_of_each_epoch(loader: Any) -> Any:
    """Returns a loader as the given one whose workers end with each epoch.

    Random numbers of workers that live on over epochs are in no checkpoint.

    Raises:
        ValueError: It is of a class of its own, which cannot be copied.
    """
    if not getattr(loader, "persistent_workers", False) or _has_state(loader):
        return loader
    if type(loader) is not DataLoader:
        raise ValueError(
            f"the loader, a {type(loader).__name__}, has persistent_workers=True: random numbers of workers that "
            "live on over epochs are in no checkpoint, so that a resumed run would see other batches; use "
            "persistent_workers=False"
        )
    logger.warning("the loader's workers are started anew each epoch, as by persistent_workers=False, to resume")
    loader = copy.copy(loader)
    object.__setattr__(loader, "persistent_workers", False)  # a DataLoader's own refuses it
    loader._iterator = None
    return loader


def check_not_begun(batches: Any) -> None:
    """Checks that a loader is not behind an iterator that has drawn from its generator before the steps begin.

    Raises:
        ValueError: It is: what was drawn is drawn again in a resumed run, from another state.
    """
    if not isinstance(batches, Iterator):
        return
    begun = [part for part in reachable([batches]) if isinstance(part, _BaseDataLoaderIter)]
    if any(getattr(part, "_persistent_workers", False) for part in begun):
        raise ValueError(
            f"trial.steps() was given {type(batches).__name__}(loader), and the loader has "
            "persistent_workers=True: random numbers of workers that live on over epochs are in no checkpoint, so "
            "that a resumed run would see other batches. Give the loader itself, as in "
            "enumerate(trial.steps(loader)), or use persistent_workers=False"
        )
    if any(_draws_of_its_own(part) for part in begun):
        kind = type(batches).__name__
        raise ValueError(
            f"trial.steps() was given {kind}(loader), and the loader has a random generator of its own, from "
            f"which {kind} has drawn already: a resumed run would see other batches. Give the loader itself, as "
            "in enumerate(trial.steps(loader)), or leave out its generator=: the random states of the process are "
            "saved and restored"
        )


def _draws_of_its_own(begun: _BaseDataLoaderIter) -> bool:
    """Whether the order of batches is drawn from a generator that is not the process's; data may have theirs."""
    of_data = {id(generator) for generator in random_state.held_by(begun._dataset)}
    return any(id(generator) not in of_data for generator in random_state.held_by(begun._index_sampler))


def generators_of(loader: Any) -> list[Generator]:
    """Returns the random generators that a loader, its samplers and its dataset have, or name in their code."""
    owners = [*_owners(loader), getattr(loader, "collate_fn", None)]
    dataset = getattr(loader, "dataset", None)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
        owners.append(dataset)
    return random_state.held_by(*owners)


def _owners(loader: Any) -> list[Any]:
    batch_sampler = getattr(loader, "batch_sampler", None)
    samplers = (getattr(loader, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None))
    found = [loader, *samplers, getattr(loader, "dataset", None)]
    return [owner for at, owner in enumerate(found) if all(owner is not before for before in found[:at])]


def _has_state(owner: Any) -> bool:
    # Loaders that Accelerate has prepared have the methods of a state also where the loader within has none.
    owner = getattr(owner, "base_dataloader", owner)
    return callable(getattr(owner, "state_dict", None)) and callable(getattr(owner, "load_state_dict", None))


def _counts(owners: list[Any]) -> dict[str, Any]:
    """Returns the whole numbers that samplers and datasets of the user's own hold, by what they are called."""
    return {
        f"{type(owner).__name__}.{name}": value
        for owner in owners
        if not type(owner).__module__.startswith("torch.")
        for holder in (*reversed(type(owner).__mro__), owner)  # a counter may begin as an attribute of the class
        for name, value in getattr(holder, "__dict__", {}).items()
        if type(value) is int and not name.startswith("__")
    }


def fingerprint(loader: Any) -> str | None:
    """Returns what tells training data from other training data, such as another fold; None where nothing does."""
    digest = hashlib.sha256()
    dataset = getattr(loader, "dataset", None)
    sampler = getattr(loader, "sampler", None)
    known = False
    if isinstance(sampler, SubsetRandomSampler):
        digest.update(repr(sorted(map(int, sampler.indices))).encode())
        known = True
    while isinstance(dataset, Subset):
        digest.update(repr(sorted(map(int, dataset.indices))).encode())
        dataset, known = dataset.dataset, True
    if type(dataset) is TensorDataset:
        known = True
        for tensor in dataset.tensors:
            rows = torch.linspace(0, len(tensor) - 1, min(len(tensor), 64), device=tensor.device).long()
            rows.clamp_(max=len(tensor) - 1)  # of many rows, the last is rounded up
            digest.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
            digest.update(tensor[rows].detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16] if known else None


class ResumableLoader:
    """Walks an iterable of batches epoch by epoch, and knows its place: what was trained, not what was loaded.

    The place is the state of the random generators when the epoch began, and how many batches were trained
    since. To return to it, the epoch begins anew from those generators and passes over as many batches: any
    loader whose order depends on random generators alone comes back exactly, a shuffled
    ``torch.utils.data.DataLoader`` among them. Samplers and datasets with a ``state_dict`` come back with it,
    and so does a loader that has one itself, such as torchdata's ``StatefulDataLoader``.

    Args:
        loader: Yields its batches anew each time it is iterated.

    Attributes:
        loader: The loader.
        generators: The random generators that the loader, its samplers and its dataset hold.
        draws: Whether the next batch may draw from the global random generators.
    """

    def __init__(self, loader: Iterable[Any]) -> None:
        self.loader = loader
        self.generators = generators_of(loader)
        self.draws = True
        self._keeps_its_place = _has_state(loader)
        self._stateful: list[Any] = (
            [] if self._keeps_its_place else [owner for owner in _owners(loader) if _has_state(owner)]
        )
        self._unsaved = [] if self._keeps_its_place else [o for o in _owners(loader) if not _has_state(o)]
        self._counts = _counts(self._unsaved)
        self._draws_always = not (is_over_tensors(loader) and draws_at_its_beginning(loader))
        size = getattr(loader, "batch_size", None)
        self._batch_size = size if isinstance(size, int) and not self._keeps_its_place else None
        self._epoch_start: dict[str, Any] | None = None
        self._trained = self._loaded = 0
        self._loader_state: Any = None  # that a loader which keeps its place is to go on from
        self._before: dict[str, Any] | None = None  # its state before the batch that was loaded and is not trained

    def epoch(self) -> Iterator[Any]:
        """Yields the batches of an epoch, or what is left of one that is not finished."""
        return (batch.read() if isinstance(batch, IndexedBatch) else batch for batch in self.unread_epoch())

    def unread_epoch(self) -> Iterator[Any]:
        """Yields the same, but those of a loader over tensors as :class:`IndexedBatch`."""
        self._loaded, self.draws = self._trained, True
        return self._walk()

    def _walk(self) -> Iterator[Any]:
        if self._keeps_its_place:
            batches = self._ask_for_its_place()
        elif self._epoch_start is None or self._trained == 0:
            self._epoch_start = self._capture()
            batches = _unread(self.loader)
        else:
            batches = self._return_to_place(self._epoch_start)
        for batch in batches:
            self._loaded += 1
            self.draws = self._draws_always
            yield batch

    def batches_left(self) -> int | None:
        """Returns how many batches the epoch has left to train, as far as the loader says."""
        try:
            return len(self.loader) - self._trained  # type: ignore[arg-type]
        except TypeError:
            return None

    def alike_left(self) -> int:
        """Returns how many of the next batches surely have the size of the one before, and draw nothing."""
        if self._draws_always or self._batch_size is None:
            return 0
        return max(0, len(self.loader.sampler) // self._batch_size - self._loaded)  # type: ignore[attr-defined]

    def count_trained(self) -> None:
        """Counts all batches that were loaded as trained."""
        self._trained, self._before = self._loaded, None

    def note_state(self) -> None:
        """Notes the state before the next batch: a checkpoint that is saved before its step returns to that."""
        self._before = self._capture() | ({"loader": self._state_of_loader()} if self._keeps_its_place else {})

    @property
    def is_ahead(self) -> bool:
        """Whether a batch was loaded and is not trained, before which the state was noted."""
        return self._before is not None and self._loaded > self._trained

    def random_states(self) -> dict[str, Any]:
        """Returns the states of the global random generators, and of its own, to load the next batch with."""
        return self._before if self._before is not None else random_state.capture(self.generators)

    def finish_epoch(self) -> None:
        """Lets the next :meth:`epoch` be a new one."""
        self._before = None
        self._epoch_start, self._trained, self._loaded = None, 0, 0

    def leave(self) -> None:
        """Notes the place of a loader that keeps it itself, where a run ends that may go on."""
        if self._keeps_its_place:
            self._loader_state = self._state_of_loader()

    def _capture(self) -> dict[str, Any]:
        return random_state.capture(self.generators) | {"stateful": self._states()}

    def _states(self) -> list[Any]:
        return [owner.state_dict() for owner in self._stateful]

    def restore(self, states: dict[str, Any]) -> None:
        """Puts random states back; those of generators that the loader has not made yet cannot be."""
        self.tell_of_missing_generators(states)
        if len(states["generators"]) > len(self.generators):
            states = states | {"generators": []}  # which one is which is not known
        random_state.restore(states, self.generators)

    def tell_of_missing_generators(self, states: dict[str, Any]) -> None:
        """Says where the loader has fewer random generators now than have saved states."""
        if len(states["generators"]) > len(self.generators):
            logger.warning(
                "the state of %d random generators of the loader was saved, and it has %d now: what makes its "
                "generator where it is iterated goes on with a new one; if the order depends on that, a resumed "
                "run sees other batches: make it in __init__",
                *(len(states["generators"]), len(self.generators)),
            )

    def _return_to_place(self, epoch_start: dict[str, Any]) -> Iterator[Any]:
        now = random_state.capture(self.generators)
        self.restore(epoch_start)
        dataset: list[Any] = [owner for owner in self._stateful if owner is getattr(self.loader, "dataset", None)]
        datasets_now = [owner.state_dict() for owner in dataset]
        self._load(self._stateful, epoch_start.get("stateful", []))
        batches = _unread(self.loader, skip=self._trained)
        # A sampler is where it was by having been walked; a dataset was not read again.
        self._load(dataset, datasets_now)
        random_state.restore(now, self.generators)
        return batches

    def _ask_for_its_place(self) -> Iterator[Any]:
        if self._loader_state is None:
            return iter(self.loader)
        now = random_state.capture(self.generators)
        self.loader.load_state_dict(self._loader_state)  # type: ignore[attr-defined]
        self._loader_state = None
        batches = iter(self.loader)
        random_state.restore(now, self.generators)  # what it drew to return, it had drawn before
        return batches

    def _load(self, owners: list[Any], states: list[Any]) -> None:
        for owner, state in zip(owners, states, strict=False):
            owner.load_state_dict(state)

    def _state_of_loader(self) -> Any:
        if self._loaded != self._trained:
            if self._before is not None:
                return self._before["loader"]
            raise ValueError(
                "a checkpoint cannot be saved within a step where train_loader keeps its place itself: it has "
                "loaded the step's batches already; save it in a handler of step_end"
            )
        return self.loader.state_dict()  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """Returns the place, in tensors and plain values."""
        self._tell_what_is_not_saved()
        # What began no step is trained from the epoch's beginning.
        before = self._epoch_start if self._before is None and not self._trained else self._before
        place = {
            "epoch_start": self._epoch_start if self._trained else None,
            "taken": self._trained,
            "stateful": self._states() if before is None else before["stateful"],
            "batch_size": self._batch_size,
        }
        return place | ({"loader": self._state_of_loader()} if self._keeps_its_place else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Returns to a place: the next :meth:`epoch` begins there."""
        self._trained = state["taken"]
        self._epoch_start = state["epoch_start"] if self._trained else None
        size, saved_size = self._batch_size, state.get("batch_size")
        if self._trained and size is not None and saved_size not in (None, size):
            self._trained = state["taken"] * saved_size // size
            logger.warning(
                "train_loader has batches of %d, and the interrupted epoch had batches of %d: it is continued "
                "after the first %d of its examples",
                *(size, saved_size, self._trained * size),
            )
        self._load(self._stateful, state.get("stateful", []))
        self._loader_state = state.get("loader")

    def _tell_what_is_not_saved(self) -> None:
        now = _counts(self._unsaved)
        changed = [name for name, value in now.items() if value != self._counts.get(name, value)]
        if changed:
            self._unsaved = []  # said once
            logger.warning(
                "%s changes while train_loader is read and is in no checkpoint: if the order depends on it, a "
                "resumed run sees other batches; give its class state_dict and load_state_dict",
                " and ".join(changed),
            )
