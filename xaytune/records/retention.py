"""Which checkpoints of a sweep are to be kept, and which are no longer needed."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from xaytune.records.trial_record import TrialRecord
from xaytune.sweep.objective import Objective

# Of a trial that has not ended: its newest, and the one before should that be damaged.
_TO_RESUME_FROM = 2


class Retention:
    """Keeps the best checkpoints of the trials that have ended, and what those that failed or go on resume from.

    Args:
        num_to_keep: So many of the best; None keeps everything.
        objective: What is better.
    """

    def __init__(self, num_to_keep: int | None, objective: Objective) -> None:
        self._num_to_keep, self._objective = num_to_keep, objective
        self._kept: list[tuple[float, int, TrialRecord]] = []  # a heap, the worst of the best first

    def superfluous(self, trial: TrialRecord) -> Iterator[tuple[TrialRecord, int]]:
        """Yields the checkpoints, as trials and steps, that are not needed after a trial trained on or ended."""
        if self._num_to_keep is None:
            return
        if not trial.finished:
            needed = sorted(trial.checkpoints)[-_TO_RESUME_FROM:]
            yield from _all_but([*needed, trial.checkpoint_step], trial)
            return
        if any(kept is trial for _, _, kept in self._kept):  # it had ended before, and was continued
            self._kept = [one for one in self._kept if one[2] is not trial]
            heapq.heapify(self._kept)
        if trial.status == "failed" or trial.value is None:
            resumable = trial.status == "failed"  # `resume --resume-errored` restarts it there
            yield from _all_but([max(trial.checkpoints, default=None)] if resumable else [], trial)
            return
        yield from _all_but([trial.checkpoint_step], trial)
        heapq.heappush(self._kept, (self._objective.score(trial.value), -trial.number, trial))
        if len(self._kept) > self._num_to_keep:
            yield from _all_but([], heapq.heappop(self._kept)[2])


def _all_but(needed: list[int | None], trial: TrialRecord) -> Iterator[tuple[TrialRecord, int]]:
    for step in list(trial.checkpoints):
        if step not in needed:
            yield trial, step
