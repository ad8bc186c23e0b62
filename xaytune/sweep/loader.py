"""Reading a spec from YAML (1.2: ``1e-4`` is a number, ``no`` is a string), with the line of every problem."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from xaytune.errors import Problem, ProblemPath, SpecError
from xaytune.sweep.options import spelt_out
from xaytune.sweep.spec import SweepSpec


def load_spec(file: Path | str, overrides: Mapping[str, Any] | None = None) -> SweepSpec:
    """Reads and checks a spec.

    Args:
        file: A YAML file.
        overrides: Values by dotted path, which replace those of the file.

    Raises:
        SpecError: With everything that is wrong, each with its line.
    """
    with locating(file):
        raw = _plain(_read(Path(file)))
        if isinstance(raw, dict):
            for name, value in (overrides or {}).items():
                raw = spelt_out(raw)
                assign(raw, name, value)
        return SweepSpec.parse(raw)


@contextlib.contextmanager
def locating(file: Path | str) -> Iterator[None]:
    """Adds the line of the file to each problem of a spec that is found within."""
    try:
        yield
    except SpecError as error:
        if all(problem.place for problem in error.problems):
            raise
        document = _read(Path(file))
        lines = {problem: _line(document, problem.path) or 0 for problem in error.problems}
        raise SpecError(
            dataclasses.replace(problem, place=problem.place or (f"{file}:{line}" if line else str(file)))
            for problem, line in sorted(lines.items(), key=lambda found: found[1])
        ) from None


def parse_assignments(assignments: tuple[str, ...]) -> dict[str, Any]:
    """Reads ``a.b=VALUE`` options; a value is read as YAML is.

    Raises:
        SpecError: An assignment has no ``=``, no name, or a value that is no YAML.
    """
    values: dict[str, Any] = {}
    problems = []
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals or not name:
            problems.append(Problem((), f"--set takes a.b=VALUE (got {assignment!r})"))
            continue
        try:
            values[name] = _plain(YAML(typ="rt").load(text)) if text else ""
        except YAMLError:
            problems.append(Problem((), f"--set {name}: the value is not valid YAML (got {text!r})"))
    if problems:
        raise SpecError(problems)
    return values


def assign(raw: Any, name: str, value: Any) -> None:
    """Sets an option of a spec that is plain data, by its dotted name.

    Raises:
        SpecError: What it would be set in is no mapping.
    """
    target, left = raw, name
    while True:
        if not isinstance(target, dict):
            raise SpecError([Problem((), f"--set {name}: there is nothing to set {left!r} in")])
        first, dot, rest = left.partition(".")
        if left in target or not dot:  # a name may be written with its dots
            target[left] = value
            return
        target, left = target.setdefault(first, {}), rest


def _read(file: Path) -> Any:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError([Problem((), "there is no such file", str(file))]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError([Problem((), f"cannot be read: {error}", str(file))]) from None
    try:
        return YAML(typ="rt").load(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        raise SpecError([Problem((), f"not valid YAML: {error.problem or error.context}", place)]) from None
    except (YAMLError, ValueError) as error:
        message = str(error).splitlines()[0]
        raise SpecError([Problem((), f"not valid YAML: {message}", str(file))]) from None


def _plain(value: Any) -> Any:
    """The loaded document as plain python values."""
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    # YAML 1.2 knows no dates.
    return value.isoformat() if isinstance(value, datetime.date) else value


def _line(document: Any, path: ProblemPath) -> int | None:
    """The line of the deepest part of the path that the document has, from 1."""
    line = None
    for part in path:
        if not (
            (isinstance(document, CommentedMap) and part in document)
            or (isinstance(document, CommentedSeq) and isinstance(part, int) and part < len(document))
        ):
            break
        # What was merged into a mapping, with <<, has no line there.
        if (place := (document.lc.data or {}).get(part)) is not None:
            line = place[0] + 1
        document = document[part]
    return line
