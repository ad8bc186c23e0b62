"""Recipes and per-trial callbacks: finding what a reference names, and checking that it can be called."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from xaytune.errors import Path, Problem, SpecError, nearest
from xaytune.sweep.spec import Reference, SweepSpec, TrackerName, reference_name
from xaytune.trial.trackers.tracking import missing

__all__ = ["check_references", "never_reported", "resolve", "use_import_paths"]


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
    if not isinstance(reference, str):
        return reference
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except Exception as error:
        raised = traceback.extract_tb(error.__traceback__)[-1]
        inside = not raised.filename.startswith("<frozen importlib")
        where = f"{raised.filename}:{raised.lineno}" if inside else f"looked in {os.getcwd()}"
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
    recipe: Reference, callbacks: Iterable[Reference], trackers: Iterable[TrackerName] = ()
) -> None:
    """Checks that a recipe and callbacks are there and take what they will be given, and that trackers are there.

    Modules are looked for in the current folder first.

    Raises:
        SpecError: With everything that is wrong.
    """
    use_import_paths([os.getcwd()])
    problems = [*_problems(("recipe",), recipe, ("config", "trial"))]
    for index, callback in enumerate(callbacks):
        problems += _problems(("callbacks", index), callback, ("trial", "config"))
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


def _problems(path: Path, reference: Reference, arguments: tuple[str, str]) -> Iterable[Problem]:
    try:
        function = resolve(reference)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    try:
        signature = inspect.signature(function)
    except ValueError:
        return  # a builtin without a signature: calling it will tell
    try:
        signature.bind(*arguments)
    except TypeError:
        expected = ", ".join(arguments)
        yield Problem(path, f"{reference_name(reference)} must take ({expected}) (got {signature})")
