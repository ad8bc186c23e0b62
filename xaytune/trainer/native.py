"""Checkpoints in the format of another library: folders, as that library wrote them, and files.

A folder ``step-00001234`` is there whole or not at all, and has a file more, ``xaytune.json``, with the checksums
of all others: what was damaged since is noticed.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import zlib
from pathlib import Path
from typing import Final

from xaytune.trainer import checkpoint

__all__ = ["add_folder", "discard", "newest_whole", "verify"]

logger = logging.getLogger(__name__)

_SUMS: Final = "xaytune.json"


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
    temporary = folder / f".{path.name}.{os.getpid()}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.copytree(source, temporary, copy_function=_link)
    sums = {file.relative_to(temporary).as_posix(): _sum(file) for file in _files(temporary)}
    (temporary / _SUMS).write_text(json.dumps(sums, indent=1))
    shutil.rmtree(path, ignore_errors=True)
    os.replace(temporary, path)
    return path


def verify(path: Path) -> None:
    """Checks that a checkpoint is whole, by its checksums.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    if not path.is_dir():
        checkpoint.verify(path)
        return
    try:
        sums = json.loads((path / _SUMS).read_text())
        damaged = next((name for name, found in sums.items() if _sum(path / name) != found), None)
    except (OSError, ValueError) as error:
        raise checkpoint.CheckpointError(f"{path}: the checkpoint cannot be read: {error}") from error
    if damaged is not None:
        raise checkpoint.CheckpointError(f"{path}: the checkpoint is damaged (checksum of {damaged})")


def newest_whole(folder: Path) -> Path | None:
    """Returns the newest checkpoint of a run, a file or a folder, that is whole; None if there is none."""
    for path in sorted(folder.glob("step-*"), key=checkpoint.step_of, reverse=True):
        try:
            verify(path)
        except checkpoint.CheckpointError as error:
            logger.warning("%s; taking the one before it", error)
        else:
            return path
    return None


def discard(path: Path) -> None:
    """Deletes a checkpoint, a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _sum(path: Path) -> int:
    found = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            found = zlib.crc32(chunk, found)
    return found
