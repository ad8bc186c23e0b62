"""What README and documentation show is run; what they name is there."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click
import pytest

from tests.documentation.snippets import PAGES, run, snippets
from xaytune.cli.main import main
from xaytune.records.sweep_folder import SweepFolder
from xaytune.simulation.curves import Surrogate
from xaytune.simulation.simulate import simulate
from xaytune.sweep.loader import load_spec
from xaytune.trainer.callbacks import EVENTS

README = Path("README.md")
TEXTS = {page: page.read_text() for page in PAGES}


def curve(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Seconds and accuracies of nine epochs."""
    return [float(epoch) for epoch in range(1, 10)], [1 - config["lr"] / epoch for epoch in range(1, 10)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to run a page in; what was imported from it is forgotten afterwards."""
    pages = [page.absolute() for page in PAGES]
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(pages[0].parent)]))
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.mark.ray
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_snippet_runs(page: Path, folder: Path, request: pytest.FixtureRequest) -> None:
    import torch._dynamo  # noqa: F401  (else every fork that trains imports it anew)

    shown = list(snippets(Path(__file__).parents[2] / page))
    if page != README:
        give_the_sweep_of_the_readme(folder)
    if any("xaytune run" in snippet.code or ".run(" in snippet.code for snippet in shown):
        request.getfixturevalue("ray_here")
    names: dict[str, Any] = {"__name__": "snippets"}
    for snippet in shown:
        if snippet.why_not is None:
            run(snippet, names)


def give_the_sweep_of_the_readme(folder: Path) -> None:
    """Writes the README's recipe and spec, and a sweep of them that was simulated."""
    for snippet in snippets(Path(__file__).parents[2] / README):
        if snippet.title in ("my_sweep.py", "my_sweep.yaml"):
            run(snippet, {})
    simulate(load_spec("my_sweep.yaml"), Surrogate(curve), SweepFolder(folder / "runs" / "my_sweep"), 4)


def test_at_most_five_snippets_are_not_run() -> None:
    marked = [snippet for page in PAGES for snippet in snippets(page) if snippet.why_not is not None]
    assert len(marked) <= 5, marked


def test_every_command_that_a_text_names_has_the_options_that_it_names() -> None:
    named = [span for text in TEXTS.values() for span in re.findall(r"`(xaytune [a-z][^`]*)`", text)]
    assert named
    for span in named:
        name, *words = span.split()[1:]
        command = main.commands.get(name)
        assert isinstance(command, click.Command), span
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word.strip("[]") for word in words if word.startswith(("--", "[--"))} <= known, span


def test_the_documentation_names_every_event_and_files_and_tests_that_are_there() -> None:
    text = "\n".join(TEXTS.values())
    assert all(f"`{event}`" in text for event in EVENTS)
    files = re.findall(r"\b((?:sweeps|tests|xaytune)/[\w/]+\.(?:py|yaml))", text)
    assert files
    assert all(Path(name).exists() for name in files)
    tests = "\n".join(path.read_text() for path in Path("tests").rglob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", text)
    assert named
    assert all(f"def {name}(" in tests for name in named)


def test_what_pages_take_from_the_code_is_as_the_code_is() -> None:
    place = importlib.util.spec_from_file_location("generated", ".docs/generated.py")
    assert place is not None
    assert place.loader is not None
    generated = importlib.util.module_from_spec(place)
    place.loader.exec_module(generated)
    pages = generated.pages()
    assert {page.stem for page in pages} == {"errors", "journal", "schedulers", "spec"}
    stale = [page.name for page, text in pages.items() if page.read_text() != text]
    assert not stale, "python .docs/generated.py writes them"
