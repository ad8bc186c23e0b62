"""Lines of JSON that a program writes, as the events of a run.

``{"epoch": 3, "accuracy": 0.91}`` says that so many epochs are finished, from 1, and
``{"global_step": 100, "loss": 0.4}`` that so many steps are done; what names neither was measured where the
program is. A run that names no steps has one for each epoch.

``{"checkpoint": "path"}`` names a file or a folder from which the program can resume. It is copied at once,
belongs to what was said before and in the same line, and is found under XAYTUNE_CHECKPOINT by the process that
resumes.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xaytune.errors import CheckpointError
from xaytune.sweep.objective import Objective
from xaytune.trainer import checkpoint_files
from xaytune.trainer.callbacks import Event, TrainState
from xaytune.trainer.checkpoint_files import step_of
from xaytune.trainer.context import RunContext

# A checkpoint is a folder of this file and of what the program wrote.
_PLACE, _WRITTEN = "place.json", "written"
_LEFT_OUT = (
    "a checkpoint was written to while it was copied, and is left out: let the program name it when all of it is "
    "written, and leave it as it is"
)


class Lines:
    """A run that a program tells by lines.

    Args:
        trial: Whose run it is.
        objective: What is optimised.
        note: Takes what whoever runs the sweep should know.

    Attributes:
        state: What handlers are given.
        begun: Whether the program has said where it is.
    """

    def __init__(self, trial: RunContext, objective: Objective, note: Callable[[str], None]) -> None:
        self.state = TrainState()
        self.begun = False
        self._trial, self._objective, self._note = trial, objective, note
        self._epochs = 0  # that are finished
        self._open: int | None = None  # the epoch, from 1, that steps are counted in
        self._told = False  # whether the open one is finished, but for what it was worth
        self._best: tuple[float, int] | None = None  # value and step
        self._kept: list[Path] = []  # checkpoints, oldest first

    def take(self, line: bytes) -> None:
        """Fires the events of what a line says.

        An epoch is judged when the sweep's metric of it is said, in the line that names it or in one after it.

        Raises:
            ValueError: It is no such line.
        """
        said = _read(line)
        epoch, step, written = (said.pop(name, None) for name in ("epoch", "global_step", "checkpoint"))
        metrics = {name: _number(name, value, line) for name, value in said.items()}
        epoch, step = _count("epoch", epoch, line), _count("global_step", step, line)
        if not self.begun:
            self._begin(epoch, step)
        self._check(epoch, step, line)
        if self.state.should_stop:  # what it trains now counts no more
            if self._is_further(epoch, step):
                return
            metrics = {}
        measures = self._objective.metric in metrics
        self._train_to(epoch, step, {} if measures else metrics)
        if measures:
            self._note_best(metrics)
        if written is not None:
            self._save(written, metrics)
        if measures:
            self._fire("eval_start")
            self.state.metrics.update(metrics)
            self._fire("eval_end")
            if self._told:
                self._finish_epoch()

    def end(self) -> None:
        """Ends the epoch that the program was in."""
        if self._open is not None:
            self._finish_epoch()

    def _begin(self, epoch: int | None, step: int | None) -> None:
        """Begins where the program resumed, if it did: a line that is not beyond that says that it began anew."""
        state = self.state
        found = _newest_of_a_program(self._trial.checkpoint_dir)
        if found is not None:
            place = json.loads((found / _PLACE).read_text())
            if (epoch is None or epoch > place["epoch"]) and (step is None or step > place["global_step"]):
                self._epochs, state.epoch, state.global_step = place["epoch"], place["epoch"], place["global_step"]
                state.metrics.update(place["metrics"])
                self._best = tuple(place["best"]) if place["best"] is not None else None
                self._kept = [found]
        self.begun = True
        self._fire("train_start")
        if self._objective.metric not in self.state.metrics:
            self._best = None  # it was another trial's, which this one has taken over

    def _is_further(self, epoch: int | None, step: int | None) -> bool:
        return (epoch is not None and epoch > self._reached) or (
            step is not None and step > self.state.global_step
        )

    @property
    def _reached(self) -> int:
        return self._open if self._told and self._open is not None else self._epochs

    def _check(self, epoch: int | None, step: int | None, line: bytes) -> None:
        reached = self._reached
        if (epoch is not None and epoch < reached) or (step is not None and step < self.state.global_step):
            raise ValueError(
                f"what a program says goes forward: it was at epoch {reached}, step {self.state.global_step} "
                f"(got {_shown(line)})"
            )

    def _train_to(self, epoch: int | None, step: int | None, metrics: Mapping[str, float]) -> None:
        """Counts the step and the epoch that a line names, where they are new, with what was measured."""
        state = self.state
        further = step is not None and step > state.global_step
        if self._told and (further or (epoch is not None and epoch != self._open)):
            self._finish_epoch()
        named = epoch if epoch is not None and epoch > self._epochs else None
        if self._open is None and (further or named is not None):
            self._open = named or self._epochs + 1
            state.epoch, state.step = self._open - 1, 0
            self._fire("epoch_start")
        if named is not None:
            self._open, self._told, state.epoch = named, True, named - 1
        passed = named - self._epochs if named is not None and state.step == 0 else 0
        reached = step or state.global_step + passed
        counted = reached - state.global_step
        if counted:
            self._fire("step_start")
            state.step, state.global_step = state.step + counted, reached
        state.metrics.update(metrics)
        if counted:
            self._fire("step_end")

    def _finish_epoch(self) -> None:
        if self._told and self._open is not None:
            self._epochs = self._open
        self._open, self._told = None, False
        self._fire("epoch_end")

    def _note_best(self, metrics: Mapping[str, float]) -> None:
        if not math.isfinite(value := metrics[self._objective.metric]):
            return
        if self._best is None or self._objective.is_better(value, self._best[0]):
            self._best = value, self.state.global_step

    def _save(self, written: Any, metrics: Mapping[str, float]) -> None:
        """Adds what the program wrote to the trial's checkpoints; the newest two and the best are kept."""
        folder, step = self._trial.checkpoint_dir, self.state.global_step
        source = Path(written) if isinstance(written, str) else None
        if source is None or not source.exists():
            raise ValueError(
                f"a checkpoint must be the path of a file or a folder, from {os.getcwd()} (got {written!r})"
            )
        if folder is None:
            return
        if folder.resolve().is_relative_to(source.resolve()):
            raise ValueError(
                "a checkpoint cannot be a folder that holds the sweep's own: write it to one of its own "
                f"(got {written!r})"
            )
        place = {
            "epoch": self._reached,
            "global_step": step,
            "metrics": {**self.state.metrics, **metrics},
            "best": self._best,
        }
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".step-", suffix=".tmp", dir=folder) as copy:
            (Path(copy) / _PLACE).write_text(json.dumps(place))
            if not _copied(source, Path(copy) / _WRITTEN / os.path.basename(os.path.abspath(source))):
                self._note(_LEFT_OUT)
                return
            path = checkpoint_files.add_folder(Path(copy), folder, step)
        self._kept = [*(kept for kept in self._kept if kept != path), path]
        best = self._best[1] if self._best is not None else None
        for old in [old for old in self._kept[:-2] if step_of(old) != best]:
            self._kept.remove(old)
            self._trial.discard(old)
        self._fire("checkpoint_saved")

    def _fire(self, event: Event) -> None:
        self._trial.callbacks.fire(event, self.state)


def checkpoint_of(folder: Path | None) -> Path | None:
    """Returns what a program wrote for the newest checkpoint that is whole; None if there is none of a program."""
    found = _newest_of_a_program(folder)
    return next((found / _WRITTEN).iterdir()) if found is not None else None


def _newest_of_a_program(folder: Path | None) -> Path | None:
    newest = checkpoint_files.newest_whole(folder) if folder is not None else None
    return newest if newest is not None and (newest / _PLACE).is_file() else None


def _copied(source: Path, target: Path) -> bool:
    """Copies a file or a folder, and tells whether nobody wrote to it meanwhile.

    Raises:
        CheckpointError: It cannot be copied, for another reason.
    """
    target.parent.mkdir()
    before = _stamps(source)
    try:
        if source.is_dir():
            shutil.copytree(source, target, copy_function=_copy, ignore_dangling_symlinks=True)
        else:
            _copy(source, target)
    except (OSError, CheckpointError):
        if before is not None and _stamps(source) == before:
            raise
    return before is not None and _stamps(source) == before


def _copy(source: str | Path, target: str | Path) -> None:
    """Copies a file. What copytree is to end at is no OSError: it would go on, and forget what kind it was."""
    try:
        shutil.copy2(source, target)
    except OSError as error:
        raise CheckpointError(f"{source} cannot be copied: {error}") from error


def _stamps(path: Path) -> list[tuple[str, int, int]] | None:
    """Returns when each file was written, and its size; None where one vanishes."""
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    try:
        return [(str(file), stat.st_mtime_ns, stat.st_size) for file in files if (stat := file.lstat())]
    except FileNotFoundError:
        return None


def _read(line: bytes) -> dict[str, Any]:
    try:
        said = json.loads(line, parse_int=float)  # integers may be of any length
    except ValueError:
        said = None
    if not isinstance(said, dict):
        form = '{"epoch": 1, "accuracy": 0.9}'
        raise ValueError(f"XAYTUNE_FD takes lines of JSON such as {form} (got {_shown(line)})")
    return said


def _number(name: str, value: Any, line: bytes) -> float:
    if not isinstance(value, (int, float)):
        raise ValueError(f"the metric {name!r} must be a number (got {_shown(line)})")
    return float(value)


def _count(name: str, value: Any, line: bytes) -> int | None:
    if value is None:
        return None
    if not isinstance(value, float) or not value.is_integer() or not 1 <= value < 2**53:
        what = "epochs that are finished" if name == "epoch" else "steps that are done"
        raise ValueError(f"{name!r} must be a number of {what}, from 1 (got {_shown(line)})")
    return int(value)


def _shown(line: bytes) -> str:
    text = line.decode(errors="replace").strip()
    return text if len(text) <= 200 else f"{text[:200]}..."
