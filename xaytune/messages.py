"""What a trial and the driver say to each other: frozen values, all that the two have in common.

From the driver to a trial: a :class:`Task` (the same for all trials of a sweep) and an :class:`Assignment` (the
trial's own) when it is started, and a :class:`StopRequest` at any time. From a trial to the driver, in this order:

=====================  ======================================================================================
:class:`Started`       its process runs
:class:`Refused`       no trial of the sweep can run; it comes in place of Started, or of everything after it
:class:`Length`        how long it is to train, where it is judged by that
:class:`Heartbeat`     training continues; any number of times
:class:`DecisionDue`   it has reached a decision point, and waits until the driver lets it train on
:class:`Ended`         the last
=====================  ======================================================================================
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from xaytune.errors import Problem
from xaytune.records.trial_record import Best
from xaytune.sweep.command import Command
from xaytune.sweep.objective import Objective
from xaytune.sweep.options import Reference, TrackerSpec
from xaytune.sweep.time_axis import DecisionPoints

# How many trials a process asks for at first that finds out how many to train at once.
FIRST_WIDTH = 8

EndStatus = Literal["completed", "stopped", "paused", "failed"]
FailureKind = Literal[
    "error",
    "no_metric",
    "infeasible",
    "skipped",
    "storage",
    "stalled",
    "lost",
    "lost_with_others",
    "shared",
    "node_lost",
    "preempted",
    "not_started",
]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is the same for all trials of a sweep.

    Attributes:
        sweep: The sweep's name.
        sweep_id: Unlike that of any other sweep.
        run_id: Unlike that of any other run of the sweep: the processes of a run on a node find each other by it.
        sweep_dir: The sweep's folder; where it is kept in a remote storage, each process has one of its own.
        remote: URI of the remote storage, if there is one.
        recipe: The recipe, or ``"module:function"``; or the command of a program.
        setup: ``"module:function"``, or the function, that runs once in each template process; None is none.
        callbacks: Called once a trial with ``(trial, config)``.
        trackers: Experiment trackers.
        tracker_settings: Variables of the environment that trackers are set up by.
        tracker_timeout_s: Seconds that a tracker is waited for.
        objective: What is optimised.
        seed: The sweep's seed.
        points: When trials are judged.
        import_paths: Folders that modules are looked for in, first to last.
        cpus: CPUs that a trial reserves: the threads it computes with.
        gpus: GPUs that a trial reserves; with 0 it sees none.
        heartbeat_s: Seconds between two heartbeats.
        finds_width: Whether processes that train several trials find out how many at once.
        threads_s: Seconds that threads are waited for which a recipe leaves, such as one that writes a checkpoint.
    """

    sweep: str
    sweep_id: str
    sweep_dir: str
    remote: str | None
    recipe: Reference | Command
    setup: Reference | None = None
    callbacks: tuple[Reference, ...] = ()
    trackers: tuple[TrackerSpec, ...] = ()
    tracker_settings: Mapping[str, str] = field(default_factory=dict)
    tracker_timeout_s: float = 30
    objective: Objective
    seed: int
    points: DecisionPoints
    import_paths: tuple[str, ...] = ()
    cpus: float = 1
    gpus: float = 0
    heartbeat_s: float = 2.0
    finds_width: bool = False
    threads_s: float = 30
    run_id: str = field(default_factory=lambda: secrets.token_hex(8))


@dataclass(frozen=True)
class StopRequest:
    """Why a trial is to stop, and the status it ends with; a ``paused`` one resumes later."""

    reason: str
    status: EndStatus = "stopped"


# Makes a trial that waits for a decision pause.
PAUSE = StopRequest("paused", "paused")


def standing(first: StopRequest | None, second: StopRequest | None) -> StopRequest | None:
    """Returns which of two requests to stop counts: the first, unless it only asks for a pause."""
    return second if second is not None and (first is None or first.status == "paused") else first


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """What is a trial's own.

    Attributes:
        trial: Its number.
        seed: Its seed.
        config: Its configuration.
        attempt: Times that it was started before.
        checkpoints: Steps of the checkpoints that the journal knows, which this attempt may resume from.
        last_judged: The newest time at which it was judged.
        judged_step: The step at which it was.
        taken_over_at: The step of another trial's checkpoint that it went on from; None if it never did.
        stop: Why it is to end at once, if it is to: that was decided while it was paused.
    """

    trial: int
    seed: int
    config: dict[str, Any]
    attempt: int = 0
    checkpoints: tuple[int, ...] = ()
    last_judged: int = 0
    judged_step: int = 0
    taken_over_at: int | None = None
    stop: StopRequest | None = None

    @property
    def sender(self) -> dict[str, Any]:
        """Fields of each message that this attempt sends."""
        return {"trial": self.trial, "attempt": self.attempt}


@dataclass(frozen=True, kw_only=True)
class Message:
    """Something that a trial says.

    Attributes:
        trial: Its number.
        attempt: Which attempt of it says so, from 0.
        notes: What whoever runs the sweep should know of its recipe; each is said once a sweep.
    """

    trial: int
    attempt: int = 0
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refused(Message):
    """No trial of the sweep can run: its recipe or callbacks are not there, or cannot be called."""

    problems: tuple[Problem, ...]


@dataclass(frozen=True, kw_only=True)
class Started(Message):
    """A process trains the trial.

    Attributes:
        node: Address of its node.
        node_id: Ray's id of it.
        pid: The process.
    """

    node: str = ""
    node_id: str = ""
    pid: int = 0


@dataclass(frozen=True, kw_only=True)
class Length(Message):
    """How long the trial is to train.

    Attributes:
        length: Epochs or steps, as ``train_start`` says; 0 where it does not.
    """

    length: int


@dataclass(frozen=True, kw_only=True)
class Progress(Message):
    """How far a trial is, and what it has trained since its last message.

    Attributes:
        epoch: Epochs finished.
        global_step: Optimizer steps done.
        metrics: Latest numbers.
        best: Where the sweep's metric was best so far.
        seconds: Seconds that this attempt has trained.
        history: Packed rows of the steps since the last message.
        checkpoints: Paths (within the sweep's folder, as all here) of the checkpoints written since the last
            message, by global step. What was trained up to them has been reported too.
        discarded: Paths of checkpoints that are no longer needed, by global step.
        damaged: Paths of checkpoints that cannot be used, by global step.
        resumed_at: The step that the attempt began at, once it did: what was reported of later ones before, by
            another attempt, no longer counts. One less where that step is evaluated again, and its row with it.
    """

    epoch: int = 0
    global_step: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    best: Best | None = None
    seconds: float = 0.0
    history: bytes | None = field(default=None, repr=False)  # Tune writes each result as text, which nobody reads
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    discarded: Mapping[int, str] = field(default_factory=dict)
    damaged: Mapping[int, str] = field(default_factory=dict)
    resumed_at: int | None = None


def nothing_new(last: Progress) -> dict[str, Any]:
    """Returns the fields of a message that says again what the last one said, and nothing new."""
    known = {field.name: getattr(last, field.name) for field in fields(Progress)}
    told: dict[str, Any] = {"checkpoints": {}, "discarded": {}, "damaged": {}, "notes": ()}
    return {**known, **told, "history": None, "resumed_at": None}


class Heartbeat(Progress):
    """Training continues."""


@dataclass(frozen=True, kw_only=True)
class DecisionDue(Progress):
    """The trial waits for a decision.

    Attributes:
        due: Whether this is a decision point; a metric that is not finite is reported at any time.
    """

    due: bool = True


@dataclass(frozen=True)
class Failure:
    """Why a trial failed.

    Attributes:
        kind: What kind of failure; ``no_metric`` is a recipe that finished and never reported the sweep's metric,
            ``skipped`` one that raised :class:`~xaytune.errors.SkipTrial`, which is no failure to anybody but the
            searcher, and ``storage`` is not the trial's own.
        error: The error in a line.
        traceback: The traceback, or what the process printed last.
    """

    kind: FailureKind
    error: str
    traceback: str = ""


@dataclass(frozen=True)
class Start:
    """What came before the first step.

    Attributes:
        seconds: How long code of the user's took.
        where: The function of the user's that most of it was spent in; empty where there was none.
    """

    seconds: float
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended(Progress):
    """The trial has ended, or pauses.

    Attributes:
        status: How it ended.
        reason: Why, where there is more to say than that it was finished.
        due: Whether it ended by itself at a decision point.
        failure: Why it failed, if it did.
        start: What came before it trained, where that is known.
        fused: With how many trials at once its steps were taken, in the mean of those that were; 0: none was.
    """

    status: EndStatus
    reason: str | None = None
    due: bool = False
    failure: Failure | None = None
    start: Start | None = None
    fused: int = 0
