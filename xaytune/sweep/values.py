"""The values of configurations: how each is written into JSON and read back, equal and of the same type.

What JSON has a word for is written as it is. Everything else is a mapping of one key that begins with ``$``:

==============================  ======================================================================
value                           written
==============================  ======================================================================
``inf``, ``-inf``, ``nan``      ``{"$float": "inf"}``
``(8, 16)``                     ``{"$tuple": [8, 16]}``
``{1, 2}``, ``frozenset(...)``  ``{"$set": [1, 2]}``, ``{"$frozenset": [1, 2]}``
``{1: "a"}``                    ``{"$map": [[1, "a"]]}``: keys that are no text, or that look like one of these
``b"..."``                      ``{"$bytes": "..."}``, base64
``Path("data")``                ``{"$path": "data"}``
``np.float32(0.5)``             ``{"$numpy": ["float32", 0.5]}``
``nn.ReLU``, ``F.relu``         ``{"$ref": "torch.nn.modules.activation:ReLU"}``: classes, functions, members of an
                                Enum, ``torch.float16``: whatever can be imported again
==============================  ======================================================================

The same forms may be used in a spec's file. A reference that cannot be imported where it is read becomes a
:class:`NotFound`: a journal can be looked at anywhere, but no sweep runs with such a value (:func:`problems`).
"""

from __future__ import annotations

import base64
import enum
import importlib
import json
import math
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xaytune.errors import Problem, ProblemPath

# Python itself refuses to read longer numbers from text.
_MOST_BITS = 14_000
_MOST_LEVELS = 50
_TOO_DEEP = "it is nested too deeply, or holds itself: give a name and look it up in the recipe"


@dataclass(frozen=True)
class NotFound:
    """A class, function or Enum member that cannot be imported here.

    Attributes:
        reference: ``module:name``.
        reason: Why it cannot.
    """

    reference: str
    reason: str

    def __repr__(self) -> str:
        return self.reference


def write(value: Any) -> Any:
    """Returns a value as data that JSON can hold.

    Raises:
        ValueError: It could not be read back as what it is; the message says what to do.
    """
    return _write(value, 0)


def read(data: Any) -> Any:
    """Returns the value that was written so; what has nothing to be read is returned itself, not a copy.

    Raises:
        ValueError: It is written in a form that :func:`write` never gives.
    """
    if isinstance(data, dict):
        tag = next(iter(data)) if len(data) == 1 else None
        if tag in _READERS:
            try:
                return _READERS[tag](data[tag])
            except (TypeError, ValueError, AttributeError) as error:
                raise ValueError(f"not a value that can be read (got {data!r}): {error}") from None
        items = {name: read(item) for name, item in data.items()}
        return items if any(items[name] is not data[name] for name in items) else data
    if isinstance(data, (list, tuple)):
        read_items = [read(item) for item in data]
        changed = any(new is not old for new, old in zip(read_items, data, strict=True))
        return type(data)(read_items) if changed else data
    return data


def same(one: Any, other: Any) -> bool:
    """Tells whether two values are equal and of the same type, at every depth; nan is the same as nan."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (dict, list, tuple, set, frozenset)):
        return key(one) == key(other)
    return bool(one == other) or bool(one != one and other != other)


def key(value: Any) -> str:
    """Returns a text that is equal for values that are the same, and for no others."""
    return json.dumps(_ordered(write(value)), sort_keys=True)


def text(value: Any) -> str:
    """Returns a value as people are shown it, in a line."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return str(value.__qualname__)
    if isinstance(value, dict):
        return "{" + ", ".join(f"{text(name)}: {text(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(text, value)) + "]"
    if isinstance(value, tuple):
        return "(" + ", ".join(map(text, value)) + (",)" if len(value) == 1 else ")")
    if hasattr(value, "dtype") and hasattr(value, "item"):
        return str(value)
    return value if isinstance(value, str) else repr(value)


def problems(value: Any, path: ProblemPath = ()) -> Iterator[Problem]:
    """Yields why a value cannot be kept or used, each at its place below `path`; nothing for one that can."""
    if isinstance(value, NotFound):
        yield Problem(path, f"{value.reference} cannot be imported here: {value.reason}")
        return
    items: list[tuple[Any, Any]] = []
    if type(value) is dict:
        items = list(value.items())
    elif type(value) in (list, tuple):
        items = list(enumerate(value))
    refused = ""
    try:
        write(value)
    except ValueError as error:
        refused = str(error)
    inner: list[Problem] = []
    if _TOO_DEEP not in refused:
        for name, item in items:
            inner += problems(item, (*path, name if isinstance(name, (str, int)) else text(name)))
    if refused and not inner:
        inner = [Problem(path, refused)]
    yield from inner


def is_name(value: Any) -> bool:
    """Tells whether a value is a text of the form ``module:name``."""
    return isinstance(value, str) and re.fullmatch(r"[\w.]+:[\w.]+", value) is not None


def name_of(value: Any) -> str:
    """Returns the ``module:name`` of a class or function, or of the class of an object; a text is its own."""
    if isinstance(value, str):
        return value
    return f"{value.__module__}:{getattr(value, '__qualname__', type(value).__name__)}"


def reference_to(value: Any) -> str | None:
    """Returns the ``module:name`` by which a class, function or other object can be imported again, if any."""
    if isinstance(value, enum.Enum):
        module, name = type(value).__module__, f"{type(value).__qualname__}.{value.name}"
    elif isinstance(getattr(value, "__qualname__", None), str):
        module, name = getattr(value, "__module__", None) or "", value.__qualname__
    elif match := re.fullmatch(r"([\w.]+)\.(\w+)", repr(value)):  # torch.float16
        module, name = match.groups()
    else:
        return None
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    return f"{module}:{name}" if found is value else None


def _write(value: Any, level: int) -> Any:
    kind = type(value)
    if value is None or kind in (bool, str):
        return value
    if kind is int:
        if value.bit_length() > _MOST_BITS:
            raise ValueError(f"an integer of {value.bit_length()} bits is too large to be kept: give its text")
        return value
    if kind is float:
        return value if math.isfinite(value) else {"$float": repr(value)}
    if level > _MOST_LEVELS:
        raise ValueError(_TOO_DEEP)
    if kind is list:
        return [_write(item, level + 1) for item in value]
    if kind is dict:
        if all(type(name) is str for name in value) and not _looks_written(value):
            return {name: _write(item, level + 1) for name, item in value.items()}
        pairs = [[_write(name, level + 1), _write(item, level + 1)] for name, item in value.items()]
        return {"$map": pairs}
    if kind is tuple:
        return {"$tuple": [_write(item, level + 1) for item in value]}
    if kind in (set, frozenset):
        return {f"${kind.__name__}": sorted((_write(item, level + 1) for item in value), key=json.dumps)}
    if kind is bytes:
        return {"$bytes": base64.b64encode(value).decode()}
    if kind is type(Path()):
        return {"$path": str(value)}
    return _write_other(value, level)


def _write_other(value: Any, level: int) -> Any:
    if isinstance(value, NotFound):
        return {"$ref": value.reference}
    if type(value).__module__ == "numpy" and not getattr(value, "shape", True) and type(value.item()) in _PLAIN:
        return {"$numpy": [type(value).__name__, _write(value.item(), level)]}
    reference = reference_to(value)
    if reference is not None and reference.startswith("__main__:"):
        raise ValueError(
            f"{text(value)} is defined in the script or notebook itself, where trials cannot import it: define it "
            "in a module, or give a name and look it up in the recipe"
        )
    if reference is not None:
        return {"$ref": reference}
    if isinstance(value, Mapping):
        raise ValueError(f"a {type(value).__name__} cannot be kept as what it is: give a dict")
    if hasattr(value, "tolist"):
        raise ValueError(f"a {type(value).__name__} cannot be kept as what it is: give a list or a number")
    shown = repr(value)
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    what = "cannot be imported again" if callable(value) else f"(a {type(value).__name__}) cannot be kept"
    raise ValueError(f"{shown} {what}: give a name and look it up in the recipe")


_PLAIN = (bool, int, float, str, bytes)


def _looks_written(value: dict[str, Any]) -> bool:
    return len(value) == 1 and next(iter(value)).startswith("$")


def _ordered(data: Any) -> Any:
    """Written data with the pairs of mappings in an order: equal mappings have the same."""
    if isinstance(data, list):
        return [_ordered(item) for item in data]
    if isinstance(data, dict):
        if data.keys() == {"$map"}:
            return {"$map": sorted((_ordered(pair) for pair in data["$map"]), key=json.dumps)}
        return {name: _ordered(item) for name, item in data.items()}
    return data


def _read_reference(reference: Any) -> Any:
    module, colon, name = str(reference).partition(":")
    if not colon:
        raise ValueError("a reference is module:name")
    try:
        found = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (Exception, SystemExit) as error:  # whatever the module does when it is imported
        return NotFound(reference, f"{type(error).__name__}: {error}")
    return found


def _read_numpy(written: Any) -> Any:
    import numpy as np

    name, value = written
    kind = getattr(np, name)
    if not issubclass(kind, np.generic):
        raise ValueError(f"numpy has no scalar {name!r}")
    return kind(read(value))


_READERS: dict[Any, Callable[[Any], Any]] = {
    "$float": lambda written: {"inf": math.inf, "-inf": -math.inf}.get(written) or _nan(written),
    "$tuple": lambda written: tuple(map(read, _listed(written))),
    "$set": lambda written: set(map(read, _listed(written))),
    "$frozenset": lambda written: frozenset(map(read, _listed(written))),
    "$map": lambda written: {read(name): read(item) for name, item in _listed(written)},
    "$bytes": lambda written: base64.b64decode(written, validate=True),
    "$path": lambda written: Path(written),
    "$numpy": _read_numpy,
    "$ref": _read_reference,
}


def _nan(written: Any) -> float:
    if written != "nan":
        raise ValueError("$float takes inf, -inf or nan")
    return math.nan


def _listed(written: Any) -> list[Any]:
    if not isinstance(written, (list, tuple)):
        raise ValueError("it takes a list")
    return list(written)
