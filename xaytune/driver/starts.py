"""Trials that spend long before they train, on what could be done once for all of them."""

from __future__ import annotations

from xaytune.messages import Ended

_LONG_S, _SHARE = 1.0, 0.1
# The first may have filled caches of the disk for the others.
_TRIALS = 2


class SlowStarts:
    """Notices where trials spend more than a second, and a tenth of their time, before they train."""

    def __init__(self) -> None:
        self._slow = 0

    def add(self, message: Ended) -> str | None:
        """Takes in a trial that has ended; returns, once, what can be done about slow starts, in a sentence."""
        start = message.start
        if message.global_step <= 1:  # a step that is told when the recipe is done: what came before was training
            return None
        if start is None or start.seconds <= max(_LONG_S, _SHARE * message.seconds):
            return None
        self._slow += 1
        if self._slow != _TRIALS:
            return None
        where = f", most of it in {start.where}" if start.where else ""
        return (
            f"trials spend {start.seconds:.1f} s before they train{where}: what is the same for all of them "
            "can be done once, in a function of no arguments that `setup` names; what it returns is trial.shared"
        )
