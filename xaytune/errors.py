"""What goes wrong with a sweep, its records, its storage or its cluster: one tree of errors.

::

    XaytuneError
    ├── SpecError (a ValueError)     a sweep cannot run as it is specified
    ├── JournalError                 a journal is missing, damaged, or written by another process
    ├── StorageError                 the folder of a sweep cannot be written any more
    ├── RemoteError (an OSError)     a remote storage refuses, time and again
    ├── CheckpointError              a checkpoint is missing, damaged, or not one of xaytune's
    ├── SessionError                 the Ray that a sweep is to run in cannot be used
    ├── ClusterError                 a cluster cannot be reached, or refuses what it was asked for
    ├── DashboardError               the dashboard cannot be served
    └── PicturesError                pictures cannot be drawn here

:class:`SkipTrial` is none of them: recipes raise it.

An error says where the problem is, what was found there, and how to fix it.
"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterable
from dataclasses import dataclass, replace

ProblemPath = tuple[str | int, ...]


class XaytuneError(Exception):
    """The root of the errors of sweeps, their records, storages and clusters."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a spec.

    Attributes:
        path: Keys and indices from the top of the spec.
        message: What is wrong, what was got, and how to fix it.
        place: File and line, where it was read from a file.
    """

    path: ProblemPath
    message: str
    place: str = ""

    def below(self, *parents: str | int) -> Problem:
        """Returns the problem with its path seen from further up."""
        return replace(self, path=(*parents, *self.path))

    def __str__(self) -> str:
        where = " ".join(part for part in (self.place, ".".join(map(str, self.path))) if part)
        return f"{where}: {self.message}" if where else self.message


class SpecError(XaytuneError, ValueError):
    """A sweep cannot run as it is specified.

    Attributes:
        problems: Everything that is wrong with it; the error's text has a line for each.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = list(problems)
        super().__init__("\n".join(map(str, self.problems)))

    def __reduce__(self) -> tuple[type[SpecError], tuple[list[Problem]]]:
        return type(self), (self.problems,)


class JournalError(XaytuneError):
    """A journal cannot be used: it is missing, damaged before its last line, or another process writes it."""


class StorageError(XaytuneError):
    """The folder of a sweep cannot be written any more; what was recorded until then is whole.

    Args:
        place: What commands find the sweep by: its folder or URI.
        cause: What the file system said.
    """

    def __init__(self, place: str, cause: OSError | str) -> None:
        self.place, self.cause = place, cause
        text = cause if isinstance(cause, str) else cause.strerror or str(cause)
        resume = f"xaytune resume {shlex.quote(place)}"
        super().__init__(f"{place} cannot be written: {text}; once it can, continue with: {resume}")

    def __reduce__(self) -> tuple[type[StorageError], tuple[str, OSError | str]]:
        return type(self), (self.place, self.cause)


class RemoteError(XaytuneError, OSError):
    """A remote storage refuses, time and again."""


class CheckpointError(XaytuneError):
    """A checkpoint cannot be used: it is missing, damaged, or not one of xaytune's."""


class SessionError(XaytuneError):
    """The Ray that a sweep is to run in cannot be used."""


class ClusterError(XaytuneError):
    """A cluster cannot be reached, or refuses what it was asked for."""


class DashboardError(XaytuneError):
    """The dashboard cannot be served: it is not installed, or its port is taken."""


class PicturesError(XaytuneError):
    """Pictures cannot be drawn here: what draws them is missing."""


class SkipTrial(Exception):  # noqa: N818 - a way to end, as StopIteration
    """A recipe raises it where its configuration makes no sense, with the reason.

    The trial ends as stopped, has no value, and is no failure; it counts as the worst to samplers that learn.
    """


def nearest(name: object, known: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name: the likeliest meant one, or all there are."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(names)}"
