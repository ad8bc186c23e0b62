"""Recipes, callbacks and setup on their way to the processes of trials: by name, or by value."""

from __future__ import annotations

import dataclasses
import functools
import pickle
import sys
from collections.abc import Callable, Iterable
from typing import Any

import cloudpickle

from xaytune.errors import Path, Problem
from xaytune.sweep import references
from xaytune.sweep.command import Command
from xaytune.sweep.options import Reference, reference_name
from xaytune.trial.messages import Task

__all__ = ["ByValue", "Named", "named_references", "portable", "problems_of", "resolve"]


class ByValue:
    """A function that no module has under its name, such as a notebook's: it is made where it is called.

    Args:
        function: The function, and all that it captures.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__module__, _, self.__qualname__ = reference_name(function).partition(":")
        self._pickled: bytes = cloudpickle.dumps(function)

    def load(self) -> Callable[..., Any]:
        """Makes the function.

        Raises:
            Exception: What it needs cannot be imported here.
        """
        function: Callable[..., Any] = pickle.loads(self._pickled)
        return function

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self.load()(*arguments)


def portable(task: Task) -> Task:
    """Returns a task that can be given to another process, which imports nothing to read it.

    Functions become references to their modules, or :class:`ByValue`.
    """
    return dataclasses.replace(
        task,
        recipe=task.recipe if isinstance(task.recipe, Command) else _portable(task.recipe),
        setup=_portable(task.setup) if task.setup is not None else None,
        callbacks=tuple(map(_portable, task.callbacks)),
        trackers=tuple(spec.model_copy(update={"tracker": _portable(spec.tracker)}) for spec in task.trackers),
    )


def _portable(reference: Reference) -> Reference:
    if isinstance(reference, (str, ByValue)):
        return reference
    name = reference_name(reference)
    module, _, path = name.partition(":")
    try:
        found: object = functools.reduce(getattr, path.split("."), sys.modules[module])
    except (KeyError, AttributeError):
        found = None
    return name if found is reference and module != "__main__" else ByValue(reference)


@dataclasses.dataclass(frozen=True)
class Named:
    """A function that a spec names.

    Attributes:
        path: Where it is named.
        reference: What names it.
        arguments: What it is called with.
    """

    path: Path
    reference: Reference
    arguments: tuple[str, ...]


def named_references(
    recipe: Reference | Command, callbacks: Iterable[Reference], setup: Reference | None = None
) -> list[Named]:
    """Returns all functions that a spec names; the recipe is the first, the setup the last."""
    named = [] if isinstance(recipe, Command) else [Named(("recipe",), recipe, ("config", "trial"))]
    named += [Named(("callbacks", i), callback, ("trial", "config")) for i, callback in enumerate(callbacks)]
    return named if setup is None else [*named, Named(("setup",), setup, ())]


def resolve(reference: Reference | Command) -> Callable[..., Any]:
    """Returns the function that a reference names; see :func:`xaytune.sweep.references.resolve`.

    Raises:
        ValueError: Its module cannot be imported, or has no such function; or it cannot be made here.
    """
    if isinstance(reference, Command):
        raise ValueError(f"a command is no function (got {reference})")
    if not isinstance(reference, ByValue):
        return references.resolve(reference)
    try:
        return reference.load()
    except Exception as error:
        name = reference_name(reference)
        raise ValueError(f"{name} cannot be made: {type(error).__name__}: {error}") from error


def problems_of(named: Named) -> list[Problem]:
    """Returns what keeps a function from being called as it will be."""
    return list(references.problems_of(named.path, named.reference, named.arguments, resolve))
