"""Names of sweeps, and the folder that a new one gets."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from xaytune.errors import Problem, SpecError
from xaytune.records.journal import FILE_NAME
from xaytune.records.sweep_folder import SweepFolder, child_of

__all__ = ["check_name", "new_sweep_folder"]


def check_name(name: str) -> None:
    """Checks that a sweep can have a name.

    Raises:
        SpecError: It cannot.
    """
    if not re.fullmatch(r"\w[\w.-]*", name):
        message = f"must be letters, digits, '_', '.' and '-', and begin with none of the last two (got {name!r})"
        raise SpecError([Problem(("name",), message)])


def new_sweep_folder(storage: str, name: str | None, default: str) -> SweepFolder:
    """Makes the folder of a new sweep, and returns it.

    Args:
        storage: Folder of all sweeps, a path or a URI.
        name: The sweep's name, if it was given one.
        default: Else this, with a number where there is such a sweep already.

    Raises:
        SpecError: There is such a sweep, or such a folder of something else, or the folder cannot be made.
    """
    if name is not None:
        check_name(name)
    names = [name] if name is not None else (default if n == 1 else f"{default}-{n}" for n in itertools.count(1))
    try:
        for candidate in names:
            sweep_folder = child_of(storage, candidate)
            if sweep_folder.exists:
                taken = "holds a sweep already"
            elif not _is_free(sweep_folder.local):
                taken = "is not empty"
            else:
                sweep_folder.local.mkdir(parents=True, exist_ok=True)
                return sweep_folder
    except OSError as error:
        why = error.strerror or str(error)
        raise SpecError([Problem(("storage",), f"{storage} cannot be used: {why}")]) from None
    raise SpecError([Problem(("name",), f"{sweep_folder} {taken}: choose another name")])


def _is_free(folder: Path) -> bool:
    """Whether a folder holds nothing but the empty journal of a sweep that never began, or is not there."""
    return not folder.exists() or {path.name for path in folder.iterdir()} <= {FILE_NAME}
