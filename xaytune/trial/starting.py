"""What a trial does before its first step: how long that takes, and where it spends it."""

from __future__ import annotations

import collections
import faulthandler
import re
import sysconfig
import tempfile
import time
from pathlib import Path

from xaytune.trial.messages import Start

__all__ = ["StartWatch", "busiest"]

# Where the stacks are looked at so often, from this on: a shorter start is no matter.
_EVERY_S = 1.0
_FRAME = re.compile(r'  File "(.+)", line (\d+) in (.+)')
_NOT_THE_USERS = (
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    str(Path(__file__).parents[1]),
    "<",
)


class StartWatch:
    """Watches a process from now until its first step, by a thread of C code that writes where it is.

    Attributes:
        start: What there is to tell, once the first step was done.
    """

    def __init__(self) -> None:
        self.start: Start | None = None
        self._began = time.monotonic()
        self._stacks = tempfile.TemporaryFile("w+")  # noqa: SIM115
        faulthandler.dump_traceback_later(_EVERY_S, repeat=True, file=self._stacks)

    def end(self) -> None:
        """Ends the watch; the first time counts."""
        if self.start is not None:
            return
        faulthandler.cancel_dump_traceback_later()
        with self._stacks:
            self._stacks.seek(0)
            self.start = Start(time.monotonic() - self._began, busiest(self._stacks.read()))


def busiest(stacks: str) -> str:
    """Returns the function of the user's that is found most often in dumps of stacks; none if there is none.

    Args:
        stacks: What :mod:`faulthandler` wrote: a dump has all threads, the main one last, the newest call first.
    """
    seen: collections.Counter[str] = collections.Counter()
    for dump in stacks.split("Timeout (")[1:]:
        main_thread = dump.rpartition("most recent call first")[2]
        own = [frame for frame in _FRAME.findall(main_thread) if not frame[0].startswith(_NOT_THE_USERS)]
        if own:
            file, line, function = own[0]
            seen[f"{function} ({Path(file).name}:{line})"] += 1
    return seen.most_common(1)[0][0] if seen else ""
