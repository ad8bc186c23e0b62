"""The process that runs a sweep: whether it is still there."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

# Seconds by which a clock may have been set since.
_CLOCK_S = 60.0
# The time of a simulation is virtual, and begins at 0.
_VIRTUAL_S = 1e8


@dataclass(frozen=True)
class DriverProcess:
    """A process that runs a sweep.

    Attributes:
        host: Its machine.
        pid: Its id there.
        noted: Unix seconds at which it was running.
    """

    host: str
    pid: int
    noted: float

    @property
    def elsewhere(self) -> bool:
        """Whether it is on another machine."""
        return self.host != socket.gethostname()

    @property
    def alive(self) -> bool:
        """Whether it runs; one on another machine is taken to."""
        if self.elsewhere:
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
        began = _began(self.pid)
        if began is None or self.noted < _VIRTUAL_S:
            return True
        return began < self.noted + _CLOCK_S  # later, another process has got its id


def _began(pid: int) -> float | None:
    """Unix seconds at which a process began, where /proc tells it."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        since_boot = int(after_name[19]) / os.sysconf("SC_CLK_TCK")
        return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot
    return None
