"""Reading a search space from a mapping.

A space is a mapping. A value is a domain, ``{loguniform: [1e-4, 0.3]}``, a constant, or a nested mapping.
Names and bounds are Ray Tune's:

=============  ============================  ==========================================================
domain         arguments                     values
=============  ============================  ==========================================================
``uniform``    ``[low, high]``               floats from low to high
``loguniform`` ``[low, high]``               floats, evenly over the logarithm
``quniform``   ``[low, high, q]``            floats from low to high (included) in steps of q
``randint``    ``[low, high]``               integers from low to high - 1
``lograndint`` ``[low, high]``               integers from low to high - 1, evenly over the logarithm
``choice``     ``[value, ...]``              one of the values
``grid``       ``[value, ...]``              each of the values in turn: every sample is multiplied by it
=============  ============================  ==========================================================

``{uniform: [0.5, 0.99], when: {optimizer: sgd}}`` exists only in configurations whose ``optimizer`` is
``sgd`` (or one of a list of values).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from xaytune.errors import Path, Problem, SpecError, nearest
from xaytune.sweep.domains import Categorical, Domain, Float, Integer
from xaytune.sweep.space import Parameter, Space

__all__ = ["parse_space"]


def parse_space(raw: Any) -> Space:
    """Builds a space from a mapping.

    Raises:
        SpecError: With everything that is wrong, each problem's path beginning at the space.
    """
    parser = _Parser()
    parser.walk(raw, ())
    ordered = parser.finish()
    if parser.problems:
        raise SpecError(parser.problems)
    return Space(raw, ordered, parser.constants)


class _Parser:
    """Collects parameters, constants and problems from a mapping."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.parameters: dict[str, Parameter] = {}
        self.constants: dict[str, Any] = {}

    def walk(self, raw: Any, path: Path) -> None:
        if not isinstance(raw, Mapping):
            self._problem(path, f"must map parameters to domains or constants (got {raw!r})")
            return
        for key, value in raw.items():
            here = (*path, key)
            if not isinstance(key, str) or not key or "." in key:
                self._problem(here, f"a parameter's name must be a string without dots (got {key!r})")
            elif not isinstance(value, Mapping):
                self.constants[".".join(map(str, here))] = value
            elif (domain := _domain_key(value)) is not None:
                self._parameter(value, domain, here)
            else:
                self.walk(value, here)

    def _parameter(self, raw: Mapping[str, Any], key: str, path: Path) -> None:
        name = ".".join(map(str, path))
        for extra in raw.keys() - {key, "when"}:
            self._problem((*path, extra), f"a domain takes only 'when' beside {key!r} (got {extra!r})")
        when = raw.get("when", {})
        if not isinstance(when, Mapping) or ("when" in raw and not when):
            self._problem((*path, "when"), f"must map parameters to the values they need (got {when!r})")
            when = {}
        if key not in _DOMAINS:
            self._problem((*path, key), f"unknown domain {key!r}; {nearest(key, _DOMAINS)}")
            return
        try:
            domain = _DOMAINS[key](raw[key])
        except ValueError as error:
            self._problem(path, f"{key}: {error}")
            return
        needs = {str(k): tuple(v) if isinstance(v, (list, tuple)) else (v,) for k, v in when.items()}
        self.parameters[name] = Parameter(name, domain, needs)

    def finish(self) -> tuple[Parameter, ...]:
        """Checks the conditions against what they refer to, and orders the parameters, parents first."""
        if not self.parameters and not self.problems:
            self._problem(
                (), "holds no parameter to search: give at least one a domain, such as {uniform: [0, 1]}"
            )
        broken = len(self.problems)
        for parameter in self.parameters.values():
            for parent, values in parameter.when.items():
                self._check_condition(parameter.name, parent, values)
        if len(self.problems) > broken:
            return ()
        ordered: dict[str, Parameter] = {}
        waiting = dict(self.parameters)
        while waiting:
            ready = [p for p in waiting.values() if not any(parent in waiting for parent in p.when)]
            if not ready:
                names = ", ".join(waiting)
                self._problem((), f"the conditions of {names} need each other: none of them can ever exist")
                break
            for parameter in ready:
                ordered[parameter.name] = waiting.pop(parameter.name)
        for parameter in ordered.values():
            self._check_possible(parameter)
        return tuple(ordered.values())

    def _check_possible(self, parameter: Parameter) -> None:
        """Checks that all that a parameter needs, and what that needs, can hold at once."""
        allowed: dict[str, list[Any]] = {}
        waiting = [parameter]
        while waiting:
            for parent, values in waiting.pop().when.items():
                allowed[parent] = [value for value in allowed.get(parent, values) if value in values]
                if not allowed[parent]:
                    path = (*parameter.name.split("."), "when")
                    self._problem(path, f"it can never exist: its conditions ask different values of {parent!r}")
                    return
                if parent in self.parameters:
                    waiting.append(self.parameters[parent])

    def _check_condition(self, name: str, parent: str, values: tuple[Any, ...]) -> None:
        path = (*name.split("."), "when", parent)
        if parent in self.constants:
            possible: Sequence[Any] = [self.constants[parent]]
        elif parent not in self.parameters:
            known = [*self.parameters, *self.constants]
            self._problem(path, f"there is no parameter {parent!r}; {nearest(parent, known)}")
            return
        else:
            domain = self.parameters[parent].domain
            if not isinstance(domain, Categorical):
                self._problem(path, "a condition needs a parameter with choice, grid or a constant value")
                return
            possible = domain.values()
        for value in values:
            if value not in possible:
                shown = ", ".join(map(str, possible))
                self._problem(path, f"{parent} never is {value!r}; it is one of: {shown}")

    def _problem(self, path: Path, message: str) -> None:
        self.problems.append(Problem(path, message))


def _domain_key(value: Mapping[str, Any]) -> str | None:
    """The key that makes a mapping a domain, also a misspelt one; None if it is a nested mapping."""
    for key in value:
        if key in _DOMAINS and (len(value) == 1 or "when" in value or isinstance(value[key], (list, tuple))):
            return key
    keys = [key for key in value if key != "when"]
    if len(keys) != 1 or not isinstance(keys[0], str):
        return None
    looks_misspelt = isinstance(value[keys[0]], (list, tuple)) and "mean" in nearest(keys[0], _DOMAINS)
    return keys[0] if "when" in value or looks_misspelt else None


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"bounds must be numbers (got {value!r})")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"bounds must be integers (got {value!r})")
    return value


def _arguments(arguments: Any, names: str) -> list[Any]:
    count = names.count(",") + 1
    if not isinstance(arguments, (list, tuple)) or len(arguments) != count:
        raise ValueError(f"takes [{names}] (got {arguments!r})")
    return list(arguments)


def _float(arguments: Any, log: bool = False) -> Float:
    low, high = map(_number, _arguments(arguments, "low, high"))
    return Float(low, high, log)


def _quantized(arguments: Any) -> Float:
    low, high, q = map(_number, _arguments(arguments, "low, high, q"))
    return Float(low, high, q=q)


def _int(arguments: Any, log: bool = False) -> Integer:
    low, high = map(_integer, _arguments(arguments, "low, high"))
    return Integer(low, high, log)


def _categorical(arguments: Any, grid: bool = False) -> Categorical:
    if not isinstance(arguments, (list, tuple)):
        raise ValueError(f"takes a list of values (got {arguments!r})")
    for choice in arguments:
        if isinstance(choice, Mapping) and _domain_key(choice) is not None:
            raise ValueError(f"takes values, not domains: give each its own name and a 'when' (got {choice!r})")
    return Categorical(tuple(arguments), gridded=grid)


_DOMAINS: dict[str, Callable[[Any], Domain]] = {
    "uniform": _float,
    "loguniform": lambda arguments: _float(arguments, log=True),
    "quniform": _quantized,
    "randint": _int,
    "lograndint": lambda arguments: _int(arguments, log=True),
    "choice": _categorical,
    "grid": lambda arguments: _categorical(arguments, grid=True),
}
