"""Random generators of the loaders of a loop of one's own, which is resumed in another process.

There the user's code makes them anew. Which is which is told by the state that each begins with: loops may come in
another order then, two may share a generator, and each fold may have one of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import ref

import torch

from xaytune.trainer import random_state
from xaytune.trainer.random_state import Generator

logger = logging.getLogger(__name__)

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
        self._firsts: set[str] = set()  # also of those that are gone
        self._made_anew: set[str] = set()  # firsts of which one loop after another makes a generator of its own
        self._saved: list[_Saved] = []  # those that were not seen yet

    def load(self, saved: Mapping[str, Any]) -> None:
        """Takes what a checkpoint has of them."""
        if "generators" not in saved:
            self._saved = _of_older(saved["loaders"])
            return
        found = saved["generators"]
        self._made_anew = set(found["made_anew"])
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
        return {"seen": listed, "made_anew": sorted(self._made_anew)}

    def see(self, generators: Sequence[Generator], loop: int, *, returned: bool) -> None:
        """Learns what generators a loader has, and puts those that were not seen yet back.

        Args:
            generators: They.
            loop: The number of its loop in the body.
            returned: Whether the run was saved within these epochs; else the loader may be that of a later fold.
        """
        self._seen = {id(generator): seen for generator, seen in self._alive()}
        for at, generator in enumerate(generators):
            place = loop, at
            if id(generator) in self._seen:
                self._seen[id(generator)].place = place
                continue
            first = random_state.digest(generator)
            self._put_back(generator, first, place, returned=returned)
            if first in self._firsts:
                self._made_anew.add(first)
            self._firsts.add(first)
            self._seen[id(generator)] = _Seen(_reference(generator), first, place)

    def _alive(self) -> Iterator[tuple[Generator, _Seen]]:
        for seen in self._seen.values():
            if (generator := seen.generator()) is not None:
                yield generator, seen

    def _put_back(self, generator: Generator, first: str, place: _Place, *, returned: bool) -> None:
        if not returned and first in self._made_anew | self._firsts:
            return
        alike = [saved for saved in self._saved if saved.first == first]
        in_place = [saved for saved in self._saved if saved.place == place]
        candidates = [saved for saved in in_place if saved.first == first] or alike
        if not candidates and returned:
            # One of numpy or python begins elsewhere in each process where it was given no seed.
            may_differ = not isinstance(generator, torch.Generator)
            candidates = [saved for saved in in_place if may_differ or saved.first is None]
        if not candidates or not random_state.is_state_of(generator, candidates[-1].state):
            return
        self._saved = [saved for saved in self._saved if saved is not candidates[-1]]
        random_state.put(generator, candidates[-1].state)
        if not returned:
            logger.warning(
                "the loader's random generator goes on from where one with the same seed was in the loop before, "
                "as one for all loops does: if each loop makes its own, give each another seed"
            )


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
