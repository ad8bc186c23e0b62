"""Sweeps to look at that were never run: simulated ones, and journals that are written event by event."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xaytune.driver.recorder import Listener
from xaytune.records.clock import Clock, SystemClock
from xaytune.records.journal import FILE_NAME, Journal
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.simulation.curves import Surrogate
from xaytune.simulation.simulate import simulate
from xaytune.sweep.spec import SweepSpec

ASHA = {"algorithm": "asha", "max_t": 27, "reduction_factor": 3}


def power_law(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """A curve that nears ``1 - (x - .3) ** 2`` over 27 epochs or steps."""
    best = 1 - (config["x"] - 0.3) ** 2
    times = range(1, 28)
    return [time * (1 + config["x"]) for time in times], [best * (1 - 1 / (1 + time)) for time in times]


def spec(space: Mapping[str, Any] | None = None, **options: Any) -> SweepSpec:
    raw = {
        "recipe": "a:b",
        "metric": "score",
        "mode": "max",
        "space": {"x": {"uniform": [0, 1]}, **(space or {})},
        "scheduler": ASHA,
        "num_samples": 9,
    }
    return SweepSpec.parse({**raw, **options})


def simulated(
    folder: Path, space: Mapping[str, Any] | None = None, listener: Listener | None = None, **options: Any
) -> Results:
    """A sweep of nine trials in virtual time."""
    return simulate(spec(space, **options), Surrogate(power_law), SweepFolder(folder), 4, listener).results


class Written:
    """A journal that a test writes.

    Args:
        folder: The sweep's.
        clock: Tells the time of each event.
        options: Of its spec.
    """

    def __init__(self, folder: Path, clock: Clock | None = None, **options: Any) -> None:
        self._folder, self._journal = folder, Journal(folder / FILE_NAME, clock or SystemClock())
        self._spec = spec(**options)
        self.begun()

    def begun(self) -> None:
        """The sweep is begun, or resumed."""
        self(
            "sweep",
            state="running",
            name="written",
            id="1",
            spec=self._spec.plain(),
            num_trials=3,
            host="elsewhere",
            pid=1,
        )

    def __call__(self, event: str, trial: int | None = None, **fields: Any) -> None:
        self._journal.write(event, trial, **fields)

    def at(self, event: str, trial: int, epoch: int, step: int, value: float | None = 0.5, **fields: Any) -> None:
        """An event that says where the trial is, and that it was best there."""
        metrics = {} if value is None else {"score": value}
        best = None if value is None else {"value": value, "epoch": epoch, "global_step": step, "metrics": metrics}
        if event in ("result", "end"):
            fields = {"value": value, **fields}
        self(event, trial, epoch=epoch, global_step=step, metrics=metrics, best=best, **fields)

    def results(self) -> Results:
        self._journal.close()
        return Results(self._folder)
