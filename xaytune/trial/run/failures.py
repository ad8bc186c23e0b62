"""Errors of recipes and programs, as their authors want to read them."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from pathlib import Path
from types import TracebackType

from xaytune.errors import RemoteError
from xaytune.messages import Failure, FailureKind
from xaytune.trainer.callbacks import words_of
from xaytune.trial.common.exits import words_for_exit

# What the paths of xaytune's own code begin with; a folder beside it may have a name that begins with its name.
PACKAGE = str(Path(__file__).parents[2]) + os.sep
# How torch, its allocators and its libraries say that there is not enough memory, where the type does not.
_OUT_OF_MEMORY = (
    "DefaultCPUAllocator",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUSOLVER_STATUS_ALLOC_FAILED",
    "CUSPARSE_STATUS_ALLOC_FAILED",
    "CUFFT_ALLOC_FAILED",
    "Failed to CUDA malloc",
    "Failed to CUDA calloc",
    "std::bad_alloc",
)


class ProgramFailedError(Exception):
    """The program of a trial failed.

    Attributes:
        failure: How.
    """

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.error)
        self.failure = failure


class ProgramLostError(BaseException):
    """The program of a trial was killed by a signal: what started it is to end in the same way.

    Attributes:
        signal: The signal.
        failure: What became of its trial.
    """

    def __init__(self, number: int) -> None:
        super().__init__(words_for_exit(-number))
        self.signal = number
        self.failure = Failure("lost", f"the program was {self}")


def failure_of(error: BaseException) -> Failure:
    """Returns what a recipe's error was: its kind, a line and its traceback."""
    kind = _kind_of(error)
    line = _describe(error)
    return Failure(kind, f"out of memory: {line}" if kind == "infeasible" else line, _format_error(error))


def _describe(error: BaseException) -> str:
    """Returns an error in a line: its type, and the first line of its text."""
    if isinstance(error, SystemExit):
        code = error.code
        return f"exit code {code} (SystemExit)" if isinstance(code, int) else f"SystemExit: {code}"
    first_line, *_ = words_of(error).splitlines() or [""]
    return f"{type(error).__name__}: {first_line}" if first_line else type(error).__name__


def _format_error(error: BaseException) -> str:
    """Returns the traceback of an error from the first frame on that is not xaytune's own."""
    return "".join(traceback.format_exception(type(error), error, _below(error.__traceback__)))


def _kind_of(error: BaseException) -> FailureKind:
    """Tells what kind of failure an error of a recipe is."""
    cause: BaseException | None = error
    seen: set[int] = set()  # an error may be its own cause
    while cause is not None and id(cause) not in seen:
        if _is_out_of_memory(cause):
            return "infeasible"
        if isinstance(cause, RemoteError):
            return "storage"
        if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
            return "storage"
        seen.add(id(cause))
        cause = cause.__cause__
    return "error"


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        return True
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in words_of(error) for words in _OUT_OF_MEMORY)


def _below(trace: TracebackType | None) -> TracebackType | None:
    frame = trace
    while frame is not None and frame.tb_frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.tb_next
    return frame if frame is not None else trace
