"""How processes end: their exits, in words and as what became of a trial."""

from __future__ import annotations

import os
import signal
from typing import NamedTuple

from xaytune.messages import Failure


class Exit(NamedTuple):
    """The exit of a process.

    Attributes:
        status: Its wait status.
        out_of_memory: Whether the kernel killed it for want of memory.
    """

    status: int
    out_of_memory: bool

    @property
    def failure(self) -> Failure:
        """What became of the trial of a process that has not told its end."""
        if self.out_of_memory:
            return Failure("infeasible", "out of memory: the kernel killed its process")
        code = os.waitstatus_to_exitcode(self.status)
        error = f"its process ended before the recipe did: {words_for_exit(code)}"
        return Failure("lost" if code < 0 else "error", error)


def words_for_exit(code: int) -> str:
    """Returns an exit code in words; it is negative for a signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
