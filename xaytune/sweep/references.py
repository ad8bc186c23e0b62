"""Recipes and other functions of the user's: finding what a reference names, and whether it will be found again.

A function that is given as an object runs in the sweep that it was given to. In the journal there is only its
name, by which a resume looks for it: that finds functions and classes of modules, and those of the script or
notebook itself where it resumes its own sweep, but no lambdas, closures, partials, bound methods and instances.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from xaytune.errors import Problem, ProblemPath, SpecError, nearest
from xaytune.sweep.command import Command
from xaytune.sweep.options import Reference, reference_name
from xaytune.sweep.values import reference_to

# What each function that a spec names is called with.
_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "recipe": ("config", "trial"),
    "callbacks": ("trial", "config"),
    "setup": (),
}


def functions_of(
    recipe: Reference | Command | None, callbacks: Iterable[Reference], setup: Reference | None
) -> dict[ProblemPath, Reference]:
    """Returns the functions that a spec names, by their paths in it; the setup is the last."""
    named: dict[ProblemPath, Reference | Command | None] = {
        ("recipe",): recipe,
        **{("callbacks", index): callback for index, callback in enumerate(callbacks)},
        ("setup",): setup,
    }
    return {
        path: reference
        for path, reference in named.items()
        if reference is not None and not isinstance(reference, Command)
    }


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
    found = look_up(reference) if isinstance(reference, str) else reference
    if not callable(found):
        raise ValueError(f"{reference} is not a function (it is a {type(found).__name__})")
    function: Callable[..., Any] = found
    return function


def look_up(reference: str) -> Any:
    """Returns what ``module:name`` names.

    Raises:
        ValueError: The module cannot be imported, whatever it raises, or has nothing of that name.
    """
    module_name, _, path = reference.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        frames = [at for at in traceback.extract_tb(error.__traceback__) if not at.filename.startswith("<frozen")]
        # The first two are of this function and of importlib.
        where = f"{frames[-1].filename}:{frames[-1].lineno}" if len(frames) > 2 else f"looked in {os.getcwd()}"
        ended = ": it ends the process when it is imported" if isinstance(error, SystemExit) else ""
        raise ValueError(
            f"{module_name} cannot be imported{ended}: {type(error).__name__}: {error} ({where})"
        ) from error
    for name in path.split("."):
        if not hasattr(found, name):
            raise ValueError(_nothing_there(module_name, path, found))
        found = getattr(found, name)
    return found


def not_found_again(option: str, reference: Reference) -> str | None:
    """Tells why a later process will not find a function by its name; None where it will.

    A sweep of such a function runs, and is resumed by giving the function once more.
    """
    if isinstance(reference, str):
        return None
    name, again = reference_name(reference), f', overrides={{"{option}": ...}}'
    if isinstance(reference, functools.partial):
        kind = "a partial"
    elif inspect.ismethod(reference) and not inspect.isclass(reference.__self__):
        kind = "a method of an object"
    elif getattr(reference, "__name__", "") == "<lambda>":
        kind = "a lambda"
    elif "<locals>" in name:
        kind = "defined inside of a function"
    elif not hasattr(reference, "__qualname__"):
        kind = "an object"
    elif reference.__module__ == "__main__":
        kind, again = "defined in the script or notebook itself", ""  # which has it there
    elif reference_to(reference) is None:
        kind = "not what its module has under that name"
    else:
        return None
    return (
        f"{name} is {kind}: it cannot be found by its name later, so that the command line cannot resume the "
        f"sweep; from Python, xaytune.resume(NAME{again}) can"
    )


def own_functions(references: Mapping[ProblemPath, Reference]) -> dict[ProblemPath, Callable[..., Any]]:
    """Returns the functions that are those of the script or notebook itself, which no other process finds by name.

    Args:
        references: By their paths in the spec.

    Raises:
        SpecError: This process is not that script or notebook.
    """
    found, problems = {}, []
    for path, reference in references.items():
        if isinstance(reference, str) and reference.startswith("__main__:"):
            try:
                found[path] = resolve(reference)
                if found[path].__module__ != "__main__":  # one of the command line's, of the same name
                    raise ValueError(_nothing_there("__main__", reference.partition(":")[2], found[path]))
            except ValueError as error:
                problems.append(Problem(path, str(error)))
    if problems:
        raise SpecError(problems)
    return found


def check_references(references: Mapping[ProblemPath, Reference]) -> None:
    """Checks that functions are there and take what they will be given.

    Modules are looked for in the current folder first.

    Args:
        references: By their paths in the spec.

    Raises:
        SpecError: With everything that is wrong.
    """
    use_import_paths([os.getcwd()])
    problems = [problem for path, reference in references.items() for problem in problems_of(path, reference)]
    if problems:
        raise SpecError(problems)


def _nothing_there(module: str, path: str, found: Any) -> str:
    again = 'give it again: xaytune.resume(NAME, overrides={"recipe": ...})'
    if module == "__main__":
        return (
            f"{path} was defined in a script or notebook, which this process is not: resume the sweep there, or "
            f"{again}, or --set recipe=MODULE:{path}"
        )
    if "<locals>" in path or "<lambda>" in path:
        return f"{module} has no {path!r}, a lambda or a function inside of another: {again}"
    members = getattr(found, "__dict__", {}).items()
    known = [name for name, value in members if inspect.isfunction(value) or inspect.isclass(value)]
    return f"{module} has no {path!r}" + (f"; {nearest(path, known)}" if known else "")


def problems_of(
    path: ProblemPath,
    reference: Reference,
    resolve: Callable[[Reference], Callable[..., Any]] = resolve,
) -> Iterator[Problem]:
    """Yields what keeps a function from being called as it will be.

    Args:
        path: Where the spec names it.
        reference: What names it.
        resolve: Finds the function; raises ValueError where there is none.
    """
    try:
        function = resolve(reference)
    except ValueError as error:
        yield Problem(path, str(error))
        return
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):
        return  # a builtin without a signature: calling it will tell
    arguments = _ARGUMENTS[str(path[0])]
    try:
        signature.bind(*arguments)
    except TypeError:
        expected = f"({', '.join(arguments)})" if arguments else "nothing"
        yield Problem(path, f"{reference_name(reference)} must take {expected} (got {signature})")
