"""The state of a sweep, folded from its journal event by event: while it runs, and after."""

from __future__ import annotations

import os
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from xaytune.records.journal import Event

__all__ = ["TRIAL_STATUSES", "Best", "SweepState", "TrialRecord", "TrialStatus"]

TrialStatus = Literal["pending", "running", "paused", "completed", "stopped", "failed"]
TRIAL_STATUSES: tuple[TrialStatus, ...] = ("pending", "running", "paused", "completed", "stopped", "failed")


@dataclass(frozen=True)
class Best:
    """Where a trial's metric was best: its value there, and all metrics of that step."""

    value: float
    epoch: int
    global_step: int
    metrics: dict[str, float]


@dataclass
class TrialRecord:
    """What is known of a trial.

    Attributes:
        number: From 0, in the order of suggestion.
        config: What the recipe got.
        seed: What its random generators began from.
        status: Where it is in its life.
        epoch: Epochs finished.
        global_step: Optimizer steps done.
        metrics: Latest metrics the driver was told of.
        best: Where the metric was best; None while it was never reported.
        stop_reason: Why it was told to stop, in words and numbers; None if it was not.
        stop_status: The status it was to end with.
        reason: Why it ended as it did, where there is more to say than that it was finished.
        checkpoints: Paths by global step.
        offer: Path of the checkpoint that others may take over, within the sweep's folder.
        error: Traceback of its failure.
        failure: Kind of its failure, as the journal tells them apart.
        attempts: Times that it was started.
        lost: Times that it lost its process, by no fault of the node.
        started: Unix seconds.
        ended: Unix seconds.
        results: Its ``result`` events: what it was worth at each decision point.
        verdicts: Its ``verdict`` events: what followed, and why.
    """

    number: int
    config: dict[str, Any]
    seed: int
    status: TrialStatus = "pending"
    node: str | None = None
    pid: int | None = None
    epoch: int = 0
    global_step: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    best: Best | None = None
    stop_reason: str | None = None
    stop_status: TrialStatus | None = None
    reason: str | None = None
    checkpoints: dict[int, str] = field(default_factory=dict)
    offer: str | None = None
    error: str | None = None
    failure: str | None = None
    attempts: int = 0
    lost: int = 0
    started: float | None = None
    ended: float | None = None
    results: list[Event] = field(default_factory=list)
    verdicts: list[Event] = field(default_factory=list)

    @property
    def value(self) -> float | None:
        """The best value that the sweep's metric reached."""
        return self.best.value if self.best is not None else None

    @property
    def checkpoint_step(self) -> int | None:
        """Step of the checkpoint to use: the best step if it has one, else the newest."""
        if self.best is not None and self.best.global_step in self.checkpoints:
            return self.best.global_step
        return max(self.checkpoints, default=None)

    @property
    def checkpoint(self) -> str | None:
        """Path of that checkpoint."""
        return self.checkpoints[self.checkpoint_step] if self.checkpoint_step is not None else None

    def to_dict(self) -> dict[str, Any]:
        """Returns what makes the trial worth choosing, as data that JSON can hold."""
        best = self.best
        return {
            "trial": self.number,
            "status": self.status,
            "value": self.value,
            "epoch": best.epoch if best is not None else None,
            "global_step": best.global_step if best is not None else None,
            "config": self.config,
            "metrics": best.metrics if best is not None else {},
            "checkpoint": self.checkpoint,
            "checkpoint_step": self.checkpoint_step,
            "stop_reason": self.stop_reason,
        }

    @property
    def finished(self) -> bool:
        """Whether the trial has ended, in whatever way."""
        return self.status in ("completed", "stopped", "failed")


class SweepState:
    """The state of a sweep, as far as its events tell it.

    Args:
        root: The sweep's folder or URI, which the paths in its journal begin at.
        events: Oldest first.

    Attributes:
        root: The sweep's folder or URI.
        name: The sweep's name.
        id: What tells it from all others, also of its name.
        spec: The spec, as plain data.
        num_trials: Trials of the whole sweep.
        state: ``running``, ``completed``, ``interrupted``, ``failed``; or ``lost`` if its driver is gone.
        reason: Why the sweep failed or was interrupted.
        folder: Where it was run from.
        epochs: Epochs finished by all trials together.
        trials: By number.
        latest: Unix seconds of the newest event.
    """

    def __init__(self, root: str, events: Iterable[Event] = ()) -> None:
        self.root = root
        self.name = self.id = ""
        self.spec: dict[str, Any] = {}
        self.num_trials = 0
        self.state = "running"
        self.reason: str | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.folder = ""
        self.epochs = 0
        self.trials: dict[int, TrialRecord] = {}
        self._driver: tuple[str, int] | None = None
        self.latest = 0.0  # time of the newest event
        self._resumed: float | None = None  # when it was begun or resumed last
        self._ran_s = 0.0  # before that
        for event in events:
            self.apply(event)
        self.notice_loss()

    def notice_loss(self) -> None:
        """Looks whether the process that runs the sweep is still there."""
        if self._driver is not None and not _alive(*self._driver):
            self.driver_gone()

    def driver_gone(self) -> None:
        """Takes note that the process that runs the sweep is not there any more."""
        if self.state == "running":
            self.state, self.reason = "lost", "the process that ran it is gone"

    def apply(self, event: Event) -> None:
        """Takes in the next event; one of a kind that this version does not know changes nothing."""
        apply = getattr(self, f"_on_{event['event']}", None)
        if apply is not None:
            apply(event)
        self.latest = event["t"]

    @property
    def maximize(self) -> bool:
        """Whether a larger value of the metric is better."""
        return bool(self.spec["mode"] == "max")

    @property
    def best(self) -> TrialRecord | None:
        """The trial that did not fail whose metric reached the best value; the first of equals."""
        candidates = (trial for trial in list(self.trials.values()) if trial.status != "failed")
        reached = [trial for trial in candidates if trial.value is not None]
        sign = -1 if self.maximize else 1
        return min(reached, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do of the sweep."""
        return self.state == "completed" and sum(t.finished for t in self.trials.values()) == self.num_trials

    def counts(self) -> dict[str, int]:
        """Trials by status; those that were not suggested yet are pending."""
        counted = Counter(trial.status for trial in list(self.trials.values()))
        counted["pending"] += max(0, self.num_trials - len(self.trials))
        return {status: counted[status] for status in TRIAL_STATUSES}

    @property
    def trained(self) -> bool:
        """Whether any trial has trained a step."""
        return any(trial.global_step > 0 for trial in self.trials.values())

    def running_s(self, now: float) -> float:
        """Returns the seconds that a running sweep has run, without the time between its resumes."""
        return self._ran_s + (now - self._resumed if self._resumed is not None else 0.0)

    def progress(
        self, trial: int, epoch: int, global_step: int, metrics: dict[str, float], best: Best | None
    ) -> None:
        """Takes in how far a running trial is: for who watches, not part of the record."""
        record = self.trials[trial]
        self.epochs += epoch - record.epoch
        record.epoch, record.global_step, record.metrics = epoch, global_step, metrics
        record.best = best or record.best

    def to_dict(self) -> dict[str, Any]:
        """Returns how far the sweep is, as data that JSON can hold."""
        best = self.best
        return {
            "sweep": self.name,
            "state": self.state,
            "reason": self.reason,
            "trials": self.counts(),
            "best": best.to_dict() if best is not None else None,
        }

    def _on_sweep(self, event: Event) -> None:
        self.state, self.reason = event["state"], event.get("reason")
        if self.state != "running":
            self.ended = event["t"]
            return
        self.name, self.spec, self.num_trials = event["name"], event["spec"], event["num_trials"]
        self.folder, self.id = event.get("folder", ""), event.get("id", "")
        self._driver = event["host"], event["pid"]
        if self._resumed is not None:
            self._ran_s += self.latest - self._resumed
        self._resumed = event["t"]
        self.started, self.ended = self.started or event["t"], None

    def _on_trial(self, event: Event) -> None:
        self.trials[event["trial"]] = TrialRecord(event["trial"], event["config"], event["seed"])

    def _on_start(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.status, trial.node, trial.pid = "running", event["node"], event["pid"]
        trial.attempts = event.get("attempt", 0) + 1
        trial.started = trial.started or event["t"]
        trial.reason = trial.error = trial.failure = None
        if trial.stop_status == "paused":
            trial.stop_reason = trial.stop_status = None

    def _on_result(self, event: Event) -> None:
        self.trials[event["trial"]].results.append(event)
        self._update_position(event)

    def _on_verdict(self, event: Event) -> None:
        self.trials[event["trial"]].verdicts.append(event)

    def _update_position(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        best = Best(**event["best"]) if event["best"] is not None else None
        self.progress(trial.number, event["epoch"], event["global_step"], event["metrics"], best)
        for step, path in event.get("checkpoints", {}).items():
            trial.checkpoints[int(step)] = f"{self.root}/{path}"

    _on_progress = _update_position

    def _on_stop(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.stop_reason, trial.stop_status = event["reason"], event.get("status", "stopped")

    def _on_checkpoint(self, event: Event) -> None:
        self.trials[event["trial"]].checkpoints[event["global_step"]] = f"{self.root}/{event['path']}"

    def _on_damaged(self, event: Event) -> None:
        self.trials[event["trial"]].checkpoints.pop(event["global_step"], None)

    _on_deleted = _on_damaged

    def _on_failure(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.error, trial.failure = event["traceback"], event.get("kind", "error")
        trial.lost += trial.failure == "lost"
        if event.get("retried"):
            trial.status, trial.reason = "pending", event["error"]

    def _on_reopen(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.status, trial.ended = "pending", None
        trial.reason = trial.error = trial.failure = None

    def _on_offer(self, event: Event) -> None:
        self.trials[event["trial"]].offer = event["path"]

    def _on_exploit(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.config = event["config"]
        trial.checkpoints = {event["global_step"]: f"{self.root}/{event['path']}"}
        trial.results = [result for result in trial.results if result["global_step"] <= event["global_step"]]

    def _on_pause(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.status, trial.reason = "paused", event["reason"]
        if "epoch" in event:
            self._update_position(event)

    def _on_end(self, event: Event) -> None:
        self._update_position(event)
        trial = self.trials[event["trial"]]
        trial.status, trial.reason, trial.ended = event["status"], event["reason"], event["t"]


def _alive(host: str, pid: int) -> bool:
    """Whether a process runs; one on another host is taken to."""
    if host != socket.gethostname():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
