"""The checkpoints of a sweep in its folder: listed, copied, kept for others and deleted.

The process of a trial writes its own, and clears what an attempt before it left unrecorded, and local copies of
what was uploaded; everything that is recorded is deleted here.

A checkpoint is known by its path within the sweep's folder, ``checkpoints/00003/step-00000123.pt``, which is a
file or a folder; nobody else needs to know which. Donor checkpoints, which other trials may resume from, are
copies under ``sources/``.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from xaytune.errors import CheckpointError
from xaytune.records.sweep_folder import SweepFolder
from xaytune.trainer import checkpoint_files

CHECKPOINTS, _DONORS = "checkpoints", "sources"


def checkpoint_folder(trial: int) -> str:
    """Returns the folder of a trial's checkpoints, within the sweep's."""
    return f"{CHECKPOINTS}/{trial:05d}"


class CheckpointStore:
    """The checkpoints of a sweep, wherever they are kept.

    Args:
        sweep_folder: The sweep's.
    """

    def __init__(self, sweep_folder: SweepFolder) -> None:
        self._sweep_folder = sweep_folder

    def list(self, trial: int) -> dict[int, str]:
        """Returns the checkpoints of a trial, whole or not: paths by step, oldest first."""
        folder = checkpoint_folder(trial)
        if self._sweep_folder.remote is not None:
            names = self._sweep_folder.remote.names(folder)
        else:
            names = [path.name for path in checkpoint_files.list_checkpoints(self._sweep_folder.local / folder)]
        steps = {}
        for name in names:
            try:
                steps[checkpoint_files.step_of(name)] = f"{folder}/{name}"
            except CheckpointError:
                continue  # another file
        return dict(sorted(steps.items()))

    def keep(self, path: str, trial: int) -> str:
        """Keeps a copy of a trial's checkpoint for others to resume from: its donor checkpoint.

        Returns:
            The path of the copy.

        Raises:
            CheckpointError: There is no such checkpoint.
        """
        return self._copied(path, f"{_DONORS}/{trial:05d}")

    def hand_over(self, donor: str, trial: int) -> str:
        """Copies a donor checkpoint to the checkpoints of another trial, which resumes from it.

        Returns:
            The path of the copy.

        Raises:
            CheckpointError: There is no such checkpoint.
        """
        return self._copied(donor, checkpoint_folder(trial))

    def delete(self, path: str) -> None:
        """Deletes a checkpoint, wherever it is, if there is one."""
        self._sweep_folder.delete(path)

    def _copied(self, path: str, folder: str) -> str:
        target = f"{folder}/{PurePosixPath(path).name}"
        local, remote = self._sweep_folder.local, self._sweep_folder.remote
        if remote is None:
            checkpoint_files.copy(local / path, local / target)
            return target
        try:
            remote.copy(path, target)
        except FileNotFoundError:
            raise CheckpointError(f"{self._sweep_folder}/{path}: there is no such checkpoint") from None
        return target
