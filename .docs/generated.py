"""Writes what pages take from the code: ``python .docs/generated.py``, at the top of the project.

To be called after that code has changed. It writes the page on the journal, and what stands between
``<!-- options of NAME -->``, or ``<!-- errors -->``, and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import tempfile
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from griffe import Docstring, DocstringSectionAttributes
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from xaytune import errors
from xaytune.records import journal
from xaytune.records.journal import Event
from xaytune.records.sweep_folder import SweepFolder
from xaytune.simulation.curves import Surrogate
from xaytune.simulation.simulate import simulate
from xaytune.sweep.algorithms import ALGORITHMS
from xaytune.sweep.options import TRACKERS, BudgetSpec, CheckpointSpec, FailuresSpec
from xaytune.sweep.spec import SweepSpec

PAGES = Path(__file__).parent / "pages"
JOURNAL = PAGES / "journal.md"
_PART = re.compile(r"<!-- (?P<what>options of (?P<model>\w+)|errors) -->\n.*?<!-- end -->", re.DOTALL)
_BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below", "min_length": "of length at least"}
_NAMES = {int: "integer", float: "number", str: "text", bool: "true or false", dict: "mapping", type(None): "none"}
_GROUPS: Mapping[str, type[BaseModel]] = {
    "failures": FailuresSpec,
    "budget": BudgetSpec,
    "checkpoint_config": CheckpointSpec,
}

# What the example of a journal has in place of what is known of this machine and this run.
_ELSEWHERE: Event = {
    "versions": {"python": "3.11.9", "xaytune": "0.1.0", "ray": "2.60.0", "torch": "2.13.0", "optuna": "5.0.0"},
    "id": "63b99af4",
    "folder": "/home/you/project",
    "host": "workstation",
    "pid": 4242,
}


def main() -> None:
    """Writes the pages that are not as the code is."""
    for page, text in pages().items():
        if not page.exists() or page.read_text() != text:
            page.write_text(text)
            print(f"{page} is written")


def pages() -> dict[Path, str]:
    """Returns the pages that take something from the code, as they are to be."""
    texts = {page: _filled(page.read_text()) for page in sorted(PAGES.glob("*.md")) if page != JOURNAL}
    return {page: text for page, text in texts.items() if _PART.search(text)} | {JOURNAL: journal_page()}


def _filled(text: str) -> str:
    def part(match: re.Match[str]) -> str:
        table = errors_table() if match["model"] is None else options_of(match["model"])
        return f"<!-- {match['what']} -->\n\n{table}\n\n<!-- end -->"

    return _PART.sub(part, text)


def errors_table() -> str:
    """Returns the errors, each with the first sentence of its docstring, as a table."""
    known = [
        one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.XaytuneError)
    ]
    rows = [f"| `{error.__name__}` | {_in_markdown((error.__doc__ or '').splitlines()[0])} |" for error in known]
    return "\n".join(["| error | |", "|---|---|", *rows])


def options_of(name: str) -> str:
    """Returns the options of the whole spec (``sweep``), of a group of it, or of an algorithm, as a table."""
    model = SweepSpec if name == "sweep" else {**ALGORITHMS, **_GROUPS}[name]
    described = _descriptions(model)
    rows = ["| option | takes | default | |", "|---|---|---|---|"]
    for option, field in model.model_fields.items():
        if option == "algorithm":
            continue
        rows.append(f"| `{option}` | {_takes(option, field)} | {_default(field)} | {described[option]} |")
    return "\n".join(rows if len(rows) > 2 else ["It takes no options."])


def _descriptions(model: type[BaseModel]) -> dict[str, str]:
    """What docstrings say of each option; those of base classes hold, unless a class says otherwise."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        for section in Docstring(base.__doc__ or "", parser="google").parse():
            if isinstance(section, DocstringSectionAttributes):
                found |= {one.name: " ".join(_in_markdown(one.description).split()) for one in section.value}
    return found


def _takes(option: str, field: FieldInfo) -> str:
    if option in ("recipe", "setup"):
        return "`module:function`"
    if option == "command":
        return "the words that start a program"
    if option == "trackers":
        return f"list of {', '.join(f'`{name}`' for name in TRACKERS)} or `module:Class`"
    if option == "callbacks":
        return "list of `module:function`"
    if option in ("search", "scheduler", "space", *_GROUPS):
        return f"[see below](#{'space' if option == 'space' else option.replace('_', '-')})"
    if option == "resources_per_trial":
        return "mapping of numbers, or a list of such"
    if option == "time":
        return "seconds, or a duration such as `2h`"
    bounds = [
        f"{words} {getattr(constraint, name)}"
        for constraint in field.metadata
        for name, words in _BOUNDS.items()
        if getattr(constraint, name, None) is not None
    ]
    return ", ".join([_kind(field.annotation), *bounds])


def _kind(annotation: Any) -> str:
    """The values that an annotation admits, in words."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(inner[0])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in inner)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind(one) for one in inner if one is not type(None))
    if origin is list:
        return f"list of {_kind(inner[0])}"
    return _NAMES[origin or annotation]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = {name: one for name, one in value.model_dump(exclude_none=True).items() if name != "time_attr"}
        value = value or None
    return "none" if value in (None, [], {}) else f"`{json.dumps(value)}`".replace('"', "")


def journal_page() -> str:
    """Returns the page on the journal: its docstring, an event at a time, each with one that was written."""
    lines = (journal.__doc__ or "").splitlines()
    first, second, third = (number for number, line in enumerate(lines) if line.startswith("==="))
    examples: dict[str, Event] = {}
    for event in _written():
        examples.setdefault(event["event"], event)
    examples["sweep"] |= _ELSEWHERE
    page = ["# The journal", "", "<!-- written by .docs/generated.py -->", "", *lines[2:first]]
    for name, fields in _rows(lines[second + 1 : third]):
        page += [f"## {name}", "", fields, ""]
        if name in examples:
            page += ["```json", json.dumps(examples[name], indent=2), "```", ""]
    return _in_markdown("\n".join([*page, "## Values", *lines[third + 1 :]])).rstrip() + "\n"


def _rows(lines: list[str]) -> Iterator[tuple[str, str]]:
    """The names of events, and what is said of each."""
    names = [number for number, line in enumerate(lines) if line.startswith("``")]
    for start, end in zip(names, [*names[1:], len(lines)], strict=True):
        name, _, text = lines[start].partition("  ")
        yield name.strip("`"), " ".join(" ".join([text, *lines[start + 1 : end]]).split())


def _written() -> list[Event]:
    """The events of two small sweeps that are simulated."""
    spec = {"recipe": "a:b", "metric": "accuracy", "mode": "max", "space": {"lr": {"loguniform": [1e-3, 1]}}}
    schedulers = ({"algorithm": "hyperband", "max_t": 9}, {"algorithm": "asha", "max_t": 9})
    events: list[Event] = []
    with tempfile.TemporaryDirectory() as folder:
        for scheduler in schedulers:
            sweep = SweepSpec.parse({**spec, "scheduler": scheduler, "num_samples": 8})
            sweep_folder = SweepFolder(Path(folder, scheduler["algorithm"]))
            events += simulate(sweep, Surrogate(_curve), sweep_folder, 4).results.events()
    return events


def _curve(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    return [float(time) for time in range(1, 10)], [1 - config["lr"] / time for time in range(1, 10)]


def _in_markdown(text: str) -> str:
    """Docstrings mark code by two backticks, and names of Python by a role."""
    text = re.sub(r":(?:mod|class|meth|func|data):`[~!]?([^`]+)`", r"`\1`", text)
    return re.sub(r"(?<!`)``(?!`)", "`", text)


if __name__ == "__main__":
    main()
