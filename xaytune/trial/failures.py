"""Errors of recipes, as their authors want to read them."""

from __future__ import annotations

import errno
import traceback
from pathlib import Path
from types import TracebackType

from xaytune.errors import RemoteError
from xaytune.trial.messages import Failure

__all__ = ["format_error", "kind_of"]

_PACKAGE = str(Path(__file__).parents[1])


def format_error(error: BaseException) -> str:
    """Returns the traceback of an error from the first frame on that is not xaytune's own."""
    return "".join(traceback.format_exception(type(error), error, _below(error.__traceback__)))


def kind_of(error: BaseException) -> Failure:
    """Tells what kind of failure an error of a recipe is."""
    import torch

    text = str(error)
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in text:
        return "infeasible"
    if isinstance(error, RemoteError):
        return "storage"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
        return "storage"
    return "error"


def _below(trace: TracebackType | None) -> TracebackType | None:
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.tb_next
    return frame if frame is not None else trace
