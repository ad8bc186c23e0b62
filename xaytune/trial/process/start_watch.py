"""What a trial does before it trains: how long that takes, and where it spends it."""

from __future__ import annotations

import collections
import os
import sys
import sysconfig
import threading
import time
from pathlib import Path
from types import FrameType

from xaytune.messages import Start
from xaytune.trial.run.failures import PACKAGE

# Seconds between two looks at the main thread, and until the first: a shorter start is no matter.
_EVERY_S = 1.0
_NOT_THE_USERS = (
    *{sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")},
    PACKAGE,
    "<",
)


class StartWatch:
    """Watches the main thread from now until it trains.

    A thread of Python does it: that of ``faulthandler.dump_traceback_later`` reads stacks without the GIL,
    and crashes where they change under its eyes.

    Attributes:
        start: What there is to tell, once training has begun.
    """

    def __init__(self) -> None:
        self.start: Start | None = None
        self._began = time.monotonic()
        self._seen: collections.Counter[str] = collections.Counter()
        self._looks = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="xaytune start", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Ends the watch; the first time counts."""
        if self.start is not None:
            return
        seconds = time.monotonic() - self._began
        self._ended.set()
        self._thread.join()
        where = self._seen.most_common(1)[0][0] if self._seen else ""
        # Not the time of trackers, for one: nobody can spend that once for all trials.
        share = self._seen.total() / self._looks if self._looks else 1.0
        self.start = Start(seconds * share, where)

    def _watch(self) -> None:
        main_thread = threading.main_thread().ident
        assert main_thread is not None
        while not self._ended.wait(_EVERY_S):
            self._looks += 1
            if function := _function_of_the_users(sys._current_frames()[main_thread]):
                self._seen[function] += 1


def _function_of_the_users(frame: FrameType | None) -> str:
    """Returns the innermost function of a stack that is the user's own; none if there is none."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_NOT_THE_USERS):
            return f"{frame.f_code.co_name} ({Path(file).name}:{frame.f_lineno})"
        frame = frame.f_back
    return ""
