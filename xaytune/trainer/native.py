"""Checkpoints in the format of another library: folders, as that library wrote them, and files.

A folder ``step-00001234`` is there whole or not at all, and has a manifest with the checksums of its files
(:mod:`xaytune.trainer.checkpoint_files`): what was damaged since is noticed.
"""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from xaytune.errors import CheckpointError
from xaytune.trainer import checkpoint_files

__all__ = ["add_folder", "newest_whole"]

logger = logging.getLogger(__name__)


def add_folder(source: Path, folder: Path, global_step: int) -> Path:
    """Adds a folder that a library has written to the checkpoints of a run.

    Args:
        source: The folder. It stays as it is, and may be deleted; its files are linked where that is possible.
        folder: The run's checkpoints.
        global_step: Whose step it is; a checkpoint of the same step is replaced.

    Raises:
        OSError: The file system refused.
    """
    path = folder / f"step-{global_step:08d}"
    with checkpoint_files.replacing(path) as temporary:
        shutil.copytree(source, temporary, copy_function=_link)
        checkpoint_files.seal(temporary)
    return path


def newest_whole(folder: Path) -> Path | None:
    """Returns the newest checkpoint of a run, a file or a folder, that is whole; None if there is none."""
    for path in reversed(checkpoint_files.list_checkpoints(folder)):
        try:
            checkpoint_files.verify(path)
        except CheckpointError as error:
            logger.warning("%s; taking the one before it", error)
        else:
            return path
    return None


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
