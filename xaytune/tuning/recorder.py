"""The recorder: writes what happens to the journal and the histories, and keeps the state that follows."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xaytune.records import history
from xaytune.records.journal import FILE_NAME, Event, Journal
from xaytune.records.state import SweepState
from xaytune.sweep.spec import SweepSpec
from xaytune.tuning.report import Assignment, Report, StopRequest

__all__ = ["Listener", "Recorder"]

Listener = Callable[[SweepState, Event], None]


class Recorder:
    """Records a sweep.

    Args:
        sweep_dir: The sweep's folder.
        metric: Name of the sweep's metric.
        listener: Called with the state and each event that was written.
    """

    def __init__(self, sweep_dir: Path, metric: str, listener: Listener | None = None) -> None:
        self.state = SweepState(sweep_dir)
        self._sweep_dir, self._metric = sweep_dir, metric
        self._journal = Journal(sweep_dir / FILE_NAME)
        self._listener = listener

    def begun(self, spec: SweepSpec) -> None:
        """Records that a sweep has begun."""
        self._write(
            "sweep",
            state="running",
            name=self._sweep_dir.name,
            spec=spec.plain(),
            num_trials=spec.num_trials,
            host=socket.gethostname(),
            pid=os.getpid(),
        )

    def finished(self, state: str, reason: str | None) -> None:
        """Records how the sweep ended."""
        self._write("sweep", state=state, reason=reason)

    def abandoned(self, reason: str) -> None:
        """Records that the trials that run were not waited for."""
        for trial in list(self.state.trials.values()):
            if trial.status == "running":
                self._write("pause", trial.number, reason=reason)

    def suggested(self, assignment: Assignment) -> None:
        """Records a new trial."""
        self._write("trial", assignment.number, config=assignment.config, seed=assignment.seed)

    def started(self, number: int, node: str, pid: int) -> None:
        """Records that a trial trains in a process; once a trial."""
        if self.state.trials[number].started is None:
            self._write("start", number, node=node, pid=pid)

    def reported(self, number: int, report: Report) -> None:
        """Records what a trial had to say, except how it ended."""
        self.started(number, report.node, report.pid)
        if report.history is not None:
            history.append(history.path_for(self._sweep_dir, number), report.history)
        for global_step, path in report.checkpoints.items():
            # Relative: a sweep's folder may be moved.
            place = Path(path).relative_to(self._sweep_dir.absolute())
            self._write("checkpoint", number, path=str(place), global_step=global_step)
        if report.kind == "heartbeat":
            self.state.progress(number, report.epoch, report.global_step, report.metrics)
        if report.kind == "decision":
            value = report.metrics.get(self._metric)
            self._write("result", number, value=value, **_position(report))

    def stop_requested(self, number: int, request: StopRequest) -> None:
        """Records that a trial was told to stop."""
        self._write("stop", number, reason=request.reason)

    def ended(self, number: int, report: Report) -> None:
        """Records how a trial ended; one that pauses has not."""
        if report.error is not None:
            self._write("failure", number, error=report.reason, traceback=report.error)
        if report.status == "paused":
            self._write("pause", number, reason=report.reason, **_position(report))
            return
        value = report.best.value if report.best is not None else None
        self._write("end", number, status=report.status, value=value, reason=report.reason, **_position(report))

    def close(self) -> None:
        """Closes the journal."""
        self._journal.close()

    def _write(self, event: str, trial: int | None = None, **fields: Any) -> None:
        entry = self._journal.write(event, trial, **fields)
        self.state.apply(entry)
        if self._listener is not None:
            self._listener(self.state, entry)


def _position(report: Report) -> dict[str, Any]:
    best = dataclasses.asdict(report.best) if report.best is not None else None
    return {
        "epoch": report.epoch,
        "global_step": report.global_step,
        "metrics": report.metrics,
        "best": best,
    }
