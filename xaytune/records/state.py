"""The state of a sweep, folded from its journal event by event: while it runs, and after."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterable
from typing import Any

from xaytune.records.driver_process import DriverProcess
from xaytune.records.journal import Event
from xaytune.records.trial_record import (
    TRIAL_STATUSES,
    Best,
    DecisionRecord,
    ResultRecord,
    TrialRecord,
)
from xaytune.records.uptime import Uptime
from xaytune.sweep.objective import Objective
from xaytune.sweep.time_axis import TimeAxis

# The node of trials that are simulated, and not trained.
SIMULATED = "simulated"

# Events by which a trial tells how far it is.
_TELLING = ("result", "progress", "pause", "end")


class SweepState:
    """The state of a sweep, as far as its events tell it.

    Args:
        root: The sweep's folder or URI, which the paths in its journal begin at.
        events: Oldest first.
        address: What commands find it by, where that is more than the root.

    Attributes:
        root: The sweep's folder or URI.
        address: What commands find it by.
        name: The sweep's name.
        id: What tells it from all others, also of its name.
        spec: The spec, as plain data.
        num_trials: Trials of the whole sweep; None: as many as its budget lets.
        state: ``running``, ``completed``, ``interrupted``, ``failed``; or ``lost`` if its driver is gone.
        reason: Why the sweep failed or was interrupted.
        started: Unix seconds.
        ended: Unix seconds.
        folder: Where it was run from.
        simulated: Whether its trials were simulated, and not trained.
        driver: The process that runs it, or ran it last.
        fell_back: Why the search method decides by cheaper means, if it does.
        notes: What whoever runs it should know of it, such as why trials are not fused.
        epochs: Epochs finished by all trials together.
        trials: By number.
    """

    def __init__(self, root: str, events: Iterable[Event] = (), address: str | None = None) -> None:
        self.root, self.address = root, address or root
        self.name = self.id = self.folder = ""
        self.spec: dict[str, Any] = {}
        self.num_trials: int | None = 0
        self.state = "running"
        self.reason: str | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.fell_back: str | None = None
        self.notes: list[str] = []
        self.epochs = 0
        self.simulated = False
        self._reported_max_t: int | None = None
        self.trials: dict[int, TrialRecord] = {}
        self.driver: DriverProcess | None = None
        self._uptime = Uptime()
        for event in events:
            self.apply(event)

    def notice_loss(self, is_written: bool | None) -> None:
        """Looks whether the process that runs the sweep is still there.

        Args:
            is_written: Whether a process of this machine writes the journal; None if that is not known. In a
                container, an id that the process had in another one is that of another process.
        """
        driver = self.driver
        if driver is None or is_written:
            return
        if not driver.alive or (is_written is False and not driver.elsewhere):
            self.driver_gone()

    def driver_gone(self) -> None:
        """Takes note that the process that runs the sweep is not there any more."""
        if self.state == "running":
            self.state, self.reason = "lost", "the process that ran it is gone"

    @property
    def runs_here(self) -> bool:
        """Whether another process of this machine runs it."""
        driver = self.driver
        here = driver is not None and not driver.elsewhere and driver.pid != os.getpid()
        return here and self.state == "running"

    @property
    def may_run_on(self) -> str | None:
        """The other machine that ran it last, and may still; None if there is none."""
        driver = self.driver
        return driver.host if driver is not None and driver.elsewhere and self.state == "running" else None

    def apply(self, event: Event) -> None:
        """Takes in the next event; one of a kind that this version does not know changes nothing."""
        self._uptime.take(event)
        apply = getattr(self, f"_on_{event['event']}", None)
        if apply is not None:
            apply(event)
        self._count_seconds(event)

    def _count_seconds(self, event: Event) -> None:
        """Takes in how long a trial has trained."""
        trial = self.trials.get(event.get("trial", -1))
        if trial is None:
            return
        # Of other events it is not known whether the trial trained until then, or waited.
        if ("epoch" in event and event["event"] in _TELLING) or event.get("retried"):
            trial.add_training_time(self._uptime.now, event.get("seconds"))
        if event["event"] in ("end", "pause", "exploit") or event.get("retried"):
            trial.stop_clock()

    @property
    def objective(self) -> Objective:
        """What the sweep optimises."""
        return Objective(self.spec["metric"], self.spec["mode"])

    @property
    def axis(self) -> TimeAxis:
        """What the age of its trials is counted in."""
        return TimeAxis(self.spec.get("scheduler", {}).get("time_attr", "epoch"))

    @property
    def max_t(self) -> int | None:
        """When a trial has trained in full, as the scheduler's options say, or else the first trial."""
        given: int | None = self.spec.get("scheduler", {}).get("max_t")
        return given or self._reported_max_t

    @property
    def latest(self) -> float:
        """Unix seconds of the newest event."""
        return self._uptime.latest

    @property
    def ran_s(self) -> float:
        """Seconds that the sweep had run at its newest event, without the time between its resumes."""
        return self._uptime.now

    def running_s(self, now: float) -> float:
        """Returns the seconds that a running sweep has run, at so many unix seconds."""
        return self.ran_s + max(0.0, now - self.latest)

    @property
    def best(self) -> TrialRecord | None:
        """The trial that did not fail whose metric reached the best value; the first of equals."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[TrialRecord]:
        """Returns the trials that reached a value and did not fail, best first; of equals the first."""
        score, trials = self.objective.score, list(self.trials.values())
        reached = [(-score(v), trial.number, trial) for trial in trials if (v := trial.counted_value) is not None]
        return [trial for _, _, trial in sorted(reached)]

    @property
    def why_no_best(self) -> str:
        """Why there is no best trial, where there is none: all failed, or none has reported the metric."""
        metric, trials = self.spec["metric"], list(self.trials.values())
        if not trials:
            return "no trial was started"
        failed = [trial for trial in trials if trial.status == "failed"]
        first = f"trial {failed[0].number}: {failed[0].reason}" if failed else ""
        if len(failed) == len(trials):
            count = "the only trial" if len(trials) == 1 else f"all {len(trials)} trials"
            return f"{count} failed; {first}"
        others = f"; {len(failed)} failed, {first}" if failed else ""
        return f"no trial has reported a finite {metric!r}{'' if self.state != 'running' else ' yet'}{others}"

    @property
    def done(self) -> bool:
        """Whether nothing is left to do of the sweep."""
        return self.state == "completed" and self.all_finished

    @property
    def all_finished(self) -> bool:
        """Whether all its trials have ended, also those to come; one whose process never began is tried again."""
        trials = list(self.trials.values())
        finished = sum(trial.finished and trial.failure != "not_started" for trial in trials)
        wanted = len(self.trials) if self.num_trials is None else self.num_trials
        return finished == wanted

    def counts(self) -> dict[str, int]:
        """Trials by status; those that were not suggested yet are pending."""
        counted = Counter(trial.status for trial in list(self.trials.values()))
        counted["pending"] += max(0, (self.num_trials or 0) - len(self.trials))
        return {status: counted[status] for status in TRIAL_STATUSES}

    @property
    def trained(self) -> bool:
        """Whether any trial has trained a step."""
        return any(trial.global_step > 0 for trial in self.trials.values())

    def progress(
        self, trial: int, epoch: int, global_step: int, metrics: dict[str, float], best: Best | None
    ) -> None:
        """Takes in how far a running trial is: for who watches, not part of the record."""
        record = self.trials[trial]
        self.epochs += epoch - record.epoch
        record.epoch, record.global_step, record.metrics = epoch, global_step, metrics
        record.reached = max(record.reached, global_step)
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
        self.driver = DriverProcess(event["host"], event["pid"], event["t"])
        self.started, self.ended = event["t"] if self.started is None else self.started, None

    def _on_max_t(self, event: Event) -> None:
        self._reported_max_t = event["max_t"]

    def _on_fall_back(self, event: Event) -> None:
        self.fell_back = event["reason"]

    def _on_note(self, event: Event) -> None:
        if event["text"] not in self.notes:  # one that was resumed may be told it again
            self.notes.append(event["text"])

    def _on_trial(self, event: Event) -> None:
        self.trials[event["trial"]] = TrialRecord(event["trial"], _interned(event["config"]), event["seed"])

    def _on_start(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.start(event.get("attempt", 0), self.ran_s)
        trial.node, trial.pid = sys.intern(event["node"]), event["pid"]
        self.simulated = trial.node == SIMULATED
        trial.started = event["t"] if trial.started is None else trial.started  # virtual time begins at 0
        trial.reason = trial.error = trial.failure = None
        if trial.stop_status == "paused":
            trial.stop_reason = trial.stop_status = None

    def _on_result(self, event: Event) -> None:
        result = ResultRecord(event["epoch"], event["global_step"], event["value"], event.get("due", True))
        self.trials[event["trial"]].results.append(result)
        self._update_position(event)

    def _on_verdict(self, event: Event) -> None:
        decision = DecisionRecord(
            event["t"], event["epoch"], event["global_step"], event["decision"], event.get("cutoff")
        )
        self.trials[event["trial"]].decisions.append(decision)

    def _update_position(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        metrics, best = _interned(event["metrics"]), None
        if event["best"]:
            there = event["best"]["metrics"]
            # Where the newest step is the best one, its metrics are kept once.
            best = Best(**{**event["best"], "metrics": metrics if there == metrics else _interned(there)})
        self.progress(trial.number, event["epoch"], event["global_step"], metrics, best)
        for step, path in event.get("checkpoints", {}).items():
            trial.add_checkpoint(int(step), f"{self.root}/{path}")

    _on_progress = _update_position

    def _on_stop(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.stop_reason, trial.stop_status = event["reason"], event.get("status", "stopped")

    def _on_checkpoint(self, event: Event) -> None:
        self.trials[event["trial"]].add_checkpoint(event["global_step"], f"{self.root}/{event['path']}")

    def _on_damaged(self, event: Event) -> None:
        self.trials[event["trial"]].drop_damaged(event["global_step"])

    def _on_deleted(self, event: Event) -> None:
        self.trials[event["trial"]].checkpoints.pop(event["global_step"], None)

    def _on_failure(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.error, trial.failure = event["traceback"], event.get("kind", "error")
        trial.lost += trial.failure == "lost"
        trial.reached = max(trial.reached, event.get("global_step", 0))
        if event.get("retried"):
            trial.status, trial.reason = "pending", event["error"]

    def _on_reopen(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.status, trial.ended, trial.lost = "pending", None, 0
        trial.reason = trial.error = trial.failure = None

    def _on_offer(self, event: Event) -> None:
        self.trials[event["trial"]].donor_checkpoint = event["path"]

    def _on_exploit(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.take_over(event["global_step"], _interned(event["config"]))
        trial.checkpoints = {}
        trial.add_checkpoint(event["global_step"], f"{self.root}/{event['path']}")
        if trial.best is None:  # it came after the step that it goes on from
            self._take_best_result(trial)

    def _take_best_result(self, trial: TrialRecord) -> None:
        """Takes the best of what a trial was judged by as its best value."""
        metric, score = self.spec["metric"], self.objective.score
        known = [(result.value, result) for result in trial.results if result.value is not None]
        if known:
            value, at = max(known, key=lambda pair: score(pair[0]))
            trial.best = Best(value, at.epoch, at.global_step, {metric: value})

    def _on_pause(self, event: Event) -> None:
        trial = self.trials[event["trial"]]
        trial.status, trial.reason = "paused", event["reason"]
        if "epoch" in event:
            self._update_position(event)

    def _on_end(self, event: Event) -> None:
        self._update_position(event)
        trial = self.trials[event["trial"]]
        trial.status, trial.reason, trial.ended = event["status"], event["reason"], event["t"]
        trial.fused = event.get("fused", 0)
        if trial.failure == "skipped":
            trial.best = None


def _interned(names: dict[str, Any]) -> dict[str, Any]:
    """A mapping whose keys take memory once, for all trials together."""
    return {sys.intern(name): value for name, value in names.items()}
