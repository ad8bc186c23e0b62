"""What follows from failures: which trials are restarted, and when the recipe itself is at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from xaytune.records.state import TrialRecord
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import FailureKind

__all__ = ["LOSSES", "EarlyFailures", "RestartPolicy"]

LOSSES: Mapping[FailureKind, str] = {
    "lost": "its process was lost",
    "node_lost": "its node was lost",
    "preempted": "its node was taken away",
    "not_started": "its process was lost before it began",
}
# It is not the trial's fault, but the next process may fare no better.
_MOST_NOT_STARTED = 3
# So many trials that raise before any has trained a step are enough: the others would as well.
_ENOUGH = 2


class RestartPolicy:
    """Decides which trials that lost their process are restarted.

    Args:
        retries: Times that a trial may lose its process, by no fault of the node.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        self._not_started: Counter[int] = Counter()

    def allows(self, record: TrialRecord, kind: FailureKind) -> bool:
        """Tells whether a trial is restarted after it lost its process."""
        if kind == "not_started":
            self._not_started[record.number] += 1
            return self._not_started[record.number] <= _MOST_NOT_STARTED
        return kind in ("node_lost", "preempted") or (kind == "lost" and record.lost < self._retries)


class EarlyFailures:
    """Notices that a recipe cannot work: its first trials raise before any has trained a step.

    Args:
        spec: The sweep.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._enough = min(_ENOUGH, spec.num_trials or _ENOUGH)
        self._count = 0
        self._first: str | None = None

    def add(self, record: TrialRecord, trained: bool) -> None:
        """Learns how a trial ended.

        Args:
            record: The trial.
            trained: Whether any trial of the sweep has trained a step.
        """
        if record.failure == "error" and not trained:
            self._count += 1
            self._first = self._first or record.reason

    def verdict(self) -> str | None:
        """Words why the sweep ends; None while it does not."""
        if self._count < self._enough:
            return None
        return f"its first trials raised before their first step: {self._first}"
