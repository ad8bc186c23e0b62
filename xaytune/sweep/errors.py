"""Problems of a spec: each says where, what, got, and the mend; all of a spec come at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

__all__ = ["Path", "Problem", "SpecError", "nearest"]

Path = tuple[str | int, ...]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, at a path of keys and indices into the spec, and its place in a file."""

    path: Path
    message: str
    place: str = ""

    def below(self, *parents: str | int) -> Problem:
        """Returns the problem with its path seen from further up."""
        return replace(self, path=(*parents, *self.path))

    def __str__(self) -> str:
        where = " ".join(part for part in (self.place, ".".join(map(str, self.path))) if part)
        return f"{where}: {self.message}" if where else self.message


class SpecError(ValueError):
    """A spec that cannot be run.

    Attributes:
        problems: Everything that is wrong with it; the error's text has a line for each.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the likeliest meant one, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
