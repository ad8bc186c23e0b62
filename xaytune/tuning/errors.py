"""Errors of recipes, as their authors want to read them."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

__all__ = ["format_error"]

_PACKAGE = str(Path(__file__).parents[1])


def format_error(error: BaseException) -> str:
    """Returns the traceback of an error from the first frame on that is not xaytune's own."""
    return "".join(traceback.format_exception(type(error), error, _below(error.__traceback__)))


def _below(trace: TracebackType | None) -> TracebackType | None:
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(_PACKAGE):
        frame = frame.tb_next
    return frame if frame is not None else trace
