"""The points of a grid: every combination of some parameters' values, counted and found without a list of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from xaytune.sweep.parameter import Parameter


class Grid(Sequence[dict[str, Any]]):
    """Every combination of the values of parameters, by name, in the order of the parameters.

    A parameter that does not exist in a combination is left out of it. One empty combination if there are no
    parameters. A point is worked out when it is asked for: a grid takes no memory.

    Attributes:
        size: How many points there are.

    Args:
        parameters: Those that are gridded, parents before what depends on them.
        constants: Fixed values by dotted name, which conditions may refer to.

    Raises:
        ValueError: The values of a parameter cannot be counted, or are too many.
    """

    def __init__(self, parameters: Sequence[Parameter], constants: Mapping[str, Any]) -> None:
        self._parameters = parameters
        self._values = [_values(parameter) for parameter in parameters]
        needed = {parent for parameter in parameters for parent in parameter.when}
        self._parents = [parameter.name in needed for parameter in parameters]
        self._constants = {name: value for name, value in constants.items() if name in needed}
        self._sizes: dict[tuple[int, tuple[int, ...]], int] = {}
        self.size = self._size(0, (), self._constants)

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[dict[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | list[dict[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.size))]
        left = index + self.size if index < 0 else index
        if not 0 <= left < self.size:
            raise IndexError(f"the grid has {self.size} points (got {index})")
        point: dict[str, Any] = {}
        chosen: tuple[int, ...] = ()
        known: Mapping[str, Any] = self._constants
        for depth, parameter in enumerate(self._parameters):
            if not parameter.active(known):
                continue
            place, left = self._place(depth, left, chosen, known)
            point[parameter.name] = self._values[depth][place]
            _, chosen, known = self._below(depth, place, chosen, known)
        return point

    def _place(self, depth: int, left: int, chosen: tuple[int, ...], known: Mapping[str, Any]) -> tuple[int, int]:
        """Which value of a parameter the point has that so many come before, and how many of those have it too."""
        if not self._parents[depth]:  # all values have as many points below them
            return divmod(left, self._size(depth + 1, chosen, known))
        place = 0
        while left >= (size := self._below(depth, place, chosen, known)[0]):
            left -= size
            place += 1
        return place, left

    def _below(
        self, depth: int, place: int, chosen: tuple[int, ...], known: Mapping[str, Any]
    ) -> tuple[int, tuple[int, ...], Mapping[str, Any]]:
        """How many points have a parameter's value, beside what is chosen with it for those that depend on it."""
        if self._parents[depth]:
            chosen = (*chosen, depth, place)
            known = {**known, self._parameters[depth].name: self._values[depth][place]}
        return self._size(depth + 1, chosen, known), chosen, known

    def _size(self, depth: int, chosen: tuple[int, ...], known: Mapping[str, Any]) -> int:
        """How many combinations the parameters from one on have, where `chosen` tells the values of parents."""
        if depth == len(self._parameters):
            return 1
        if (depth, chosen) not in self._sizes:
            if not self._parameters[depth].active(known):
                size = self._size(depth + 1, chosen, known)
            elif self._parents[depth]:
                size = sum(
                    self._below(depth, place, chosen, known)[0] for place in range(len(self._values[depth]))
                )
            else:
                size = len(self._values[depth]) * self._size(depth + 1, chosen, known)
            self._sizes[depth, chosen] = size
        return self._sizes[depth, chosen]


def _values(parameter: Parameter) -> Sequence[Any]:
    values = parameter.domain.values()
    if values is None:
        raise ValueError(
            f"{parameter.name} has too many values to try each: give quniform, randint, choice or grid"
        )
    return values
