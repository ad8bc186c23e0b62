"""Runs commands of xaytune, in this process or in one of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from click.testing import CliRunner, Result

from xaytune.cli.main import main

COMMAND = [sys.executable, "-m", "xaytune"]
SPEC = """\
recipe: tests.recipes:{recipe}
metric: score
mode: max
space: {{x: {{uniform: [0, 1]}}}}
num_samples: {num_samples}
"""


def spec_file(folder: Path, recipe: str, num_samples: int = 2, more: str = "") -> str:
    path = folder / f"{recipe}.yaml"
    path.write_text(SPEC.format(recipe=recipe, num_samples=num_samples) + more)
    return str(path)


def here(*arguments: str) -> Result:
    """Runs a command in this process, which has imported what it needs; an exception is not an exit code."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def alone(ray_folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process, and in a Ray, of its own."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, env=environment(ray_folder))


def environment(ray_folder: Path) -> dict[str, str]:
    """The environment of a command that starts a Ray of its own."""
    own = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    return {**own, "RAY_TMPDIR": str(ray_folder)}
