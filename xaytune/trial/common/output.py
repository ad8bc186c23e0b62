"""Where a trial's standard output and error go, and how a crash leaves its stacks there."""

from __future__ import annotations

import contextlib
import faulthandler
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any, NoReturn

from xaytune.trial.common.kernel import flush_c_streams

# Makes a process write where each of its threads is.
DUMP_STACKS = signal.SIGUSR2
_TAIL = 1 << 14
_NO_TERMINAL = "a trial of a sweep has no terminal; `xaytune try` trains one configuration in yours"


def file_of(trial: int) -> str:
    """Returns the path of a trial's output, within its sweep's folder."""
    return f"output/{trial:05d}.txt"


def open_output(path: Path) -> int:
    """Opens a trial's output, to add to it, and returns the descriptor."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)


def redirect_output(path: Path) -> None:
    """Makes a file what this process, its libraries and its children write to, and leaves them nothing to read.

    ``sys.stdout`` and ``sys.stderr`` stay the objects that they are: handlers of `logging` keep them.
    """
    for source, targets in ((os.open(os.devnull, os.O_RDONLY), (0,)), (open_output(path), (1, 2))):
        for target in targets:
            os.dup2(source, target)
        os.close(source)
    make_readable(sys.stdout, sys.stderr)
    sys.stdin = _NoTerminal(open(0, "rb", closefd=False))  # noqa: SIM115
    if "PYTHONBREAKPOINT" not in os.environ:
        sys.breakpointhook = _no_debugger


def make_readable(*streams: Any) -> None:
    """Makes streams write each line at once, in UTF-8, whatever is in it."""
    for stream in streams:
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


def report_stacks() -> None:
    """Makes this process write its stacks when it crashes, and when it is sent :data:`DUMP_STACKS`."""
    faulthandler.enable(file=2)
    faulthandler.register(DUMP_STACKS, file=2)


def flush_output(path: Path) -> None:
    """Writes out what was printed; a file that holds nothing goes."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    flush_c_streams()
    with contextlib.suppress(OSError):
        if path.stat().st_size == 0:
            path.unlink()


def last_lines(path: Path | int, count: int = 20) -> str:
    """Returns the last lines of a file, or of a descriptor; none if it cannot be read."""
    try:
        with open(path, "rb", closefd=not isinstance(path, int)) as file:
            end = os.fstat(file.fileno()).st_size
            tail = os.pread(file.fileno(), _TAIL, max(0, end - _TAIL))  # the position is the writer's too
    except OSError:
        return ""
    return "\n".join(tail.decode(errors="replace").splitlines()[-count:])


class _NoTerminal(io.TextIOWrapper):
    """Standard input where there is none: a question to a person raises."""

    def readline(self, size: int = -1, /) -> NoReturn:  # type: ignore[override]
        raise EOFError(f"there is nobody to answer: {_NO_TERMINAL}")


def _no_debugger(*args: object, **keywords: object) -> NoReturn:
    raise RuntimeError(f"breakpoint() was called: {_NO_TERMINAL}")
