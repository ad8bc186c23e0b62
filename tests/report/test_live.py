"""The live view, in a real terminal and in a real notebook; and the same from another terminal."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
import pytest
import ray
from nbclient import NotebookClient

from xaytune.records.results import Results

# A sweep in which six trials end after a note, and one has begun.
SEEN = """\
from pathlib import Path
from tests.report.journals import Written
from xaytune import LiveView
from xaytune.records.state import SweepState

def watch(folder, view):
    written, sweep = Written(Path(folder)), SweepState(folder)
    written("note", text="what all trials have in common")
    for trial in range(7):
        written("trial", trial, config={"x": 0.5}, seed=1)
    for trial in range(6):
        written.at("end", trial, epoch=1, step=1, status="completed", reason=None)
    for event in written.results().events():
        sweep.apply(event)
        view(sweep, event)
"""
SLOW = """\
recipe: tests.recipes:curve
metric: score
mode: max
space: {x: {grid: [0.9, 0.2, 0.8, 0.1, 0.7, 0.3]}, words: {choice: ["[/red]", "[bold]x[/bold]"]}}
scheduler: {algorithm: asha, max_t: 9, reduction_factor: 3}
callbacks: [tests.callbacks:wait_to_be_seen]
"""
Terminal = Callable[[str, int], "_Terminal"]


class _Terminal:
    """A window of tmux that runs a command."""

    def __init__(self, socket: str, name: str, command: str, width: int) -> None:
        self._tmux, self._name = ["tmux", "-L", socket], name
        size = ["-x", str(width), "-y", "24"]
        subprocess.run([*self._tmux, "new-session", "-d", "-s", name, *size, f"{command}; sleep 600"], check=True)

    def shows(self, *texts: str) -> str:
        """Waits until all of the texts are on the screen, and returns it."""
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            screen = self.screen()
            if all(text in screen for text in texts):
                return screen
            time.sleep(0.05)
        raise AssertionError(f"{texts} did not show; the screen was:\n{screen}")

    def screen(self) -> str:
        shown = [*self._tmux, "capture-pane", "-p", "-J", "-t", self._name]
        return subprocess.run(shown, check=True, capture_output=True, text=True).stdout

    def resize(self, width: int) -> None:
        subprocess.run([*self._tmux, "resize-window", "-t", self._name, "-x", str(width)], check=True)


@pytest.fixture
def terminal(ray_here: None, ray_folder: Path) -> Iterator[Terminal]:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux on this machine")
    socket = f"xaytune-{time.monotonic_ns()}"
    address = ray.get_runtime_context().gcs_address
    opened = 0

    def open_terminal(command: str, width: int) -> _Terminal:
        nonlocal opened
        opened += 1
        # Readline, which pytest loads, leaves the size of pytest's own window in the environment.
        environment = (
            f"env -u COLUMNS -u LINES RAY_TMPDIR={ray_folder} RAY_ADDRESS={address} {sys.executable} -m xaytune"
        )
        return _Terminal(socket, f"window{opened}", f"{environment} {command}", width)

    yield open_terminal
    subprocess.run(["tmux", "-L", socket, "kill-server"], check=True, capture_output=True)


def test_the_live_view_shows_what_runs_says_why_trials_were_stopped_and_ends_with_the_summary(
    terminal: Terminal, tmp_path: Path
) -> None:
    spec = tmp_path / "slow.yaml"
    spec.write_text(SLOW)
    window = terminal(f"run {spec} --storage {tmp_path}", 48)
    running = window.shows("slow", "/6", "2 running", "configuration", "x 0.9", "/9", "best score")
    rows = [line for line in running.splitlines() if "/9" in line]
    assert rows
    assert max(map(len, rows)) <= 48, rows
    other = terminal(f"status --follow slow --storage {tmp_path}", 120)
    other.shows("2 running", "configuration", "/9", "words [")  # what looks like markup is none
    (tmp_path / "slow" / "seen").touch()
    window.resize(120)
    window.shows("is below the cut-off", "best score", "configuration")
    (tmp_path / "slow" / "seen again").touch()
    for shown in (window, other):
        ended = shown.shows("slow: completed in", "best: trial 0, score 0.89", "x 0.9", "checkpoint")
        assert "configuration" not in ended.partition("slow: completed in")[2]


def test_the_notebook_runs_beside_its_recipe_and_shows_a_table_and_the_reports_plots(
    ray_here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read("sweeps/notebook.ipynb", as_version=4)
    shutil.copy("sweeps/digits.py", tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", []) if "data" in output]
    (table,) = [html for output in shown if "completed in" in (html := output["data"].get("text/html", ""))]
    best = Results(tmp_path / "runs" / "notebook").best
    assert best is not None
    assert f"best: trial {best.number}, eval_accuracy {best.value:.4g}" in table
    plots = [plot for output in shown if (plot := output["data"].get("application/vnd.plotly.v1+json"))]
    assert len(plots) == 2
    assert all(plot["data"] for plot in plots)


def test_a_notebook_keeps_notes_in_view_and_shows_nothing_that_runs_after_an_error(tmp_path: Path) -> None:
    ends = f"with LiveView() as view:\n    watch({str(tmp_path / 'ends')!r}, view)"
    raises = f"with LiveView() as view:\n    watch({str(tmp_path / 'raises')!r}, view)\n    raise ValueError('no')"
    raising = nbformat.v4.new_code_cell(raises, metadata={"tags": ["raises-exception"]})
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(SEEN), nbformat.v4.new_code_cell(ends), raising]
    )
    NotebookClient(notebook, timeout=60, resources={"metadata": {"path": os.getcwd()}}).execute()
    after_end, after_error = (
        next(html for output in cell.outputs if (html := output.get("data", {}).get("text/html")))
        for cell in notebook.cells[1:]
    )
    for shown in (after_end, after_error):
        assert "what all trials have in common" in shown
        assert "trial 5 completed" in shown
        assert "trial 0 completed" not in shown
    assert "written: running, 3 trials" in after_end
    assert "running" not in after_error
    assert "pending" not in after_error
