from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from xaytune.records.results import Results
from xaytune.tuning.sweep import Sweep

Run = Callable[..., Results]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session")
def ray_folder() -> Iterator[Path]:
    """Where Ray keeps its sessions: a short path, for its sockets, that is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="xt", dir=os.environ.get("RAY_TMPDIR", "/tmp")))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def ray_here(ray_folder: Path) -> Iterator[None]:
    """One Ray for all tests that run sweeps in this process."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, _temp_dir=str(ray_folder))
    yield
    ray.shutdown()


@pytest.fixture
def run(ray_here: None, tmp_path: Path) -> Run:
    """Runs a sweep of a recipe; options replace the defaults here."""

    def run_sweep(recipe: str, module: str = "tests.recipes", **options: Any) -> Results:
        defaults: dict[str, Any] = {
            "metric": "score",
            "mode": "max",
            "space": {"x": {"uniform": [0, 1]}},
            "callbacks": ["tests.recipes:note_events"],
        }
        return Sweep(f"{module}:{recipe}", **{**defaults, **options}).run(storage=tmp_path)

    return run_sweep


@pytest.fixture
def cli(ray_folder: Path, tmp_path: Path) -> Cli:
    """Runs the command line in a process of its own, with its sweeps in a folder of the test's."""

    def run_command(*arguments: str, timeout: float = 240) -> subprocess.CompletedProcess[str]:
        storage = ["--storage", str(tmp_path)] if arguments[0] in ("run", "status", "best") else []
        return subprocess.run(
            [sys.executable, "-m", "xaytune", *arguments, *storage],
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "RAY_TMPDIR": str(ray_folder)},
        )

    return run_command
