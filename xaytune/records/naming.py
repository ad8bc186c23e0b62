"""Names of sweeps, and the folder that a new one gets."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable

from xaytune.errors import Problem, SpecError
from xaytune.records.journal import FILE_NAME
from xaytune.records.remote import concealed
from xaytune.records.sweep_folder import SweepFolder, child_of


def check_name(name: str) -> None:
    """Checks that a sweep can have a name.

    Raises:
        SpecError: It cannot.
    """
    if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*", name)):
        message = f"must be letters, digits, '_', '.' and '-', and begin with none of the last two (got {name!r})"
        raise SpecError([Problem(("name",), message)])


def name_after(function: str) -> str:
    """Returns the default name of a sweep whose recipe is the function ``module:name``; a lambda is a sweep."""
    return function.partition(":")[2].replace(".<locals>", "").replace("<lambda>", "sweep")


def default_name(text: str) -> str:
    """Returns the name of a sweep that is named after something, as far as names may be so."""
    return re.sub(r"[^\w.-]+", "-", text).strip(".-") or "sweep"


def new_sweep_folder(storage: str, name: str | None, default: str) -> SweepFolder:
    """Makes the folder of a new sweep, and returns it.

    Args:
        storage: Folder of all sweeps, a path or a URI.
        name: The sweep's name, if it was given one.
        default: Else this, as far as names may be so, with a number where there is such a sweep already.

    Raises:
        SpecError: There is such a sweep, or such a folder of something else, or the folder cannot be made.
    """
    if name is not None:
        check_name(name)
        names: Iterable[str] = [name]
    else:
        default = default_name(default)
        names = (default if n == 1 else f"{default}-{n}" for n in itertools.count(1))
    try:
        for candidate in names:
            sweep_folder = child_of(storage, candidate)
            if sweep_folder.exists:
                taken = "holds a sweep already: choose another name, or resume that one"
            elif not _take(sweep_folder, is_default=name is None):
                taken = "is not empty: choose another name"
            else:
                return sweep_folder
        where = _where_taken(sweep_folder)
    except OSError as error:
        why = error.strerror or str(error)
        raise SpecError([Problem(("storage",), f"{concealed(storage)} cannot be used: {why}")]) from None
    raise SpecError([Problem(("name",), f"{where} {taken}")])


def _take(sweep_folder: SweepFolder, *, is_default: bool) -> bool:
    """Makes a folder, and tells whether it is this sweep's own; one of a default name may be another start's.

    Raises:
        OSError: It cannot be made, or the remote storage refuses.
    """
    local, remote = sweep_folder.local, sweep_folder.remote
    if remote is not None:
        if is_default and remote.size(FILE_NAME) is not None:
            return False
        remote.put(FILE_NAME, b"")  # that it refuses shows now, and not when trials have trained
    try:
        local.mkdir(parents=True)
    except FileExistsError:
        if is_default:
            return False
    # What a sweep that never began has left is an empty journal.
    return {path.name for path in local.iterdir()} <= {FILE_NAME}


def _where_taken(sweep_folder: SweepFolder) -> str:
    """Names what a new sweep would be mixed with: what the storage holds, or the working copy of what it held."""
    remote = sweep_folder.remote
    if remote is None or remote.size(FILE_NAME):
        return str(sweep_folder)
    return f"{sweep_folder.local}, the working copy of {remote} on this machine,"
