"""TensorBoard: a folder of event files a trial, under ``tensorboard/`` in the sweep's folder."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard.summary import hparams

from xaytune.trial.trackers.tracker import Point, TrackedTrial, Tracker

_LOOK_S = 0.05


class TensorBoard(Tracker):
    """A run of TensorBoard; its configuration and best value are in the HParams tab."""

    def open(self, trial: TrackedTrial) -> None:
        """Begins a run, or continues it."""
        self._config = trial.config
        self._folder = str(trial.folder / "tensorboard" / trial.name)
        self._writer: SummaryWriter | None = None
        self._newest = trial.global_step
        self._points: list[Point] = []

    def log(self, points: Sequence[Point]) -> None:
        """Takes metrics, by ascending step."""
        self._points += points
        if self._writer is not None or not self._too_soon():
            self._write()

    def _too_soon(self) -> bool:
        """Whether a file that is begun now may be read before one of an earlier attempt, by its second."""
        begun = [int(file.name.split(".")[3]) for file in Path(self._folder).glob("events.out.tfevents.*")]
        return 0 <= max(begun, default=-1) - int(time.time()) <= 1

    def _write(self) -> None:
        points, self._points = self._points, []
        for point in points:
            if self._writer is None:  # what an attempt that was cut off had written from there on is taken back
                self._writer = SummaryWriter(self._folder, purge_step=point.global_step)
            for name, value in point.metrics.items():
                self._writer.add_scalar(name, value, point.global_step, walltime=point.time)
            self._newest = point.global_step

    def close(self, status: str, reason: str | None, best: float | None) -> None:
        """Ends the run."""
        if self._writer is None and status == "paused" and not self._points:
            return
        while self._writer is None and self._too_soon():
            time.sleep(_LOOK_S)
        self._write()
        writer = self._writer or SummaryWriter(self._folder)
        if status != "paused":
            known = {n: v if isinstance(v, (bool, int, float, str)) else str(v) for n, v in self._config.items()}
            found = {} if best is None else {"best": best}
            for summary in hparams({**known, "status": status}, found):
                writer._get_file_writer().add_summary(summary)
            for name, value in found.items():
                writer.add_scalar(name, value, self._newest)
            writer.add_text("status", f"{status}: {reason}" if reason else status, self._newest)
        writer.close()
