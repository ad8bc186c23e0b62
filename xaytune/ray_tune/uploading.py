"""What a trial leaves on its node, copied to a storage that is a URI."""

from __future__ import annotations

import shutil
from pathlib import Path

from xaytune.messages import Ended, Progress
from xaytune.records.checkpoint_store import CHECKPOINTS, checkpoint_folder
from xaytune.records.remote import RemoteFolder
from xaytune.trainer import checkpoint_files
from xaytune.trial.common.output import file_of
from xaytune.trial.trackers.tracking import FOLDERS

# What is copied when the process of a trial has ended, beside its output.
_LEFT = (CHECKPOINTS, "folders", *FOLDERS)


def upload(message: Progress, folder: Path, remote: RemoteFolder) -> None:
    """Copies what a message speaks of to where it is kept: it counts only when it is there.

    Args:
        message: Of a trial.
        folder: Stands for the sweep's on the trial's node.
        remote: Where the sweep is kept.

    Raises:
        OSError: The storage refuses.
    """
    for file in message.checkpoints.values():
        if (folder / file).exists():
            remote.upload(folder / file, file)
    for file in message.discarded.values():
        checkpoint_files.delete(folder / file)
    if isinstance(message, Ended):
        upload_rest(message.trial, folder, remote)


def upload_rest(trial: int, folder: Path, remote: RemoteFolder) -> None:
    """Copies what else a trial left in the folder, once its process has ended, and empties it for the next.

    Raises:
        OSError: The storage refuses: what is not copied yet stays.
    """
    for checkpoint in checkpoint_files.list_checkpoints(folder / checkpoint_folder(trial)):
        checkpoint_files.delete(checkpoint)  # those that count are uploaded; the rest is the user's
    _append_output(trial, folder, remote)
    for path in [path for name in _LEFT for path in sorted((folder / name).rglob("*"))]:
        if path.is_file():
            remote.upload(path, path.relative_to(folder).as_posix())
    empty(folder)


def empty(folder: Path) -> None:
    """Deletes what a trial left: later it would replace what the trial has written elsewhere meanwhile."""
    for name in _LEFT:
        shutil.rmtree(folder / name, ignore_errors=True)


def _append_output(trial: int, folder: Path, remote: RemoteFolder) -> None:
    """Adds what a trial has printed on its node to what it printed before, there or elsewhere."""
    file = file_of(trial)
    if (folder / file).is_file():
        printed = (folder / file).read_bytes()
        remote.put(file, (remote.get(file) or b"") + printed)
        (folder / file).unlink()
