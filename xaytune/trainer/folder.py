"""The folder of a run's checkpoints: whose they are, which one to resume from, which may be deleted."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from typing import Any

from torch import distributed

from xaytune.errors import CheckpointError
from xaytune.trainer import checkpoint, checkpoint_files
from xaytune.trainer.context import RunContext
from xaytune.trainer.data import fingerprint
from xaytune.trainer.plain import is_surely_read_again

logger = logging.getLogger(__name__)


class CheckpointFolder:
    """Writes and finds the checkpoints of one run.

    Args:
        path: Where they are; those of a run with a name are in a folder of its own there.
        run: The run's name, if it has one.
        trial: The trial whose they are, so that no other process of the run has them.
        train_loader: Its training data, by which it is told from other runs where it has no name.
        resume: Whether the run goes on from what is there.
    """

    def __init__(
        self, path: Path, run: str | None, trial: RunContext | None, train_loader: Any, *, resume: bool
    ) -> None:
        self._path, self._run, self._resume = path if run is None else path / run, run, resume
        self._of_trial = trial is not None
        self._data = fingerprint(train_loader) if trial is None else None
        self._delete = checkpoint_files.delete if trial is None else trial.discard
        self._wanted: Counter[Path] = Counter()  # how often each was saved and not discarded

    def save(self, state: dict[str, Any], global_step: int) -> Path:
        """Writes a checkpoint, and returns its path. The first is read back, if that is not sure to succeed.

        Raises:
            TypeError: The state holds something that could not be read again.
            CheckpointError: It could not be read back.
            OSError: The file system refused.
        """
        path = checkpoint.path_for(self._path, global_step)
        checkpoint.save(state | {"run": {"name": self._run, "data": self._data}}, path)
        if not self._wanted and not is_surely_read_again(state):
            checkpoint.load(path)
        self._wanted[path] += 1
        return path

    def discard(self, path: Path) -> None:
        """Deletes a checkpoint, once all who had it saved have discarded it."""
        self._wanted[path] -= 1
        if self._wanted[path] <= 0:
            self._delete(path)

    @property
    def how_to_begin_anew(self) -> str:
        """What to do for another run than the one whose checkpoints are here, in words; none for a trial's."""
        return "" if self._of_trial else "; for another run, give resume=False or another checkpoint_dir"

    def newest(self) -> dict[str, Any] | None:
        """Returns the state of the newest checkpoint that is not damaged; None if there is none to resume from.

        Raises:
            CheckpointError: All of them are damaged, the newest is another run's, or the run is trained by several
                processes, of which only this one has its trial.
        """
        if not self._resume:
            self._put_aside()
            return None
        damaged: CheckpointError | None = None
        for path in reversed(self._checkpoints()):
            try:
                state = checkpoint.load(path)
            except CheckpointError as error:
                logger.warning("%s; trying the one before it", error)
                damaged = error
                continue
            self._check_whose(path, state.get("run", {}))
            self._check_alone(path)
            return state
        if damaged is not None:
            raise damaged
        return None

    def _put_aside(self) -> None:
        """Moves checkpoints of earlier runs into a folder of their own."""
        found = self._checkpoints()
        if not found:
            return
        number = 1
        while (aside := self._path / f"aside-{number}").exists():
            number += 1
        aside.mkdir()
        for path in found:
            path.rename(aside / path.name)
        logger.warning("%d checkpoints of an earlier run were moved to %s", len(found), aside)

    def _checkpoints(self) -> list[Path]:
        """Returns the checkpoints of a Trainer or a loop of one's own, which are files, oldest step first."""
        found = checkpoint_files.list_checkpoints(self._path)
        return [path for path in found if not checkpoint_files.is_folder(path)]

    def _check_whose(self, path: Path, whose: dict[str, Any]) -> None:
        name, data = whose.get("name"), whose.get("data")
        remedy = (
            "give each run a name, Trainer(run=...), or a checkpoint_dir of its own; or resume=False, which puts "
            "the checkpoints that are there aside"
        )
        if name not in (None, self._run):
            raise CheckpointError(f"{path} belongs to the run {name!r}, not to {self._run!r}: {remedy}")
        if name is None and self._run is None and None not in (data, self._data) and data != self._data:
            raise CheckpointError(
                f"{path} belongs to a run on other training data (another fold, or a split drawn "
                f"without a fixed seed?): {remedy}"
            )

    def _check_alone(self, path: Path) -> None:
        if not self._of_trial or not (distributed.is_available() and distributed.is_initialized()):
            return
        if (processes := distributed.get_world_size()) > 1:
            raise CheckpointError(
                f"{path} cannot be resumed from: the run is trained by {processes} processes, and only this one "
                "has the trial, so that the others would train on with other weights; let such a run begin "
                "anew, as a new trial"
            )
