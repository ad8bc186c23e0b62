"""Retention: which checkpoints of a sweep are no longer needed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from xaytune.records.state import TrialRecord

__all__ = ["Retention"]

# Of a trial that goes on: its newest, and the one before should that be damaged.
_TO_RESUME_FROM = 2


class Retention:
    """Keeps the best checkpoints of the trials that have ended, and what the others go on from.

    Args:
        num_to_keep: So many of the best; None keeps everything.
        maximize: Whether a larger value is better.
    """

    def __init__(self, num_to_keep: int | None, *, maximize: bool) -> None:
        self._num_to_keep, self._sign = num_to_keep, 1 if maximize else -1
        self._kept: list[tuple[float, int, TrialRecord]] = []  # a heap, the worst of the best first

    def superfluous(self, trial: TrialRecord) -> Iterator[tuple[TrialRecord, int]]:
        """Yields the checkpoints, as trials and steps, that are not needed after a trial went on or ended."""
        if self._num_to_keep is None:
            return
        if not trial.finished:
            needed = sorted(trial.checkpoints)[-_TO_RESUME_FROM:]
            yield from _all_but([*needed, trial.checkpoint_step], trial)
            return
        if trial.status == "failed" or trial.value is None:
            yield from _all_but([], trial)
            return
        yield from _all_but([trial.checkpoint_step], trial)
        heapq.heappush(self._kept, (self._sign * trial.value, -trial.number, trial))
        if len(self._kept) > self._num_to_keep:
            yield from _all_but([], heapq.heappop(self._kept)[2])


def _all_but(needed: list[int | None], trial: TrialRecord) -> Iterator[tuple[TrialRecord, int]]:
    for step in list(trial.checkpoints):
        if step not in needed:
            yield trial, step
