"""What a trial tells the driver, and what the driver gives a trial."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from xaytune.records.place import Place
from xaytune.records.state import Best
from xaytune.sweep.errors import Problem
from xaytune.sweep.spec import Reference, SweepSpec, TrackerName
from xaytune.trial.trackers.tracking import settings

__all__ = ["Assignment", "DecisionPoints", "Failure", "Report", "StopRequest", "Task", "Verdict"]


Failure = Literal["error", "infeasible", "storage", "stalled", "lost", "node lost", "preempted", "not begun"]


@dataclass(frozen=True)
class DecisionPoints:
    """When a trial is judged.

    Attributes:
        time_attr: What time is counted in: finished epochs, or optimizer steps.
        milestones: The times at which the scheduler judges, ascending; None judges every evaluation.
        every: Instead of milestones: the time between two judgements.
        pausing: Whether the scheduler may pause a trial where it judges it: it is saved there.
    """

    time_attr: Literal["epoch", "global_step"]
    milestones: tuple[int, ...] | None = None
    every: int | None = None
    pausing: bool = False

    @property
    def at_every_evaluation(self) -> bool:
        """Whether every evaluation is judged."""
        return self.milestones is None and self.every is None

    def after(self, time: int) -> float:
        """Returns the next time that is judged after one; infinity if there is none."""
        if self.every is not None:
            return (time // self.every + 1) * self.every
        return next((milestone for milestone in self.milestones or () if milestone > time), math.inf)


@dataclass(frozen=True)
class Task:
    """What is the same for all trials of a sweep.

    Attributes:
        sweep: The sweep's name.
        sweep_id: Unlike that of any other sweep.
        sweep_dir: The sweep's folder; where it is kept in a remote storage, each process has one of its own.
        remote: URI of the remote storage, if there is one.
    """

    sweep: str
    sweep_id: str
    recipe: Reference
    callbacks: tuple[Reference, ...]
    trackers: tuple[TrackerName, ...]
    tracker_settings: Mapping[str, str]
    metric: str
    maximize: bool
    seed: int
    points: DecisionPoints
    sweep_dir: str
    remote: str | None
    import_paths: tuple[str, ...]
    cpus: float
    heartbeat_s: float

    @classmethod
    def of(
        cls,
        spec: SweepSpec,
        points: DecisionPoints,
        place: Place,
        sweep_id: str,
        heartbeat_s: float,
        import_paths: Iterable[str] = (),
    ) -> Task:
        """Returns the task of a sweep: modules are found in the current folder first, then in `import_paths`."""
        return cls(
            sweep=place.folder.name,
            sweep_id=sweep_id,
            recipe=spec.recipe,
            callbacks=tuple(spec.callbacks),
            trackers=tuple(spec.trackers),
            tracker_settings=settings(spec.trackers),
            metric=spec.metric,
            maximize=spec.mode == "max",
            seed=spec.search.seed,
            points=points,
            sweep_dir=str(place.folder.absolute()),
            remote=place.remote.uri if place.remote is not None else None,
            import_paths=(os.getcwd(), *import_paths),
            cpus=spec.bundles[0].get("cpu", 1),
            heartbeat_s=heartbeat_s,
        )


@dataclass(frozen=True)
class StopRequest:
    """Why a trial is to stop, and the status it ends with; a ``paused`` one is continued later."""

    reason: str
    status: Literal["completed", "stopped", "paused", "failed"] = "stopped"


@dataclass(frozen=True)
class Verdict:
    """What a judge says of a trial at a decision point.

    Attributes:
        reason: Why, in words and numbers.
        request: What is asked of the trial; None if it goes on.
        cutoff: The value that it was compared with; None where there was none.
        compared: How many other trials that is of.
    """

    reason: str
    request: StopRequest | None = None
    cutoff: float | None = None
    compared: int = 0

    @property
    def decision(self) -> Literal["continue", "stop", "pause"]:
        """What happens to the trial."""
        if self.request is None:
            return "continue"
        return "pause" if self.request.status == "paused" else "stop"


@dataclass(frozen=True)
class Assignment:
    """What is a trial's own.

    Attributes:
        number: Its number.
        seed: Its seed.
        config: Its configuration.
        attempt: Times that it was begun before.
        checkpoints: Steps of the checkpoints that the journal knows, which this attempt may resume from.
        judged_until: The newest time at which it was judged.
        stop: Why it is to end at once, if it is to: it was judged while it was paused.
    """

    number: int
    seed: int
    config: dict[str, Any]
    attempt: int = 0
    checkpoints: tuple[int, ...] = ()
    judged_until: int = 0
    stop: StopRequest | None = None


@dataclass
class Report:
    """What a trial tells the driver.

    Attributes:
        kind: ``start`` (a process says where it is), ``heartbeat`` (training goes on), ``decision`` (training
            waits for a verdict), ``end``.
        due: Whether the scheduler judges here; a metric that is not finite is reported at any time.
        node: Address of the trial's node.
        node_id: Ray's id of it.
        pid: The trial's process.
        epoch: Epochs finished.
        global_step: Optimizer steps done.
        metrics: Latest numbers.
        best: Where the sweep's metric was best so far.
        history: Packed rows of the steps since the last report.
        checkpoints: Paths (within the sweep's folder, as all here) of the checkpoints written since the last
            report, by global step. What was trained up to them has been reported too.
        discarded: Paths of checkpoints that are no longer needed, by global step.
        damaged: Paths of checkpoints that cannot be used, by global step.
        begins_at: The step that the attempt began at, once it did: what was reported of later ones before, by
            another attempt, no longer counts.
        status: How it ended, in an ``end``.
        reason: Why it ended, where there is more to say than that it was finished.
        error: Traceback, in an ``end`` that failed.
        failure: What kind of failure that was; ``storage`` is none of the trial's.
        clean: Whether the process is fit for another trial.
        problems: Why no trial of the sweep can run: its recipe or callbacks are not there, or cannot be called.
    """

    kind: Literal["start", "heartbeat", "decision", "end"]
    due: bool = False
    node: str = ""
    node_id: str = ""
    pid: int = 0
    epoch: int = 0
    global_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    history: bytes | None = None
    checkpoints: dict[int, str] = field(default_factory=dict)
    discarded: dict[int, str] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    begins_at: int | None = None
    status: Literal["completed", "stopped", "paused", "failed"] | None = None
    reason: str | None = None
    error: str | None = None
    failure: Failure | None = None
    clean: bool = True
    problems: list[Problem] = field(default_factory=list)
