"""Random generators of the loaders of a loop of one's own, which is resumed in another process.

There the user's code makes them anew. Which is which is told by the state that each begins with: loops may come in
another order then, two may share a generator, and each fold, or each epoch, may have one of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from weakref import ref

from xaytune.trainer import random_state
from xaytune.trainer.random_state import Generator

logger = logging.getLogger(__name__)

_ALIKE: Final = (
    "the loader's random generator goes on from where one with the same seed was in the loop before, as one for "
    "all loops does: if each loop makes its own, give each another seed"
)
_OTHER: Final = (
    "the loader's random generator begins otherwise than before, and goes on from where it was saved: if each "
    "epoch makes its own, it trains on other batches than it would have had; make the loader before the loop"
)
# The number of a loader's loop of steps in the body of an epoch, and that of the generator among the loader's.
_Place = tuple[int, int]


@dataclass
class _Seen:
    """A generator that a loader has.

    Attributes:
        generator: Returns it; None once it is gone.
        first: A digest of the state that it began with.
        place: Where it was seen last.
    """

    generator: Callable[[], Generator | None]
    first: str
    place: _Place


@dataclass(eq=False)
class _Saved:
    """A generator as it was saved.

    Attributes:
        first: A digest of the state that it began with; None in older checkpoints.
        place: Where it was seen last.
        state: Its state.
    """

    first: str | None
    place: _Place
    state: Any


class Generators:
    """Puts each generator back to its saved state, once, when it is first seen."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}  # by their identity
        # With what generators began at each place, also those that are gone, and in which loop of epochs.
        self._begun: dict[tuple[str, _Place], int] = {}
        # Where several began alike: one in each loop of epochs, or in each epoch.
        self._anew_in_loops: set[tuple[str, _Place]] = set()
        self._anew_in_epochs: set[tuple[str, _Place]] = set()
        self._of_an_epoch: set[_Place] = set()  # where each epoch has another generator
        self._last: dict[_Place, int] = {}  # the loop of epochs that had one there last
        self._saved: list[_Saved] = []  # those that were not seen yet

    def load(self, saved: Mapping[str, Any]) -> None:
        """Takes what a checkpoint has of them."""
        if "generators" not in saved:
            self._saved = _of_older(saved["loaders"])
            return
        found = saved["generators"]
        self._anew_in_loops = {(first, tuple(place)) for first, place in found["anew_in_loops"]}
        self._anew_in_epochs = {(first, tuple(place)) for first, place in found["anew_in_epochs"]}
        self._of_an_epoch = set(map(tuple, found["of_an_epoch"]))
        self._saved = [_Saved(one["first"], tuple(one["place"]), one["state"]) for one in found["seen"]]

    def state(self, loaded_ahead: Mapping[int, Any]) -> dict[str, Any]:
        """Returns what a checkpoint is to have of them.

        Args:
            loaded_ahead: States that count instead of the present ones, by the identity of their generators.
        """
        kept = list(self._saved)
        for generator, seen in self._alive():
            ahead = id(generator) in loaded_ahead
            state = loaded_ahead[id(generator)] if ahead else random_state.state_of(generator)
            kept.append(_Saved(seen.first, seen.place, state))
        listed = [{"first": one.first, "place": one.place, "state": one.state} for one in kept]
        return {
            "seen": listed,
            "anew_in_loops": sorted(self._anew_in_loops),
            "anew_in_epochs": sorted(self._anew_in_epochs),
            "of_an_epoch": sorted(self._of_an_epoch),
        }

    def see(
        self, generators: Sequence[Generator], epochs: int, loop: int, *, returned: bool, within: bool
    ) -> None:
        """Learns what generators a loader has, and puts those that were not seen yet back.

        Args:
            generators: They.
            epochs: The number of the loop of epochs.
            loop: The number of the loader's loop in the body.
            returned: Whether the run was saved within these epochs; else the loader may be that of a later fold.
            within: Whether it was saved within that loop in the body.
        """
        self._seen = {id(generator): seen for generator, seen in self._alive()}
        for at, generator in enumerate(generators):
            place = loop, at
            last, self._last[place] = self._last.get(place), epochs
            if id(generator) in self._seen:
                self._seen[id(generator)].place = place
                continue
            if last == epochs:
                self._of_an_epoch.add(place)
            first = random_state.digest(generator)
            self._put_back(generator, first, place, returned=returned, within=within)
            if (first, place) in self._begun:
                anew = self._anew_in_epochs if self._begun[first, place] == epochs else self._anew_in_loops
                anew.add((first, place))
            self._begun[first, place] = epochs
            self._seen[id(generator)] = _Seen(_reference(generator), first, place)

    def _alive(self) -> Iterator[tuple[Generator, _Seen]]:
        for seen in self._seen.values():
            if (generator := seen.generator()) is not None:
                yield generator, seen

    def _put_back(self, generator: Generator, first: str, place: _Place, *, returned: bool, within: bool) -> None:
        anew = self._anew_in_epochs if returned else {*self._anew_in_epochs, *self._anew_in_loops, *self._begun}
        if (first, place) in anew and not within:
            return
        in_place = [saved for saved in self._saved if saved.place == place]
        alike = [saved for saved in in_place if saved.first == first]
        candidates = alike or [saved for saved in self._saved if saved.first == first]
        told = None if returned else _ALIKE
        if not candidates and returned and (within or place not in self._of_an_epoch):
            candidates, told = in_place, None if within else _OTHER
        if not candidates or not random_state.is_state_of(generator, candidates[-1].state):
            return
        self._saved = [saved for saved in self._saved if saved is not candidates[-1]]
        random_state.put(generator, candidates[-1].state)
        if told is not None:
            logger.warning(told)


def _reference(generator: Generator) -> Callable[[], Generator | None]:
    """Returns what returns a generator while it is there; those of numpy stay for good."""
    try:
        return ref(generator)
    except TypeError:
        return lambda: generator


def _of_older(loaders: Mapping[int, Mapping[str, Any]]) -> list[_Saved]:
    """What an older checkpoint has of them: it does not say how they began."""
    return [
        _Saved(None, (loop, at), state)
        for loop, saved in loaders.items()
        for at, state in enumerate(saved["random"]["generators"])
    ]
