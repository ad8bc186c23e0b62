"""What an attempt of a trial may resume from: checkpoints that are recorded, and whole."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path

from xaytune.errors import CheckpointError
from xaytune.messages import Assignment, Task
from xaytune.records.checkpoint_store import CheckpointStore, checkpoint_folder
from xaytune.records.remote import RemoteFolder
from xaytune.records.sweep_folder import SweepFolder
from xaytune.trainer import checkpoint_files


def checkpoint_dir_of(task: Task, assignment: Assignment) -> Path:
    """Returns the folder of a trial's checkpoints."""
    return Path(task.sweep_dir) / checkpoint_folder(assignment.trial)


def settle_checkpoints(task: Task, assignment: Assignment) -> dict[int, str]:
    """Leaves only checkpoints that an attempt can resume from: what was not recorded is trained again.

    Returns:
        The paths, within the sweep's folder, of those that are damaged, by step.
    """
    folder, own = Path(task.sweep_dir), checkpoint_dir_of(task, assignment)
    remote = RemoteFolder(task.remote) if task.remote and assignment.checkpoints else None
    if task.remote is not None:  # what is here may be of another attempt
        shutil.rmtree(own, ignore_errors=True)
    checkpoint_files.delete_unfinished(own)
    for path in checkpoint_files.list_checkpoints(own):
        if checkpoint_files.step_of(path) not in assignment.checkpoints:
            checkpoint_files.delete(path)
    damaged: dict[int, str] = {}
    store = CheckpointStore(SweepFolder(folder, remote))
    for step, file in sorted(store.list(assignment.trial).items(), reverse=True):
        path = folder / file
        if step not in assignment.checkpoints:
            continue
        try:
            if remote is not None:
                remote.fetch(file, path)
            checkpoint_files.verify(path)
            break
        except CheckpointError:
            aside = path.with_suffix(".damaged")
            checkpoint_files.delete(aside)  # of an attempt before
            with contextlib.suppress(FileNotFoundError):
                path.rename(aside)
            damaged[step] = file
    return damaged
