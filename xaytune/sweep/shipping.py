"""Functions that are sent to other processes: whether they can be, with all that they capture."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import cloudpickle

from xaytune.errors import Problem, ProblemPath, SpecError
from xaytune.sweep.options import Reference, reference_name

# What is pickled with a function goes to every node, and through Ray's own limits.
_MOST_BYTES = 50 * 2**20
_MB = 2**20


def check_shippable(references: Mapping[ProblemPath, Reference], most_bytes: int = _MOST_BYTES) -> None:
    """Checks that functions can be sent to other processes, with all that they capture.

    Args:
        references: By their paths in the spec; those given by name need not be sent.
        most_bytes: A function that is larger is refused.

    Raises:
        SpecError: What a function captures cannot be pickled or is too large: it is told by its name.
    """
    problems = []
    for path, reference in references.items():
        if isinstance(reference, str):
            continue
        size, error = _pickled(reference)
        if error is None and size <= most_bytes:
            continue
        blamed = list(_blamed(reference, most_bytes if error is None else None))
        names = f": {', '.join(blamed)}" if blamed else ""
        name = reference_name(reference)
        if error is not None:
            message = f"{name} cannot be sent to its trials, {error}{names}; make such things inside of it"
        else:
            message = (
                f"{name} would carry {size / _MB:.0f} MB to each process{names}; load such data inside of it, "
                "or in a setup function, whose result all trials of a node share"
            )
        problems.append(Problem(path, message))
    if problems:
        raise SpecError(problems)


def _pickled(value: Any) -> tuple[int, str | None]:
    """The size of a value when it is pickled; and why it cannot be, if it cannot."""
    try:
        return len(cloudpickle.dumps(value)), None
    except Exception as error:  # whatever __reduce__ of the user's raises
        return 0, f"{type(error).__name__}: {error}".splitlines()[0]


def _blamed(reference: Callable[..., Any], most_bytes: int | None) -> Iterator[str]:
    """Yields what a function captures that cannot be pickled or, if a size is given, that is large."""
    for name, value in _captured(reference):
        if inspect.ismodule(value):
            continue
        size, error = _pickled(value)
        if most_bytes is None and error is not None:
            yield f"{name} (a {type(value).__name__})"
        elif most_bytes is not None and size > most_bytes / 10:
            yield f"{name} (a {type(value).__name__}, {size / _MB:.0f} MB)"


def _captured(reference: Any) -> Iterator[tuple[str, Any]]:
    """Yields what goes along with a function, by name: globals and variables it uses, arguments, attributes."""
    if isinstance(reference, functools.partial):
        yield from ((f"argument {index}", value) for index, value in enumerate(reference.args))
        yield from reference.keywords.items()
        yield from _captured(reference.func)
    elif inspect.ismethod(reference):
        yield from ((f"self.{name}", value) for name, value in vars(reference.__self__).items())
    elif inspect.isfunction(reference):
        captured = inspect.getclosurevars(reference)
        yield from {**captured.globals, **captured.nonlocals}.items()
    elif hasattr(reference, "__dict__"):
        yield from ((f"self.{name}", value) for name, value in vars(reference).items())
