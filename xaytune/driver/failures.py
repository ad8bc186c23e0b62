"""What follows from failures: which trials are restarted, and when the recipe itself is at fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

from xaytune.errors import Problem, SpecError
from xaytune.messages import FailureKind
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.sweep.command import Command
from xaytune.sweep.options import Reference, reference_name
from xaytune.sweep.spec import SweepSpec

LOSSES: Mapping[FailureKind, str] = {
    "lost": "its process was lost",
    "lost_with_others": "its process was lost, in which other trials were trained",
    "shared": "it shares what it trains with other trials of its process",
    "node_lost": "its node was lost",
    "preempted": "its node was taken away",
    "not_started": "its process was lost before it began",
}
# What a trial is given a process of its own after, where a process trains several.
ALONE: Collection[FailureKind] = ("lost", "lost_with_others", "shared")
# It is not the trial's fault, but the next process may fare no better.
_MOST_NOT_STARTED = 3
# Trials that raise before any has trained a step, that are enough: others would as well.
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
        """Tells whether a trial is restarted after it lost its process.

        One that lost it with others always is: it is not known whose fault that was, and the next is its own.
        """
        if kind == "not_started":
            self._not_started[record.number] += 1
            return self._not_started[record.number] <= _MOST_NOT_STARTED
        return kind in ("node_lost", "preempted", "lost_with_others", "shared") or (
            kind == "lost" and record.lost < self._retries
        )


class EarlyFailures:
    """Notices that a recipe cannot work.

    Its first trials raise, and those that ran beside them, before any has trained a step; or they end without the
    metric, which none has ever reported.

    Args:
        spec: The sweep.
    """

    def __init__(self, spec: SweepSpec) -> None:
        self._enough = min(_ENOUGH, spec.num_trials or _ENOUGH)
        self._counts: Counter[str] = Counter()
        self._first: str | None = None
        self._others: set[int] = set()  # that ran when enough had raised, and may train yet

    def add(self, record: TrialRecord, sweep: SweepState) -> SpecError | None:
        """Learns how a trial ended; returns what is wrong where the first ones ended without the metric."""
        self._others.discard(record.number)
        if record.failure == "error" and not sweep.trained:
            self._counts["error"] += 1
            self._first = self._first or record.reason
            if self._counts["error"] == self._enough:
                self._others = {trial.number for trial in sweep.trials.values() if trial.status == "running"}
        elif record.failure == "no_metric" and all(trial.value is None for trial in sweep.trials.values()):
            self._counts["no_metric"] += 1
            if self._counts["no_metric"] >= self._enough:
                return SpecError([Problem(("metric",), record.reason or "")])
        return None

    def verdict(self, sweep: SweepState) -> str | None:
        """Returns a message that says why the sweep ends; None while it does not."""
        if self._counts["error"] < self._enough or self._others or sweep.trained:
            return None
        return f"its first trials raised before their first step: {self._first}"


def no_checkpoint(trains: Reference | Command, purpose: str) -> SpecError:
    """Returns an error that says that a recipe writes no checkpoints, which its scheduler needs."""
    message = (
        f"{reference_name(trains)} wrote no checkpoint {purpose}: use a Trainer, or say what to keep "
        "(trial.keep(model=model, optimizer=optimizer)), or save one before each epoch_end"
    )
    return SpecError([Problem(("recipe",), message)])
