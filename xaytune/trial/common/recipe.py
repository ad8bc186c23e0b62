"""Recipes, callbacks and setup on their way to the processes of trials: by name, or by value."""

from __future__ import annotations

import dataclasses
import functools
import io
import itertools
import linecache
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

import cloudpickle

from xaytune.messages import Task
from xaytune.sweep import references
from xaytune.sweep.command import Command
from xaytune.sweep.options import Reference, reference_name
from xaytune.sweep.values import reference_to


class ByValue:
    """A function that no module has under its name, such as a notebook's: it is made where it is called.

    Args:
        function: The function.
        pickled: It and those that it shares globals with, as those of a module do, and all that they capture.
        index: Which of them it is.
    """

    def __init__(self, function: Callable[..., Any], pickled: bytes, index: int) -> None:
        self.__module__, _, self.__qualname__ = reference_name(function).partition(":")
        self._pickled, self._index = pickled, index

    def load(self) -> Callable[..., Any]:
        """Makes the function.

        Raises:
            Exception: What it needs cannot be imported here.
        """
        return _made(self._pickled)[self._index]

    def __call__(self, *arguments: Any) -> Any:
        """Calls the function."""
        return self.load()(*arguments)


@functools.cache
def _made(pickled: bytes) -> list[Callable[..., Any]]:
    """Makes functions, once a process.

    What their script or notebook defines beside them is found in ``__main__``: ``torch.save`` writes the class of
    a model by its name.
    """
    functions: list[Callable[..., Any]] = pickle.loads(pickled)
    main = sys.modules["__main__"]
    for function in functions:
        for name, value in getattr(function, "__globals__", {}).items():
            defined = isinstance(value, (type, types.FunctionType)) and value.__module__ == "__main__"
            if defined and not hasattr(main, name):
                setattr(main, name, value)
    return functions


def portable(task: Task) -> Task:
    """Returns a task that can be given to another process, which imports nothing to read it.

    Functions become references to their modules, or :class:`ByValue`.
    """
    recipes = [] if isinstance(task.recipe, Command) else [task.recipe]
    functions = _portable([*task.callbacks, *recipes])
    return dataclasses.replace(
        task,
        recipe=functions.pop() if recipes else task.recipe,
        setup=_portable([task.setup])[0] if task.setup is not None else None,
        callbacks=tuple(functions),
        trackers=tuple(
            spec.model_copy(update={"tracker": _portable([spec.tracker])[0]}) for spec in task.trackers
        ),
    )


def _portable(references: Iterable[Reference]) -> list[Reference]:
    found = [_found_by(reference) for reference in references]
    own = [one for one in found if not isinstance(one, (str, ByValue))]
    pickled, index = _pickled(own), itertools.count()
    return [one if isinstance(one, (str, ByValue)) else ByValue(one, pickled, next(index)) for one in found]


def _found_by(reference: Reference) -> Reference:
    """Returns the name under which other processes find a function, or itself where they do not."""
    if isinstance(reference, (str, ByValue)):
        return reference
    name = reference_to(reference)
    return reference if name is None or name.startswith("__main__:") else name


def _pickled(functions: list[Callable[..., Any]]) -> bytes:
    pickled = io.BytesIO()
    _Pickler(pickled).dump(functions)
    return pickled.getvalue()


def _reduced(code: types.CodeType) -> tuple[Any, ...]:
    """Reduces code, with the file and the source that tracebacks and ``inspect`` look for."""
    make, arguments = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return _code, (code.co_filename, linecache.getlines(code.co_filename), make, arguments)


def _code(file: str, lines: list[str], make: Callable[..., types.CodeType], arguments: Any) -> types.CodeType:
    if lines:  # of a notebook's cell, or of a script of another machine, there is no file here
        linecache.cache.setdefault(file, (sum(map(len, lines)), None, lines, file))
    return make(*arguments).replace(co_filename=file)


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Keeps where code was written, which cloudpickle drops from 3.1.3 on."""

    dispatch_table: ClassVar[Any] = ChainMap({types.CodeType: _reduced}, cloudpickle.Pickler.dispatch_table)


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
        # What wraps a function of a script, such as functools.cache, is pickled by its name alone.
        by_name = isinstance(error, AttributeError) and name.startswith("__main__:")
        hint = "; define it in a module, and import it from there" if by_name else ""
        raise ValueError(f"{name} cannot be made: {type(error).__name__}: {error}{hint}") from error
