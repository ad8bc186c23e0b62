"""Random generators of the loaders of a loop of one's own, which is resumed in another process.

There the user's code makes them anew. Which is which is told by the state that each begins with: loops may come in
another order then, two may share a generator, and each fold may have one of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from xaytune.trainer import random_state
from xaytune.trainer.random_state import Generator

logger = logging.getLogger(__name__)


@dataclass
class _Seen:
    """A generator that a loader has.

    Attributes:
        generator: The generator.
        first: A digest of the state that it began with.
        place: The number of the loader's loop of steps in the body, and its own number there.
    """

    generator: Generator
    first: str
    place: tuple[int, int]


class Generators:
    """Puts each generator back to its saved state, once, when it is first seen."""

    def __init__(self) -> None:
        self._seen: dict[int, _Seen] = {}  # by their identity; the one that was seen last is the last
        self._saved: list[Mapping[str, Any]] = []

    def load(self, saved: Mapping[str, Any]) -> None:
        """Takes what a checkpoint has of them."""
        self._saved = list(saved["generators"] if "generators" in saved else _of_older(saved["loaders"]))

    def state(self, loaded_ahead: Mapping[int, Any]) -> list[dict[str, Any]]:
        """Returns what a checkpoint is to have of them.

        Args:
            loaded_ahead: States that count instead of the present ones, by the identity of their generators.
        """
        states = [dict(saved) for saved in self._saved]  # those that are not seen again yet
        for identity, seen in self._seen.items():
            ahead = identity in loaded_ahead
            state = loaded_ahead[identity] if ahead else random_state.state_of(seen.generator)
            states.append({"first": seen.first, "place": seen.place, "state": state})
        return states

    def see(self, generators: Sequence[Generator], loop: int, *, returned: bool) -> None:
        """Learns what generators a loader has, and puts those that were not seen yet back.

        Args:
            generators: They.
            loop: The number of its loop in the body.
            returned: Whether the run was saved within these epochs; else the loader may be that of a later fold.
        """
        for at, generator in enumerate(generators):
            place = loop, at
            seen = self._seen.pop(id(generator), None)
            if seen is None:
                seen = _Seen(generator, random_state.digest(generator), place)
                self._put_back(seen, returned=returned)
            seen.place = place
            self._seen[id(generator)] = seen

    def _put_back(self, seen: _Seen, *, returned: bool) -> None:
        saved = self._found(seen, returned=returned)
        if saved is None or not random_state.is_state_of(seen.generator, saved["state"]):
            return
        self._saved = [other for other in self._saved if other is not saved]
        random_state.put(seen.generator, saved["state"])
        if not returned:
            logger.warning(
                "the loader's random generator goes on from where one with the same seed was in the loop before, "
                "as one for all loops does: if each loop makes its own, give each another seed"
            )

    def _found(self, seen: _Seen, *, returned: bool) -> Mapping[str, Any] | None:
        """Returns what was saved of a generator: of the one that began alike, or else of the one in its place."""
        in_place = [saved for saved in self._saved if tuple(saved["place"]) == seen.place]
        alike = [saved for saved in self._saved if saved["first"] == seen.first]
        both = [saved for saved in in_place if saved["first"] == seen.first]
        alike_now = any(other.first == seen.first for other in self._seen.values())
        if not returned and (alike_now or len(both) > 1):
            return None  # each loop makes one of its own
        candidates = both or alike or (in_place if returned else [])
        return candidates[-1] if candidates else None


def _of_older(loaders: Mapping[int, Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """What an older checkpoint has of them: it does not say how they began."""
    return [
        {"first": None, "place": (loop, at), "state": state}
        for loop, saved in loaders.items()
        for at, state in enumerate(saved["random"]["generators"])
    ]
