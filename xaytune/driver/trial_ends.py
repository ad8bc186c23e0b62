"""How trials end, as it is recorded: ends that they report, and those of processes that are gone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from xaytune.driver.attempts import Attempt
from xaytune.driver.failures import LOSSES
from xaytune.errors import Problem, nearest
from xaytune.messages import Ended, Failure, FailureKind, Progress, StopRequest, nothing_new
from xaytune.records.trial_record import TrialRecord
from xaytune.sweep.command import Command
from xaytune.sweep.options import Reference, reference_name
from xaytune.sweep.spec import SweepSpec


def settled(message: Ended, record: TrialRecord, spec: SweepSpec) -> Ended:
    """Returns an end as it is to be recorded."""
    failure = message.failure
    if message.global_step == 0 < record.global_step:  # this attempt ended before it was where the trial was
        message = dataclasses.replace(message, **_reached(record))
    if failure is not None and failure.kind == "storage":  # not the trial's own: it resumes when there is room
        return dataclasses.replace(message, status="paused", failure=None)
    if message.status == "completed" and message.reason is None and spec.metric not in message.metrics:
        problem = never_reported(spec.trains, spec.metric, message.metrics).message
        return dataclasses.replace(
            message, status="failed", reason=problem, failure=Failure("no_metric", problem), due=False
        )
    return dataclasses.replace(message, due=message.due and message.status == "completed")


def never_reported(recipe: Reference | Command, metric: str, metrics: Mapping[str, float]) -> Problem:
    """Returns the problem that a trial was finished without the metric of its sweep.

    Args:
        recipe: What trains.
        metric: The sweep's metric.
        metrics: What the trial did report.
    """
    reported = f"; {nearest(metric, metrics)}" if metrics else ": it reported no metric at all"
    if not metrics and isinstance(recipe, Command):
        reported += (
            f"; a Python program calls xaytune.current_trial().report({metric}=value), any other writes lines of "
            "JSON to the file descriptor that XAYTUNE_FD names"
        )
    return Problem(("metric",), f"{reference_name(recipe)} never reported {metric!r}{reported}")


def last_words(
    attempt: Attempt, record: TrialRecord, kind: FailureKind, error: str, pausing: StopRequest | None
) -> Ended:
    """Returns the end of a trial whose process is gone, and that is not restarted.

    Args:
        attempt: The attempt that is gone.
        record: What is known of the trial.
        kind: How it was lost.
        error: What is known of that.
        pausing: What trials are asked, where the sweep is being interrupted.
    """
    latest = attempt.latest or Progress(trial=record.number, **_reached(record))
    position = nothing_new(latest)
    if attempt.killed is not None:
        outcome = attempt.killed
        failure = Failure("stalled", outcome.reason, error) if outcome.status == "failed" else None
        return Ended(**position, status=outcome.status, reason=outcome.reason, failure=failure)
    if pausing is not None:
        return Ended(**position, status="paused", reason=LOSSES[kind])
    times = f", {record.lost + 1} times" if record.lost else ""
    reason = f"{LOSSES[kind]}{times}"
    return Ended(**position, status="failed", reason=reason, failure=Failure(kind, reason, error))


def _reached(record: TrialRecord) -> dict[str, Any]:
    names = ("epoch", "global_step", "metrics", "best")
    return {name: getattr(record, name) for name in names}
