"""The cooperative scheduler: a verdict to stop becomes a request that the trial follows through its own loop."""

from __future__ import annotations

import socket
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from xaytune.driver.recorder import Recorder
from xaytune.ray_tune.judge import Exploit, Judge
from xaytune.ray_tune.replay import Replayed, next_attempt
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import Assignment, Failure, Report, StopRequest

__all__ = ["CooperativeScheduler", "assignment_of"]


def actor_of(trial: TuneTrial) -> ActorHandle[Any]:
    """Returns the actor that a running trial has."""
    actor = trial.temporary_state.ray_actor
    if actor is None:
        raise RuntimeError(f"{trial} has no actor")
    return actor


def assignment_of(trial: TuneTrial) -> Assignment:
    """Returns what a trial of Tune was given to do."""
    assignment: Assignment = trial.config["assignment"]
    return assignment


_LOST = {
    "lost": "its process was lost",
    "node lost": "its node was lost",
    "preempted": "its node was taken away",
    "not begun": "its process was lost before it began",
}
# It is none of the trial's faults, but the next process may fare no better.
_MOST_NOT_BEGUN = 3


def _kind(error: Exception, node: str) -> Failure:
    """Tells whose fault it was that a process was lost."""
    if getattr(error, "preempted", False):
        return "preempted"
    return "lost" if any(known["NodeID"] == node and _answers(known) for known in ray.nodes()) else "node lost"


def _answers(node: Mapping[str, Any]) -> bool:
    """Whether a node is there; Ray itself notices only after several seconds that one is not."""
    if not node["Alive"]:
        return False
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=2).close()
    except OSError:
        return False
    return True


class CooperativeScheduler(TrialScheduler):
    """Wraps a judge for Ray Tune.

    Tune is always told to continue. Where the judge says stop, the trial's actor is asked to: calls to an
    actor from one caller run in order, so the request is there before the next ``train()`` begins, and no
    further step is trained. The trial ends with a result that is ``done``.

    Args:
        judge: Decides which trials stop.
        recorder: Takes down what happens.
        spec: The sweep.
        heartbeat_s: Seconds that a request may wait for the actor to listen.
        replayed: What is left of a sweep that is resumed; the judge has seen these trials already.
    """

    def __init__(
        self, judge: Judge, recorder: Recorder, spec: SweepSpec, heartbeat_s: float, replayed: Replayed
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge
        self._recorder = recorder
        self._spec = spec
        self._heartbeat_s = heartbeat_s
        self._winding_down: StopRequest | None = None
        self._judged = set(replayed.unfinished.values())  # trials that the judge knows
        self._verdicts = replayed.verdicts  # of trials that must be told once more
        self._to_end: deque[TuneTrial] = deque()  # paused trials that were judged since
        self._over: set[TuneTrial] = set()  # trials that have ended, or are not to go on in this run
        self._stopping: dict[TuneTrial, tuple[StopRequest, float]] = {}  # what was asked, and the deadline
        self._killed: dict[TuneTrial, StopRequest] = {}
        self._latest: dict[TuneTrial, Report] = {}
        self._moved: dict[TuneTrial, tuple[int, float]] = {}  # its newest step, and when it was made
        self._not_begun: Counter[TuneTrial] = Counter()
        self._nodes: dict[TuneTrial, str] = {}
        self._places: dict[Any, tuple[str, int]] = {}  # node and process of an actor, by its id

    def started(self, trial: TuneTrial) -> None:
        """A trial has got an actor: says where it runs, where the actor is known from a trial before."""
        assignment = assignment_of(trial)
        self._moved[trial] = -1, time.monotonic()
        place = self._places.get(actor_of(trial)._actor_id)
        if place is not None:
            self._recorder.started(assignment.number, assignment.attempt, *place)
        if self._winding_down is not None:
            self.stop(trial, self._winding_down)

    def stop(self, trial: TuneTrial, request: StopRequest) -> None:
        """Asks a running trial to end through its own loop; the first request counts, but for a pause."""
        if trial in self._stopping and self._stopping[trial][0].status != "paused":
            return
        self._recorder.stop_requested(assignment_of(trial).number, request)
        self._stopping[trial] = request, time.monotonic() + self._heartbeat_s + self._spec.stop_grace_s
        actor_of(trial).request_stop.remote(request)

    def catch_up(self, replayed: Replayed) -> None:
        """Does what a sweep that is resumed had decided, and not done any more."""
        for number in replayed.offers:
            self._recorder.offered(number)
        for exploit in replayed.exploits.values():
            self._exploit(exploit)

    def wind_down(self, trials: list[TuneTrial], request: StopRequest) -> None:
        """Asks all running trials to end, and drops those that wait for a process."""
        self._winding_down = request
        for trial in trials:
            if trial.status == TuneTrial.RUNNING:
                self.stop(trial, request)

    def kill_overdue(self) -> None:
        """Ends the processes of trials that do not stop within the grace period, and of those that hang."""
        now, grace, timeout = time.monotonic(), self._spec.stop_grace_s, self._spec.stall_timeout_s
        for trial, (request, deadline) in self._stopping.items():
            if now > deadline and trial not in self._killed:
                reason = f"killed: it did not end within {grace:g} s of being asked to stop"
                self._kill(trial, StopRequest(reason, request.status))
        for trial, (_, moved) in self._moved.items():
            if timeout is not None and now > moved + timeout and trial not in self._killed:
                self._kill(trial, StopRequest(f"killed: it trained no step for {timeout:g} s", "failed"))

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tune has queued a trial, for the first time or to be begun again."""
        if trial not in self._judged:
            self._judged.add(trial)
            self._judge.add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Tune has a result that is not the last: records it, and asks for a verdict where one is due."""
        report = self._take(trial, result)
        if report.kind == "decision" and trial not in self._killed:
            return self._follow(tune_controller, trial, self._verdict(tune_controller, trial, report))
        decision: str = TrialScheduler.CONTINUE
        return decision

    def _follow(self, tune_controller: Any, trial: TuneTrial, request: StopRequest | None) -> str:
        """Does what follows from a verdict, for the trial and for others; returns what Tune is to do with it."""
        exploits = self._act()
        decision: str = TrialScheduler.CONTINUE
        if trial in exploits:
            decision = TrialScheduler.NOOP
        elif request is not None and request.status == "paused":
            self._recorder.paused(assignment_of(trial).number, request.reason)
            self._begin_anew(trial)
            tune_controller.pause_trial(trial, should_checkpoint=False)
            decision = TrialScheduler.NOOP
        elif request is not None:
            self.stop(trial, request)
        return decision

    def _act(self) -> list[TuneTrial]:
        """Does what the judge decided on other trials than the one it judged; returns those that exploit."""
        for trial, request in self._judge.take_stops():
            # A paused trial goes on, to end through its own loop.
            self._recorder.stop_requested(assignment_of(trial).number, request)
            self._begin_anew(trial, request)
            self._to_end.append(trial)
        for trial in self._judge.take_offers():
            self._recorder.offered(assignment_of(trial).number)
        exploits = self._judge.take_exploits()
        for exploit in exploits:
            self._exploit(exploit)
        return [exploit.trial for exploit in exploits]

    def _exploit(self, exploit: Exploit) -> None:
        self._recorder.exploited(exploit.number, exploit.source, exploit.config)
        self._begin_anew(exploit.trial, config=exploit.config)

    def _begin_anew(
        self, trial: TuneTrial, stop: StopRequest | None = None, config: dict[str, Any] | None = None
    ) -> None:
        """Prepares another attempt of a trial."""
        assignment = assignment_of(trial)
        record = self._recorder.state.trials[assignment.number]
        trial.set_config(
            {"assignment": next_attempt(record, config or assignment.config, self._judge.points.time_attr, stop)}
        )
        self._judge.prepare(trial)
        self._forget(trial)

    def _verdict(self, tune_controller: Any, trial: TuneTrial, report: Report) -> StopRequest | None:
        """Judges a report; where another attempt was judged already, its verdict stands."""
        number, time = assignment_of(trial).number, self._time(report)
        results = self._recorder.state.trials[number].results
        if results and time <= results[-1][self._judge.points.time_attr]:
            last = time == results[-1][self._judge.points.time_attr]
            self._recorder.saved(number, report)
            return self._verdicts.get(number) if last else None
        self._recorder.judged(number, report)
        value = report.metrics[self._spec.metric]
        verdict = self._judge.verdict(tune_controller, trial, time, value, report.due)
        self._recorder.decided(number, verdict)
        request = verdict.request
        if request is not None and request.status != "paused":
            self._verdicts[number] = request
        return request

    def _time(self, report: Report) -> int:
        return report.epoch if self._judge.points.time_attr == "epoch" else report.global_step

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Tune has the last result of a trial."""
        if result["report"].problems:
            self._forget(trial)
            return  # it cannot be run at all, and neither can the others
        report = self._take(trial, result)
        record = self._recorder.state.trials[assignment_of(trial).number]
        if report.failure is not None and report.global_step == 0:  # it failed before it was where it was before
            report.epoch, report.global_step = record.epoch, record.global_step
            report.metrics, report.best = record.metrics, record.best
        if report.failure == "storage":  # none of the trial's: it goes on when there is room again
            report.status = "paused"
        trial.spoilt = trial in self._killed or not report.clean  # type: ignore[attr-defined]
        self._end(tune_controller, trial, report)

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """The process of a trial is gone: it died, or it was killed because it did not stop."""
        record = self._recorder.state.trials[assignment_of(trial).number]
        if trial.should_recover() or trial in self._over:
            return
        report = self._latest.get(trial) or Report("end", epoch=record.epoch, global_step=record.global_step)
        report.due, report.checkpoints = False, {}
        if trial in self._killed:
            report.status, report.reason = self._killed[trial].status, self._killed[trial].reason
            report.failure = "stalled" if report.status == "failed" else None
        elif self._winding_down is not None and self._winding_down.status == "paused":
            report.status, report.reason = "paused", "its process was lost"
        else:
            report.status, report.error, report.failure = "failed", Path(trial.error_file).read_text(), "lost"
            times = f", {record.lost + 1} times" if record.lost else ""
            report.reason = f"its process was lost{times}"
        self._end(tune_controller, trial, report)

    def retry(self, trial: TuneTrial, error: Exception) -> bool:
        """Decides whether a trial that lost its process is begun again, and prepares it."""
        assignment = assignment_of(trial)
        record = self._recorder.state.trials[assignment.number]
        lost = isinstance(error, RayActorError) and trial not in self._over
        pausing = self._winding_down is not None and self._winding_down.status == "paused"
        if not lost or pausing or trial in self._killed:
            return False
        kind: Failure = "not begun"
        if trial in self._moved:
            kind = _kind(error, self._nodes[trial]) if trial in self._nodes else "lost"
        self._not_begun[trial] += kind == "not begun"
        if self._not_begun[trial] > _MOST_NOT_BEGUN:
            return False
        if kind == "lost" and record.lost >= self._spec.failures.retries:
            return False
        self._recorder.failed(record.number, kind, _LOST[kind], str(error), retried=True)
        self._begin_anew(trial, assignment.stop)
        return True

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tune has dropped a trial that does not run: the sweep is over."""

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Leaves it to Tune, which starts trials in the order they came, without a search over all of them."""
        if self._winding_down is not None:
            for trial in tune_controller.get_trials():
                if trial.status in (TuneTrial.PENDING, TuneTrial.PAUSED):
                    tune_controller.stop_trial(trial)
            return None
        while self._to_end and self._to_end[0].status != TuneTrial.PAUSED:
            self._to_end.popleft()  # it runs
        chosen = self._to_end[0] if self._to_end else self._judge.choose()
        return chosen if chosen is not None and tune_controller.may_stage(chosen) else None

    def debug_string(self) -> str:
        """Returns a line for Tune's own output."""
        text: str = self._judge.scheduler.debug_string()
        return text

    def _take(self, trial: TuneTrial, result: dict[str, Any]) -> Report:
        report: Report = result["report"]
        assignment = assignment_of(trial)
        self._places[actor_of(trial)._actor_id] = report.node, report.pid
        self._recorder.started(assignment.number, assignment.attempt, report.node, report.pid)
        self._recorder.reported(assignment.number, report)
        self._nodes[trial] = report.node_id
        if report.global_step != self._moved[trial][0]:
            self._moved[trial] = report.global_step, time.monotonic()
        # Tune keeps the last result of every trial: what was written down need not stay in memory.
        report.history = None
        self._latest[trial] = report
        return report

    def _end(self, tune_controller: Any, trial: TuneTrial, report: Report) -> None:
        """Records that a trial ended or pauses, and lets the judge know of an end."""
        number = assignment_of(trial).number
        report.due = report.due and report.status == "completed"
        self._recorder.ended(number, report)
        if report.status != "paused":
            value = report.metrics.get(self._spec.metric)
            self._judge.ended(tune_controller, trial, self._time(report), value, report.due)
            self._verdicts.pop(number, None)
            self._act()
        self._over.add(trial)
        self._forget(trial)
        self._killed.pop(trial, None)

    def _forget(self, trial: TuneTrial) -> None:
        for known in (self._stopping, self._latest, self._moved, self._nodes):
            known.pop(trial, None)

    def _kill(self, trial: TuneTrial, outcome: StopRequest) -> None:
        self._killed[trial] = outcome
        ray.kill(actor_of(trial))
