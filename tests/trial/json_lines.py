"""A tracker of one's own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from xaytune.sweep.algorithms import Options
from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker


class JsonLinesOptions(Options):
    indent: int = Field(default=0, ge=0)


class JsonLines(Tracker):
    """Writes a line of JSON a step."""

    options_model = JsonLinesOptions

    def open(self, trial: TrackedTrial) -> None:
        path = trial.folder / "trackers" / f"{trial.name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        self._file = path.open("a")

    def log(self, points: Sequence[Point]) -> None:
        for point in points:
            print(" " * self.options.indent, json.dumps([point.global_step, dict(point.metrics)]), file=self._file)

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        self._file.close()


def logged_by(path: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns what it wrote: steps and values by metric."""
    found: dict[str, list[tuple[int, float]]] = {}
    for step, metrics in map(json.loads, path.read_text().splitlines()):
        for name, value in metrics.items():
            found.setdefault(name, []).append((step, value))
    return found
