"""Steps that members ask for, and those that could not be taken at once."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from xaytune.trainer.step import Step

if TYPE_CHECKING:
    from xaytune.trainer.fused.member import Member


class Asked(NamedTuple):
    """Steps that members ask for, whose batches have the same shapes.

    Attributes:
        members: The members.
        steps: What they ask for.
        windows: The batches of their steps.
        shapes: A key for each batch of a window.
    """

    members: Sequence[Member]
    steps: Sequence[Step]
    windows: Sequence[list[Any]]
    shapes: tuple[Hashable, ...]

    def step(self, at: int) -> Step:
        """Returns the step of the member of a place, with its batches."""
        return self.steps[at]._replace(batches=iter(self.windows[at]))

    def part(self, part: slice) -> Asked:
        """Returns those of some of the members."""
        return Asked(self.members[part], self.steps[part], self.windows[part], self.shapes)

    def following(self) -> Asked:
        """Returns the steps that follow these, where more may be taken."""
        return self._replace(windows=[[next(step.following)] for step in self.steps])


class Broken(NamedTuple):
    """A step among several that could not be taken at once.

    Attributes:
        asked: The step.
        error: Why.
    """

    asked: Asked
    error: Exception
