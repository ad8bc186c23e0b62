"""Names of sweeps, and the folder that a new one gets."""

from __future__ import annotations

import itertools
import re

from xaytune.errors import Problem, SpecError
from xaytune.records.place import Place, child_of

__all__ = ["check_name", "new_place"]


def check_name(name: str) -> None:
    """Checks that a sweep can have a name.

    Raises:
        SpecError: It cannot.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        message = f"must be letters, digits, '_', '.' and '-', and begin with none of the last two (got {name!r})"
        raise SpecError([Problem(("name",), message)])


def new_place(storage: str, name: str | None, default: str) -> Place:
    """Returns the place of a new sweep, and makes its folder.

    Args:
        storage: Folder of all sweeps, a path or a URI.
        name: The sweep's name, if it was given one.
        default: Else this, with a number where there is such a sweep already.

    Raises:
        SpecError: There is a sweep of that name, or the folder cannot be made.
    """
    if name is not None:
        check_name(name)
    names = [name] if name is not None else (default if n == 1 else f"{default}-{n}" for n in itertools.count(1))
    try:
        for candidate in names:
            place = child_of(storage, candidate)
            if place.exists or (name is None and place.remote is None and place.folder.exists()):
                continue
            place.folder.mkdir(parents=True, exist_ok=True)
            return place
    except OSError as error:
        said = error.strerror or str(error)
        raise SpecError([Problem(("storage",), f"{storage} cannot be used: {said}")]) from None
    raise SpecError(
        [Problem(("name",), f"{child_of(storage, str(name))} holds a sweep already: choose another name")]
    )
