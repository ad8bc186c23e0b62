"""Checkpoint files: written atomically, and verified when read.

A checkpoint is one file, ``step-00001234.pt``, that holds tensors, arrays and plain values only. ``torch.save``
writes a zip archive, whose records carry checksums: a file that was cut short or damaged is noticed.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any

import torch

from xaytune.errors import CheckpointError
from xaytune.trainer import checkpoint_files
from xaytune.trainer.plain import ARRAY_GLOBALS, plain


def path_for(folder: Path, global_step: int) -> Path:
    """Returns the path of the checkpoint of a step."""
    return folder / f"{checkpoint_files.name_of(global_step)}.pt"


def save(payload: dict[str, Any], path: Path) -> None:
    """Writes a checkpoint: the file is there whole, or not at all.

    Args:
        payload: Tensors, arrays, numbers, strings and containers of them; numbers of numpy and of other kinds are
            written as python's own.
        path: Where to write; missing folders are made, an existing file is replaced.

    Raises:
        TypeError: Something in the payload could not be read again; the message says where it is.
        OSError: The file system refused (full, read-only).
    """
    payload = plain(payload, "the checkpoint")
    with checkpoint_files.replacing(path) as temporary, temporary.open("wb") as file:
        _write(payload, file)


def _write(payload: dict[str, Any], file: IO[bytes]) -> None:
    try:
        torch.save(payload, file)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):  # torch hides what the file system said
            raise error.__context__ from None
        raise


def load(path: Path | str) -> dict[str, Any]:
    """Reads a checkpoint onto the CPU, without running any code it may contain.

    Raises:
        CheckpointError: It is missing, damaged, or holds more than tensors, arrays and plain values.
    """
    checkpoint_files.verify_file(path)
    try:
        with torch.serialization.safe_globals(ARRAY_GLOBALS):
            payload = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, pickle.UnpicklingError, EOFError) as error:
        raise CheckpointError(f"{path}: the checkpoint cannot be read: {error}") from error
    if not isinstance(payload, dict):
        raise CheckpointError(f"{path}: not a checkpoint (it holds a {type(payload).__name__})")
    return payload
