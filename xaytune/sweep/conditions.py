"""Conditions between parameters: each is checked against what it refers to, and parents come first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from xaytune.errors import Problem, nearest
from xaytune.sweep.domains import Categorical, Domain, Integer
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.values import same

Wrong = tuple[str, Problem]


def ordered(
    parameters: Mapping[str, Parameter], constants: Mapping[str, Any]
) -> tuple[tuple[Parameter, ...], list[Wrong]]:
    """Orders parameters, parents before what depends on them.

    Args:
        parameters: By name; their conditions as they were written: a value, or a list or tuple of values.
        constants: Fixed values by name.

    Returns:
        The parameters, with the values of their conditions as the parents have them; and what is wrong, each with
        the parameter that it is wrong with, and a path below that.
    """
    wrong: list[Wrong] = []
    checked: dict[str, Parameter] = {}
    for name, parameter in parameters.items():
        when = {}
        for parent, given in parameter.when.items():
            when[parent], messages = _values(parent, given, parameters, constants)
            wrong += [(name, Problem(("when", parent), message)) for message in messages]
        checked[name] = replace(parameter, when=when)
    if wrong:
        return (), wrong
    result: dict[str, Parameter] = {}
    waiting = dict(checked)
    while waiting:
        ready = [p for p in waiting.values() if not any(parent in waiting for parent in p.when)]
        if not ready:
            names = ", ".join(waiting)
            return (), [
                ("", Problem((), f"the conditions of {names} need each other: none of them can ever exist"))
            ]
        for parameter in ready:
            result[parameter.name] = waiting.pop(parameter.name)
    return tuple(result.values()), list(_impossible(result))


def _values(
    parent: str, given: Any, parameters: Mapping[str, Parameter], constants: Mapping[str, Any]
) -> tuple[tuple[Any, ...], list[str]]:
    """The values of a parent that a condition names, as the parent has them; and what is wrong with others."""
    if parent in constants:
        domain: Domain = Categorical((constants[parent],))
    elif parent in parameters:
        domain = parameters[parent].domain
    else:
        return (), [f"there is no parameter {parent!r}; {nearest(parent, [*parameters, *constants])}"]
    if not isinstance(domain, (Categorical, Integer)):
        return (), [
            "a condition needs a parameter whose values can be named: one with choice, grid or randint, "
            f"or a constant; write {parent} as a choice: {{choice: [...]}}"
        ]
    found, messages = [], []
    for value in _alternatives(given, domain):
        try:
            found.append(domain.accept(value))
        except ValueError as error:
            allowed = str(error).removeprefix("must be ").partition(" (got ")[0]
            messages.append(f"{parent} never is {value!r}; it is {allowed}")
    return tuple(found), messages


def _alternatives(given: tuple[Any, ...] | list[Any], domain: Domain) -> tuple[Any, ...]:
    """The values that a condition names: a list of them, unless the list itself is one of the choices."""
    if isinstance(domain, Categorical) and any(same(given, choice) for choice in domain.choices):
        return (given,)
    return tuple(given)


def _impossible(parameters: Mapping[str, Parameter]) -> Iterator[Wrong]:
    """Yields the parameters whose needs, and what those need, cannot hold at once."""
    for parameter in parameters.values():
        allowed: dict[str, list[Any]] = {}
        waiting = [parameter]
        while waiting:
            for parent, values in waiting.pop().when.items():
                before = allowed.get(parent, list(values))
                allowed[parent] = [one for one in before if any(same(one, value) for value in values)]
                if parent in parameters:
                    waiting.append(parameters[parent])
        for parent, possible in allowed.items():
            if not possible:
                message = f"it can never exist: its conditions ask different values of {parent!r}"
                yield parameter.name, Problem(("when",), message)
                break
