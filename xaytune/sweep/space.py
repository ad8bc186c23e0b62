"""The search space: its parameters, when each of them exists, and the configurations they make."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xaytune.errors import Problem, SpecError, nearest
from xaytune.sweep.domains import Domain

__all__ = ["Parameter", "Space"]


@dataclass(frozen=True)
class Parameter:
    """A parameter of the space: its dotted name, its domain, and the parents' values it exists for."""

    name: str
    domain: Domain
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Tells whether the parameter exists where the parents have these values."""
        return all(name in values and values[name] in allowed for name, allowed in self.when.items())


class Space:
    """A checked search space.

    Attributes:
        raw: The mapping that it was parsed from.
        parameters: In an order in which parents come before what depends on them.
        constants: Fixed values by dotted name.
    """

    def __init__(
        self, raw: Mapping[str, Any], parameters: tuple[Parameter, ...], constants: Mapping[str, Any]
    ) -> None:
        self.raw = raw
        self.parameters = parameters
        self.constants = dict(constants)

    def configure(self, suggest: Callable[[Parameter], Any]) -> dict[str, Any]:
        """Builds a configuration.

        Args:
            suggest: Gives the value of a parameter; asked only for those that exist, parents first.

        Returns:
            The nested configuration, constants included.
        """
        values: dict[str, Any] = {}
        for parameter in self.parameters:
            if parameter.active(values | self.constants):
                values[parameter.name] = suggest(parameter)
        return nest({**self.constants, **values})

    def values(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values that the parameters have in a configuration, by name."""
        found: dict[str, Any] = {}
        for parameter in self.parameters:
            *parents, leaf = parameter.name.split(".")
            place: Any = config
            for parent in parents:
                place = place.get(parent, {})
            if leaf in place:
                found[parameter.name] = place[leaf]
        return found

    def fix(self, values: Mapping[str, Any]) -> Space:
        """Returns the space with these parameters, by dotted name, held at a value.

        Raises:
            SpecError: The space has no such parameter.
        """
        known = [*(parameter.name for parameter in self.parameters), *self.constants]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise SpecError(
                Problem((), f"the space has no parameter {name!r}; {nearest(name, known)}") for name in unknown
            )
        searched = tuple(parameter for parameter in self.parameters if parameter.name not in values)
        return Space(self.raw, searched, {**self.constants, **values})

    def grid(self, parameters: tuple[Parameter, ...]) -> Iterator[dict[str, Any]]:
        """Yields every combination of the values of these parameters, by name, in their order.

        A parameter that does not exist in a combination is left out of it.
        """

        def complete(point: dict[str, Any], index: int) -> Iterator[dict[str, Any]]:
            if index == len(parameters):
                yield dict(point)
                return
            parameter = parameters[index]
            if not parameter.active(point | self.constants):
                yield from complete(point, index + 1)
                return
            for value in parameter.domain.values() or ():
                yield from complete({**point, parameter.name: value}, index + 1)

        return complete({}, 0)

    def count(self, parameters: tuple[Parameter, ...]) -> int:
        """Returns how many combinations :meth:`grid` yields, without making those of independent parameters."""
        total = 1
        for group in self._groups(parameters):
            alone = len(group) == 1 and not group[0].when
            total *= len(group[0].domain.values() or ()) if alone else sum(1 for _ in self.grid(group))
        return total

    def _groups(self, parameters: tuple[Parameter, ...]) -> list[tuple[Parameter, ...]]:
        """Splits parameters into groups whose conditions do not speak of each other."""
        groups: list[list[Parameter]] = []
        for parameter in parameters:
            related = [group for group in groups if any(p.name in parameter.when for p in group)]
            groups = [group for group in groups if group not in related]
            groups.append([*itertools.chain.from_iterable(related), parameter])
        return [tuple(p for p in parameters if p in group) for group in groups]


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turns dotted names into nested dicts."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        *parents, leaf = name.split(".")
        target = nested
        for parent in parents:
            target = target.setdefault(parent, {})
        target[leaf] = value
    return nested
