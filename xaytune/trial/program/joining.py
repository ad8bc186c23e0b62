"""A program that a sweep has started, from the inside: it finds its trial by the environment."""

from __future__ import annotations

import atexit
import os
import socket
import sys
from types import TracebackType
from typing import TYPE_CHECKING

from xaytune.trainer import current
from xaytune.trainer.callbacks import Pause
from xaytune.trainer.own import OwnLoop
from xaytune.trial.common.channel import ADDRESS, Channel

if TYPE_CHECKING:
    from xaytune.trial.run.runner import RecipeRun


def current_trial() -> OwnLoop:
    """Returns the trial of this process; see :func:`xaytune.trainer.current.current_trial`.

    In a program that the ``command`` of a sweep has started it is a :class:`~xaytune.trial.run.trial.Trial`, which
    ends with the program.

    Raises:
        RuntimeError: Another process of the program has its trial.
    """
    address = os.environ.get(ADDRESS)
    if address is not None:
        _join(address)
    return current.current_trial()


def _join(address: str) -> None:
    # A program that runs alone needs none of these.
    from xaytune.sweep.references import use_import_paths
    from xaytune.trial.common.link import ChannelLink
    from xaytune.trial.run.runner import RecipeRun

    end = socket.socket(socket.AF_UNIX)
    try:
        end.connect(address.replace("@", "\0"))
        channel = Channel(end)
        task, assignment, damaged = channel.get(None)
    except (OSError, EOFError):  # one that connects in the same moment as another is accepted, and hung up on
        raise RuntimeError(
            "the trial of this program belongs to another process of it, or is over: call xaytune.current_trial() "
            "in one process, such as that of rank 0"
        ) from None
    del os.environ[ADDRESS]  # the processes that this one starts are not the trial
    if task.callbacks:
        use_import_paths([os.getcwd(), *task.import_paths])
    run = RecipeRun(task, assignment, ChannelLink(channel), damaged=damaged)
    _hide_pauses()
    atexit.register(_end, run, os.getpid())
    run.begin(seeded=False)


def _end(run: RecipeRun, pid: int) -> None:
    """Ends the run at the end of the program, by whatever was raised; a fork of it that exits is not its end."""
    if os.getpid() == pid:
        run.end(getattr(sys, "last_value", None))


def _hide_pauses() -> None:
    """A trial that pauses unwinds its program: that is no error to be shown."""
    shown = sys.excepthook

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if not issubclass(kind, Pause):
            shown(kind, error, trace)

    sys.excepthook = show
