"""What an object holds, at any depth."""

from __future__ import annotations

import functools
import gc
import itertools
import types
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

# Objects that are looked at, and items of one container, at most.
_MOST: Final = 5000
_MOST_OF_ONE: Final = 100
_LEAVES = (type(None), bool, int, float, str, bytes, type, types.ModuleType, Tensor, np.ndarray, Optimizer)


def reachable(roots: Iterable[Any], *, by_name: bool = False) -> Iterator[Any]:
    """Yields what objects hold, and themselves; large ones are looked at in part.

    Args:
        roots: The objects.
        by_name: Whether what the code of a function names at the top of its module is held by it.
    """
    seen: set[int] = set()
    queue = deque(roots)
    while queue and len(seen) < _MOST:
        value = queue.popleft()
        if id(value) in seen:
            continue
        yield value
        if not isinstance(value, _LEAVES):
            seen.add(id(value))
            queue.extend(_within(value, by_name))


def content_of(cell: types.CellType) -> Any:
    """Returns what a function has captured; a text where the name is not bound yet."""
    try:
        return cell.cell_contents
    except ValueError:
        return "not bound"


def named_in(function: types.FunctionType) -> list[Any]:
    """Returns the values of the global names in the code of a function, functions within it included."""
    return _named_in(function.__code__, function.__globals__)


def _named_in(code: types.CodeType, names: Mapping[str, Any]) -> list[Any]:
    found = [names[name] for name in code.co_names if name in names]
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            found += _named_in(inner, names)
    return found


def _within(value: Any, by_name: bool) -> list[Any]:
    if isinstance(value, (dict, types.MappingProxyType)):  # others may read their values from a disk
        return list(itertools.islice(value.values(), _MOST_OF_ONE))
    if isinstance(value, (list, tuple, set, frozenset, deque)):
        return list(itertools.islice(value, _MOST_OF_ONE))
    if isinstance(value, types.MethodType):
        return [value.__self__, value.__func__]
    if isinstance(value, functools.partial):
        return [value.func, value.args, value.keywords]
    if isinstance(value, types.FunctionType):
        held = [*map(content_of, value.__closure__ or ()), *(value.__defaults__ or ())]
        held += (value.__kwdefaults__ or {}).values()
        return held + (named_in(value) if by_name else [])
    if type(value).__module__ in ("builtins", "itertools") and isinstance(value, Iterator):
        return gc.get_referents(value)  # an enumerate, a zip, a generator: they have no attributes
    slots = [name for kind in type(value).__mro__ for name in vars(kind).get("__slots__", ())]
    held = [getattr(value, name) for name in slots if isinstance(name, str) and hasattr(value, name)]
    return [*getattr(value, "__dict__", {}).values(), *held]
