"""The search space: its parameters, when each of them exists, and the configurations they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from xaytune.errors import Problem, ProblemPath, SpecError, nearest
from xaytune.sweep.grid import Grid
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.values import same, text

_ABSENT = object()


class Space:
    """A checked search space.

    Args:
        raw: The mapping that it was parsed from; this and the next two are attributes, too.
        parameters: In an order in which parents come before what depends on them.
        constants: Fixed values by dotted name.
        sequences: The lists and tuples that hold parameters, by dotted name, and how many items each has: these
            are named by index, ``betas.0``.
    """

    def __init__(
        self,
        raw: Mapping[str, Any],
        parameters: tuple[Parameter, ...],
        constants: Mapping[str, Any],
        sequences: Mapping[str, tuple[type[list[Any]] | type[tuple[Any, ...]], int]] | None = None,
    ) -> None:
        self.raw = raw
        self.parameters = parameters
        self.constants = dict(constants)
        # Inner ones first: a tuple takes its items when it is made.
        self._sequences = sorted((sequences or {}).items(), key=lambda item: -item[0].count("."))

    @property
    def names(self) -> tuple[str, ...]:
        """The dotted names of its parameters and constants."""
        return (*(parameter.name for parameter in self.parameters), *self.constants)

    def has(self, name: str) -> bool:
        """Tells whether configurations have something under a dotted name."""
        return self._belongs(name, self.names)

    def configure(self, suggest: Callable[[Parameter], Any]) -> dict[str, Any]:
        """Builds a configuration.

        Args:
            suggest: Gives the value of a parameter; asked only for those that exist, parents first.

        Returns:
            The nested configuration, constants included.
        """
        values = dict(self.constants)
        for parameter in self.parameters:
            if parameter.active(values):
                values[parameter.name] = suggest(parameter)
        return self._nest(values)

    def values(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values that the parameters have in a configuration, by name."""
        found = {parameter.name: value_at(config, parameter.name, _ABSENT) for parameter in self.parameters}
        return {name: value for name, value in found.items() if value is not _ABSENT}

    def complete(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Returns a configuration that somebody wrote, checked, and as the space itself would build it.

        Args:
            config: A value for each parameter that exists, nested or by dotted names; constants may be left out.

        Raises:
            SpecError: It is none of the space; with everything that is wrong.
        """
        given = dotted(config)
        try:
            config = nest(given)
        except (AttributeError, TypeError):
            message = f"a name is a value and holds others too (got {text(given)})"
            raise SpecError([Problem((), message)]) from None
        known = self.names
        problems = [
            Problem((name,), f"the space has no such parameter; {nearest(name, known)}")
            for name in self._names_in(given)
            if not self._belongs(name, known)
        ]
        problems += [
            Problem((name,), f"is {text(value)} in the space (got {text(found)})")
            for name, value in self.constants.items()
            if (found := value_at(config, name, _ABSENT)) is not _ABSENT and not same(found, value)
        ]
        values = dict(self.constants)
        for parameter in self.parameters:
            value = value_at(config, parameter.name, _ABSENT)
            if not parameter.active(values):
                if value is not _ABSENT:
                    problems.append(Problem((parameter.name,), f"does not exist here: {_needs(parameter)}"))
            elif value is _ABSENT:
                problems.append(Problem((parameter.name,), "is missing: a configuration has all parameters"))
            else:
                problems += _accept(parameter, value, into=values)
        if problems:
            raise SpecError(problems)
        return self._nest(values)

    def fix(self, values: Mapping[str, Any]) -> Space:
        """Returns the space with these parameters, by dotted name, held at a value.

        Raises:
            SpecError: The space has no such parameter.
        """
        known = self.names
        unknown = [name for name in values if name not in known]
        if unknown:
            raise SpecError(
                Problem((), f"the space has no parameter {name!r}; {nearest(name, known)}") for name in unknown
            )
        searched = tuple(parameter for parameter in self.parameters if parameter.name not in values)
        return Space(self.raw, searched, {**self.constants, **values}, dict(self._sequences))

    def outside(self, values: Mapping[str, Any]) -> list[Problem]:
        """Returns what is wrong with values, by dotted name, that the domains of their parameters do not have."""
        given = [parameter for parameter in self.parameters if parameter.name in values]
        return [problem for one in given for problem in _accept(one, values[one.name], into={})]

    def mutated(self, names: Sequence[str] | None) -> tuple[Parameter, ...]:
        """Returns the parameters that a population perturbs: those that are named, or all that always exist."""
        return tuple(p for p in self.parameters if (p.name in names if names is not None else not p.when))

    def grid(self, parameters: Sequence[Parameter]) -> Grid:
        """Returns every combination of the values of these parameters, by name, in their order.

        A parameter that does not exist in a combination is left out of it.

        Raises:
            ValueError: The values of one cannot be counted, or are too many.
        """
        return Grid(parameters, self.constants)

    def _names_in(self, config: Mapping[str, Any]) -> Iterator[str]:
        """Yields the dotted names of what a configuration holds, also within lists that hold parameters."""
        sequences = dict(self._sequences)
        for name, value in dotted(config).items():
            if name in sequences and isinstance(value, (list, tuple)):
                # An item all of whose parameters are absent is empty.
                items = ((index, item) for index, item in enumerate(value) if type(item) is not dict or item)
                yield from self._names_in({f"{name}.{index}": item for index, item in items})
            else:
                yield name

    def _belongs(self, name: str, known: Sequence[str]) -> bool:
        """Whether a dotted name is that of a parameter or a constant, or of something in one that is a mapping."""
        return any(name == one or name.startswith(f"{one}.") for one in known) or any(
            name == sequence for sequence, _ in self._sequences
        )

    def _nest(self, values: Mapping[str, Any]) -> dict[str, Any]:
        nested = nest(values)
        for name, (kind, length) in self._sequences:
            *parents, leaf = name.split(".")
            holder = nested
            for parent in parents:
                holder = holder.setdefault(parent, {})
            # An item all of whose parameters are absent is there all the same: others keep their place.
            items = holder.get(leaf, {})
            holder[leaf] = kind(items.get(str(index), {}) for index in range(length))
        return nested


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


def dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested configuration as one of dotted names; a mapping whose keys are no text is a value."""
    return dict(_dotted(config, ()))


def _dotted(config: Mapping[str, Any], path: ProblemPath) -> Iterator[tuple[str, Any]]:
    for name, value in config.items():
        here = (*path, name)
        if isinstance(value, dict) and value and all(isinstance(inner, str) for inner in value):
            yield from _dotted(value, here)
        else:
            yield ".".join(map(str, here)), value


def value_at(config: Any, name: str, absent: Any = None) -> Any:
    """Returns what a configuration has under a dotted name, or what is given for nothing."""
    found = config
    for part in name.split("."):
        if isinstance(found, Mapping):
            if part not in found:
                return absent
            found = found[part]
        elif isinstance(found, (list, tuple)) and part.isdecimal() and int(part) < len(found):
            found = found[int(part)]
        else:
            return absent
    return found


def _accept(parameter: Parameter, value: Any, *, into: dict[str, Any]) -> list[Problem]:
    """Takes in a parameter's value as its domain has it, and returns what is wrong where it has none such."""
    try:
        into[parameter.name] = parameter.domain.accept(value)
    except ValueError as error:
        return [Problem((parameter.name,), str(error))]
    return []


def _needs(parameter: Parameter) -> str:
    conditions = (f"{name} must be {' or '.join(map(text, allowed))}" for name, allowed in parameter.when.items())
    return f"for that {', '.join(conditions)}"
