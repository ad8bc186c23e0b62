"""Reading a search space from a mapping.

A space is a mapping. A value is a domain, ``{loguniform: [1e-4, 0.3]}``, a constant, a nested mapping, or a list
or tuple of these. Names and bounds are Ray Tune's:

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
``sgd``; ``when: {optimizer: [sgd, rmsprop]}`` names several values, and ``when: {layers: [2, 3]}`` those of an
integer. Dots in a name nest it: ``optimizer.lr`` is ``lr`` within ``optimizer``. The items of a list or tuple are
named by index: ``betas: [{uniform: [0.8, 0.9]}, 0.999]`` has a parameter ``betas.0``. An item that is a
mapping of parameters that do not exist is ``{}``.

Values are kept as :mod:`xaytune.sweep.values` says, and may be written in the forms that are listed there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from xaytune.errors import Problem, ProblemPath, SpecError, nearest
from xaytune.sweep.conditions import ordered
from xaytune.sweep.domains import Categorical, Domain, Float, Integer
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.space import Space
from xaytune.sweep.values import problems, read

# What stands beside the bounds of a domain in a spec of Optuna or W&B.
_ELSEWHERE = ("log", "step", "q", "distribution")


def parse_space(raw: Any) -> Space:
    """Builds a space from a mapping.

    Raises:
        SpecError: With everything that is wrong, each problem's path beginning at the space.
    """
    try:
        values = read(raw)
    except ValueError as error:
        raise SpecError([Problem((), str(error))]) from None
    parser = _Parser()
    parser.walk(values, (), "")
    parameters = parser.finish()
    if parser.problems:
        raise SpecError(parser.problems)
    return Space(values, parameters, parser.constants, parser.sequences)


class _Parser:
    """Collects parameters, constants and problems from a mapping."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.constants: dict[str, Any] = {}
        self.sequences: dict[str, Any] = {}
        self._parameters: dict[str, Parameter] = {}
        self._places: dict[str, ProblemPath] = {}  # where each name was found

    def walk(self, raw: Any, path: ProblemPath, name: str) -> None:
        """Takes in a mapping: the space, or one nested in it."""
        if not isinstance(raw, Mapping):
            self._problem(path, f"must map parameters to domains or constants (got {raw!r})")
            return
        for key, value in raw.items():
            if isinstance(key, str) and all(key.split(".")):
                self._take(value, (*path, key), f"{name}.{key}" if name else key)
            else:
                message = f"a parameter's name must be text, with dots only between names (got {key!r})"
                self._problem((*path, key if isinstance(key, (str, int)) else str(key)), message)

    def _take(self, value: Any, path: ProblemPath, name: str) -> None:
        """Takes in what the space has under a name."""
        if isinstance(value, Mapping) and (domain := _domain_key(value)) is not None:
            self._parameter(value, domain, path, name)
        elif isinstance(value, Mapping) and value and (_names(value) or _holds_domain(value)):
            if (meant := _meant(value)) is not None:
                message = f"holds constants: write {meant} if you mean that, or {{choice: [x]}} for each constant"
                self._problem(path, f"{message} (got {value!r})")
            self.walk(value, path, name)
        elif isinstance(value, (list, tuple)) and _holds_domain(value):
            self.sequences[name] = type(value), len(value)
            for index, item in enumerate(value):
                if isinstance(item, Mapping) and "when" in item and _domain_key(item) is not None:
                    message = "an item of a list always exists: it has no 'when'; write a choice of whole lists"
                    self._problem((*path, index, "when"), message)
                else:
                    self._take(item, (*path, index), f"{name}.{index}")
        elif self._is_new(path, name):
            self.problems += problems(value, path)
            self.constants[name] = value

    def _parameter(self, raw: Mapping[str, Any], key: str, path: ProblemPath, name: str) -> None:
        for extra in raw.keys() - {key, "when"}:
            self._problem((*path, extra), f"a domain takes only 'when' beside {key!r} (got {extra!r})")
        when = raw.get("when", {})
        if not isinstance(when, Mapping) or ("when" in raw and not when):
            self._problem((*path, "when"), f"must map parameters to the values they need (got {when!r})")
            when = {}
        if key not in _DOMAINS:
            self._problem((*path, key), f"unknown domain {key!r}; {nearest(key, _DOMAINS)}")
            return
        refused = list(_refused_choices(raw[key], (*path, key))) if key in ("choice", "grid") else []
        self.problems += refused
        if not self._is_new(path, name) or refused:
            return
        try:
            domain = _DOMAINS[key](raw[key])
        except ValueError as error:
            self._problem(path, f"{key}: {error}")
            return
        needs = {str(k): v if isinstance(v, (list, tuple)) else (v,) for k, v in when.items()}
        self._parameters[name] = Parameter(name, domain, needs)  # type: ignore[arg-type]

    def finish(self) -> tuple[Parameter, ...]:
        """Checks the conditions against what they refer to, and orders the parameters, parents first."""
        if not self._parameters and not self.problems:
            self._problem(
                (), "holds no parameter to search: give at least one a domain, such as {uniform: [0, 1]}"
            )
        parameters, wrong = ordered(self._parameters, self.constants)
        self.problems += [
            Problem((*self._places.get(name, ()), *problem.path), problem.message) for name, problem in wrong
        ]
        return parameters

    def _is_new(self, path: ProblemPath, name: str) -> bool:
        """Checks that a name is given once: ``a.b`` is also ``a: {b: ...}``."""
        clash = next(
            (
                other
                for other in self._places
                if other == name or other.startswith(f"{name}.") or name.startswith(f"{other}.")
            ),
            None,
        )
        if clash is not None:
            self._problem(path, f"is given twice: {clash!r} is there already")
            return False
        self._places[name] = path
        return True

    def _problem(self, path: ProblemPath, message: str) -> None:
        self.problems.append(Problem(path, message))


def _names(value: Mapping[Any, Any]) -> bool:
    """Whether a mapping nests: its keys are names. Else it is a value."""
    return all(isinstance(key, str) for key in value)


def _holds_domain(value: Any) -> bool:
    """Whether a mapping, list or tuple is a domain, or has one at any depth."""
    if isinstance(value, Mapping):
        return _domain_key(value) is not None or any(map(_holds_domain, value.values()))
    return isinstance(value, (list, tuple)) and any(map(_holds_domain, value))


def _meant(value: Mapping[str, Any]) -> str | None:
    """Returns what a mapping of constants is to Optuna or W&B, as it is written here, if it is anything."""
    for low, high in (("low", "high"), ("min", "max")):
        least, most = value.get(low), value.get(high)
        if not isinstance(least, (int, float)) or not isinstance(most, (int, float)):
            continue
        if value.keys() <= {low, high, *_ELSEWHERE}:
            return _meant_range(least, most, value)
    if value.keys() <= {"values", "distribution"} and isinstance(value.get("values"), (list, tuple)):
        return f"{{choice: {list(value['values'])}}}"
    if value.keys() == {"value", "distribution"} and not isinstance(value["value"], Mapping):
        return repr(value["value"])
    return None


def _meant_range(least: Any, most: Any, options: Mapping[str, Any]) -> str:
    distribution, step = str(options.get("distribution", "")), options.get("q", options.get("step"))
    log = "log" if options.get("log") or "log" in distribution else ""
    stepped = isinstance(step, (int, float)) and step > 0 and not log
    # To W&B bounds that are integers mean integers, where it is told no distribution.
    by_integers = distribution in ("", "int_uniform") or distribution.startswith("q_")
    if by_integers and all(isinstance(number, int) for number in (least, most, step or 1)):
        if stepped and step != 1:
            numbers = list(map(str, range(least, most + 1, step)))
            shown = numbers if len(numbers) <= 20 else [*numbers[:2], "...", numbers[-1]]
            return f"{{choice: [{', '.join(shown)}]}}"
        return f"{{{log}randint: [{least}, {most + 1}]}}"
    return f"{{quniform: [{least}, {most}, {step}]}}" if stepped else f"{{{log}uniform: [{least}, {most}]}}"


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


def _refused_choices(choices: Any, path: ProblemPath) -> Iterator[Problem]:
    """Yields what is wrong with the values of a choice: domains in them, and what cannot be kept."""
    if not isinstance(choices, (list, tuple)):
        return  # the domain itself says so
    for index, choice in enumerate(choices):
        place, domain = next(_domains_in(choice, (*path, index)), ((), None))
        if domain is not None:
            message = f"takes values, not domains: give each its own name and a 'when' (got {domain!r})"
            yield Problem(place, message)
        else:
            yield from problems(choice, (*path, index))


def _domains_in(value: Any, path: ProblemPath) -> Iterator[tuple[ProblemPath, Mapping[str, Any]]]:
    items: Any = ()
    if isinstance(value, Mapping):
        if len(value.keys() - {"when"}) == 1 and _domain_key(value) in _DOMAINS:
            yield path, value
        items = value.items()
    elif isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, item in items:
        yield from _domains_in(item, (*path, key))


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
