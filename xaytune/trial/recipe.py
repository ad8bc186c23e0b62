"""Recipes, callbacks and setup: finding what a reference names, and checking that it can be called."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import inspect
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import cloudpickle

from xaytune.errors import Path, Problem, SpecError, nearest
from xaytune.sweep.spec import Reference, SweepSpec, TrackerName, reference_name
from xaytune.trial.messages import Task
from xaytune.trial.trackers.tracking import missing

__all__ = [
    "ByValue",
    "Named",
    "check_references",
    "named_references",
    "never_reported",
    "portable",
    "problems_of",
    "resolve",
    "use_import_paths",
]


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
        recipe=_portable(task.recipe),
        setup=_portable(task.setup) if task.setup is not None else None,
        callbacks=tuple(map(_portable, task.callbacks)),
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
    recipe: Reference, callbacks: Iterable[Reference], setup: Reference | None = None
) -> list[Named]:
    """Returns all functions that a spec names; the recipe is the first, the setup the last."""
    named = [Named(("recipe",), recipe, ("config", "trial"))]
    named += [Named(("callbacks", i), callback, ("trial", "config")) for i, callback in enumerate(callbacks)]
    return named if setup is None else [*named, Named(("setup",), setup, ())]


def use_import_paths(paths: Iterable[str]) -> None:
    """Makes these folders importable, the first of them first."""
    for path in reversed(list(paths)):
        if path not in sys.path:
            sys.path.insert(0, path)


def resolve(reference: Reference) -> Callable[..., Any]:
    """Returns the function that a reference names.

    Raises:
        ValueError: Its module cannot be imported, or has no such function.
    """
    if isinstance(reference, ByValue):
        try:
            return reference.load()
        except Exception as error:
            name = reference_name(reference)
            raise ValueError(f"{name} cannot be made: {type(error).__name__}: {error}") from error
    if not isinstance(reference, str):
        return reference
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        own = [at for at in traceback.extract_tb(error.__traceback__) if not at.filename.startswith("<frozen")]
        # The first two frames are those of this function and of importlib.
        where = f"{own[-1].filename}:{own[-1].lineno}" if len(own) > 2 else f"looked in {os.getcwd()}"
        raise ValueError(f"{module_name} cannot be imported: {type(error).__name__}: {error} ({where})") from error
    for name in path.split("."):
        if not hasattr(found, name):
            functions = [key for key, value in vars(found).items() if inspect.isfunction(value)]
            raise ValueError(f"{module_name} has no {path!r}; {nearest(name, functions)}")
        found = getattr(found, name)
    if not callable(found):
        raise ValueError(f"{reference} is not a function (it is a {type(found).__name__})")
    function: Callable[..., Any] = found
    return function


def check_references(
    recipe: Reference,
    callbacks: Iterable[Reference],
    trackers: Iterable[TrackerName] = (),
    setup: Reference | None = None,
) -> None:
    """Checks that all functions of a spec are there and take what they will be given, and that trackers are there.

    Modules are looked for in the current folder first.

    Raises:
        SpecError: With everything that is wrong.
    """
    use_import_paths([os.getcwd()])
    problems = [problem for named in named_references(recipe, callbacks, setup) for problem in problems_of(named)]
    problems += missing(trackers)
    if problems:
        raise SpecError(problems)


def never_reported(spec: SweepSpec, metrics: Mapping[str, float]) -> Problem:
    """Words that a trial was finished without the metric of its sweep.

    Args:
        spec: The sweep.
        metrics: What the trial did report.
    """
    reported = f"; {nearest(spec.metric, metrics)}" if metrics else ": it reported no metric at all"
    return Problem(("metric",), f"{reference_name(spec.recipe)} never reported {spec.metric!r}{reported}")


def problems_of(named: Named) -> list[Problem]:
    """Returns what keeps a function from being called as it will be."""
    try:
        function = resolve(named.reference)
    except ValueError as error:
        return [Problem(named.path, str(error))]
    try:
        signature = inspect.signature(function)
    except ValueError:
        return []  # a builtin without a signature: calling it will tell
    try:
        signature.bind(*named.arguments)
    except TypeError:
        must = f"must take ({', '.join(named.arguments)})" if named.arguments else "must take nothing"
        return [Problem(named.path, f"{reference_name(named.reference)} {must} (got {signature})")]
    return []
