"""Checkpoints as files: one file, or a folder with a manifest. Each is there whole, or is noticed not to be.

A checkpoint is called ``step-00001234.pt`` or, as a folder, ``step-00001234``. A file is a zip archive, as
``torch.save`` writes it, with checksums of its own. A folder, in the format of another library, has a manifest of
the size and the CRC-32 of each of its files, which is written last: a folder without one was cut short.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePath

from xaytune.errors import CheckpointError

logger = logging.getLogger(__name__)

MANIFEST = ".manifest.json"
_NAME = re.compile(r"step-(\d+)(\.pt)?")
_BLOCK = 1 << 20


def name_of(global_step: int) -> str:
    """Returns the name of the checkpoint of a step, as a folder; a file has the suffix ``.pt`` besides."""
    return f"step-{global_step:08d}"


def step_of(path: str | PurePath) -> int:
    """Returns the step that a checkpoint's name tells.

    Raises:
        CheckpointError: It is no name of a checkpoint.
    """
    match = _NAME.fullmatch(PurePath(path).name)
    if match is None:
        raise CheckpointError(f"{path}: a checkpoint is called step-00000123.pt, or step-00000123 as a folder")
    return int(match[1])


def is_folder(path: str | PurePath) -> bool:
    """Tells by its name whether a checkpoint is a folder."""
    return PurePath(path).suffix != ".pt"


def list_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints of a folder, oldest step first, whole or not; none if there is no such folder."""
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: (step_of(path), path.name))


def newest_whole(folder: Path) -> Path | None:
    """Returns the newest checkpoint of a run, a file or a folder, that is whole; None if there is none."""
    for path in reversed(list_checkpoints(folder)):
        try:
            verify(path)
        except CheckpointError as error:
            logger.warning("%s; taking the one before it", error)
        else:
            return path
    return None


def add_folder(source: Path, folder: Path, global_step: int) -> Path:
    """Adds a folder that a library has written to the checkpoints of a run.

    Args:
        source: The folder. It stays as it is, and may be deleted; its files are linked where that is possible.
        folder: The run's checkpoints.
        global_step: Whose step it is; a checkpoint of the same step is replaced.

    Raises:
        OSError: The file system refused.
    """
    path = folder / name_of(global_step)
    with replacing(path) as temporary:
        shutil.copytree(source, temporary, copy_function=_link)
        seal(temporary)
    return path


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def seal(folder: Path) -> None:
    """Writes the manifest of a folder that holds a checkpoint: it counts as whole from then on."""
    files = {str(file.relative_to(folder)): _checksum(file) for file in _files(folder)}
    temporary = folder / f"{MANIFEST}.tmp"
    temporary.write_text(json.dumps({"files": files}))
    os.replace(temporary, folder / MANIFEST)


def verify(path: Path) -> None:
    """Checks that a checkpoint is whole, by its checksums.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    if is_folder(path):
        _verify_folder(path)
    else:
        verify_file(path)


def verify_file(path: Path | str) -> None:
    """Checks that a checkpoint of one file is whole, whatever it is called.

    Raises:
        CheckpointError: It is missing or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError, ValueError, EOFError) as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read: {error}") from error
    if damaged is not None:
        raise CheckpointError(f"{path}: the checkpoint is damaged (checksum of {damaged})")


def _verify_folder(folder: Path) -> None:
    try:
        files = json.loads((folder / MANIFEST).read_text())["files"]
        damaged = [name for name, checksum in files.items() if _checksum(folder / name) != checksum]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{folder}: the checkpoint cannot be read: {error}") from error
    if damaged:
        raise CheckpointError(f"{folder}: the checkpoint is damaged (checksum of {damaged[0]})")


def copy(source: Path, target: Path) -> None:
    """Copies a checkpoint, a file or a folder: it is there whole, or not at all.

    Raises:
        CheckpointError: There is none to copy.
    """
    try:
        with replacing(target) as temporary:
            if source.is_dir():
                shutil.copytree(source, temporary)
            else:
                shutil.copyfile(source, temporary)
    except FileNotFoundError:
        raise CheckpointError(f"{source}: there is no such checkpoint") from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A context that yields where to write what becomes a checkpoint: it is there whole, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    delete(temporary)
    try:
        yield temporary
        if temporary.is_dir():
            delete(path)
        os.replace(temporary, path)
    finally:
        delete(temporary)


def delete_unfinished(folder: Path) -> None:
    """Deletes what is left of saves that were killed, in a folder that nothing writes to now."""
    for path in folder.glob(".step-*.tmp"):
        delete(path)


def delete(path: Path) -> None:
    """Deletes a checkpoint, a file or a folder, if there is one."""
    if path.is_dir() and not path.is_symlink():
        # What is left of a folder that could not be deleted whole is no checkpoint.
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(MANIFEST))


def _checksum(file: Path) -> list[int]:
    """Size and CRC-32 of a file."""
    size = crc = 0
    with file.open("rb") as opened:
        while block := opened.read(_BLOCK):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]
