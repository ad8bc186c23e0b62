"""Folders of sweeps."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from xaytune.records.journal import FILE_NAME
from xaytune.sweep.errors import Problem, SpecError

__all__ = ["StorageError", "new_sweep_dir"]


class StorageError(Exception):
    """A sweep's folder cannot be written any more; what was recorded is whole."""

    def __init__(self, sweep_dir: Path, cause: OSError | str) -> None:
        said = cause if isinstance(cause, str) else cause.strerror or str(cause)
        super().__init__(
            f"{sweep_dir} cannot be written: {said}; make room there, then: xaytune resume {sweep_dir}"
        )


def new_sweep_dir(storage: Path, name: str | None, default: str) -> Path:
    """Returns the folder of a new sweep, and makes it.

    Args:
        storage: Folder of all sweeps.
        name: The sweep's name, if it was given one.
        default: Else this, with a number where there is such a folder already.

    Raises:
        SpecError: There is a sweep of that name, or the folder cannot be made.
    """
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        message = f"must be letters, digits, '_', '.' and '-', and begin with none of the last two (got {name!r})"
        raise SpecError([Problem(("name",), message)])
    if name is not None and (storage / name / FILE_NAME).exists():
        raise SpecError([Problem(("name",), f"{storage / name} holds a sweep already: choose another name")])
    names = [name] if name is not None else (default if n == 1 else f"{default}-{n}" for n in itertools.count(1))
    for candidate in names:
        folder = storage / candidate
        try:
            folder.mkdir(parents=True, exist_ok=name is not None)
        except FileExistsError:
            continue
        except OSError as error:
            raise SpecError([Problem(("storage",), f"{folder} cannot be made: {error.strerror}")]) from None
        return folder
    raise SpecError([Problem(("name",), f"{storage / str(name)} is a file")])
