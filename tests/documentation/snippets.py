"""The snippets of a page in Markdown, and what runs them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from ruamel.yaml import YAML

from xaytune.cli.main import main
from xaytune.sweep.spec import SweepSpec

PAGES = [Path("README.md"), *sorted(Path(".docs/pages").glob("*.md")), *sorted(Path(".github").glob("*.md"))]
_SNIPPET = re.compile(
    r"(?:<!-- not run: (?P<why>.+?) -->\n+)?"
    r'^```(?P<language>python|yaml|sh)(?: title="(?P<title>[^"]+)")?\n(?P<code>.*?)^```$',
    re.MULTILINE | re.DOTALL,
)
# A part of a spec is read as what it changes in this one.
_WHOLE = {
    "recipe": "my_sweep:train",
    "metric": "eval_accuracy",
    "mode": "max",
    "space": {"lr": {"loguniform": [1e-3, 1]}, "batch_size": {"choice": [16, 64]}},
}


@dataclass(frozen=True)
class Snippet:
    """A piece of code on a page.

    Attributes:
        page: The page.
        line: Where it begins.
        language: ``python``, ``yaml`` or ``sh``.
        code: The code.
        title: The name of the file that it is, if it is one.
        why_not: Why it is not run, where it is marked so.
    """

    page: Path
    line: int
    language: str
    code: str
    title: str | None
    why_not: str | None


def snippets(page: Path) -> Iterator[Snippet]:
    """Yields the snippets of a page."""
    text = page.read_text()
    for found in _SNIPPET.finditer(text):
        line = text.count("\n", 0, found.start("code"))
        yield Snippet(page, line, found["language"], found["code"], found["title"], found["why"])


def run(snippet: Snippet, names: dict[str, Any]) -> None:
    """Runs a snippet in the current folder, or writes it where it is a file; one that is there is to be as shown.

    Args:
        snippet: The snippet.
        names: What earlier Python of the page has defined.
    """
    if snippet.title is not None:
        path = Path(snippet.title)
        if path.exists():
            assert path.read_text() == snippet.code, f"{path} is not as {snippet.page} shows it"
        assert not list(Path().glob(f"*/{path}")), f"{snippet.page} shows {path} in another folder than it is in"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(snippet.code)
        if snippet.language == "yaml":
            SweepSpec.parse(_yaml(snippet.code))
        elif snippet.language == "python":
            compile(snippet.code, snippet.title, "exec")
    elif snippet.language == "python":
        # Its own lines are shown where it raises.
        exec(compile("\n" * snippet.line + snippet.code, str(snippet.page), "exec"), names)
    elif snippet.language == "yaml":
        SweepSpec.parse({**_WHOLE, **_yaml(snippet.code)})
    else:
        for command in snippet.code.replace("\\\n", " ").splitlines():
            _run_command(command.partition(" # ")[0].strip())


def _yaml(code: str) -> Any:
    return YAML(typ="safe").load(code)


def _run_command(command: str) -> None:
    if not command or command.startswith("#"):
        return
    if command.startswith("cd ") and "&" not in command:
        os.chdir(command.removeprefix("cd "))
    elif command.startswith("pip install"):
        _check_installation(command)
    elif command.startswith("xaytune try "):
        _try(shlex.split(command)[1:])
    elif command.startswith("xaytune ") and not set(command) & set("|&;"):
        done = CliRunner().invoke(main, shlex.split(command)[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{command}\n{done.output}"
    else:
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        subprocess.run(["bash", "-ec", command], check=True, env={**os.environ, "PATH": path})


def _try(arguments: list[str]) -> None:
    """Trains in a fork: what a recipe and its libraries leave behind ends with it, as in a sweep."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            code = done.exit_code
            print(done.output)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert status == 0, f"xaytune {shlex.join(arguments)} ended with {os.waitstatus_to_exitcode(status)}"


def _check_installation(command: str) -> None:
    """What is to be installed was: the extras that it names are there."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([\w,]+)\]", command):
        assert set(extras.split(",")) <= project["optional-dependencies"].keys(), command
