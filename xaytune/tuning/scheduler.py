"""The cooperative scheduler: a verdict to stop becomes a request that the trial follows through its own loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.tune import TuneError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from xaytune.tuning.judges import Judge
from xaytune.tuning.recorder import Recorder
from xaytune.tuning.report import Assignment, Report, StopRequest

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


class CooperativeScheduler(TrialScheduler):
    """Wraps a judge for Ray Tune.

    Tune is always told to continue. Where the judge says stop, the trial's actor is asked to: calls to an
    actor from one caller run in order, so the request is there before the next ``train()`` begins, and no
    further step is trained. The trial ends with a result that is ``done``.

    Args:
        judge: Decides which trials stop.
        recorder: Takes down what happens.
        stop_grace_s: Seconds that a trial has to end after it was asked to.
        heartbeat_s: Seconds that a request may wait for the actor to listen.
    """

    def __init__(self, judge: Judge, recorder: Recorder, stop_grace_s: float, heartbeat_s: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._judge = judge
        self._recorder = recorder
        self._stop_grace_s = stop_grace_s
        self._heartbeat_s = heartbeat_s
        self._winding_down = False
        self._stopping: dict[TuneTrial, tuple[StopRequest, float]] = {}  # what was asked, and the deadline
        self._killed: set[TuneTrial] = set()
        self._latest: dict[TuneTrial, Report] = {}
        self._places: dict[Any, tuple[str, int]] = {}  # node and process of an actor, by its id

    def started(self, trial: TuneTrial) -> None:
        """A trial has got an actor: says where it runs, where the actor is known from a trial before."""
        place = self._places.get(actor_of(trial)._actor_id)
        if place is not None:
            self._recorder.started(assignment_of(trial).number, *place)

    def stop(self, trial: TuneTrial, request: StopRequest) -> None:
        """Asks a running trial to end through its own loop."""
        if trial in self._stopping:
            return
        self._recorder.stop_requested(assignment_of(trial).number, request)
        self._stopping[trial] = request, time.monotonic() + self._heartbeat_s + self._stop_grace_s
        actor_of(trial).request_stop.remote(request)

    def wind_down(self, trials: list[TuneTrial], request: StopRequest) -> None:
        """Asks all running trials to end, and drops those that wait for a process."""
        self._winding_down = True
        for trial in trials:
            if trial.status == TuneTrial.RUNNING:
                self.stop(trial, request)

    def kill_overdue(self) -> None:
        """Ends the processes of trials that were asked to stop and did not within the grace period."""
        now = time.monotonic()
        for trial, (_, deadline) in self._stopping.items():
            if now > deadline and trial not in self._killed:
                self._killed.add(trial)
                ray.kill(actor_of(trial))

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tune has queued a trial."""
        self._judge.scheduler.on_trial_add(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Tune has a result that is not the last: records it, and asks for a verdict where one is due."""
        report = self._take(trial, result)
        if report.kind == "decision":
            request = self._judge.verdict(tune_controller, trial, report)
            if request is not None:
                self.stop(trial, request)
        decision: str = TrialScheduler.CONTINUE
        return decision

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Tune has the last result of a trial."""
        if result["report"].problems:
            return  # it cannot be run at all, and neither can the others
        report = self._take(trial, result)
        self._judge.ended(tune_controller, trial, report)
        killed = trial in self._killed
        self._end(trial, report)
        if killed:  # it ended just before: Tune, which knows nothing of it, must not keep its process
            raise TuneError(f"the process of {trial} was killed")

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """The process of a trial is gone: it died, or it was killed because it did not stop."""
        if self._recorder.state.trials[assignment_of(trial).number].finished:
            return
        self._judge.scheduler.on_trial_remove(tune_controller, trial)
        report = self._latest.get(trial, Report("end"))
        if trial in self._killed:
            report.status = self._stopping[trial][0].status
            report.reason = f"killed: it did not end within {self._stop_grace_s:g} s of being asked to stop"
        else:
            report.status, report.error = "failed", Path(trial.error_file).read_text()
            report.reason = "its process was lost"
        self._end(trial, report)

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """Tune has dropped a trial that never ran."""
        self._judge.scheduler.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Leaves it to Tune, which starts trials in the order they came, without a search over all of them."""
        if self._winding_down:
            for trial in tune_controller.get_trials():
                if trial.status == TuneTrial.PENDING:
                    tune_controller.stop_trial(trial)
        return None

    def debug_string(self) -> str:
        """Returns a line for Tune's own output."""
        text: str = self._judge.scheduler.debug_string()
        return text

    def _take(self, trial: TuneTrial, result: dict[str, Any]) -> Report:
        report: Report = result["report"]
        self._recorder.reported(assignment_of(trial).number, report)
        self._places[actor_of(trial)._actor_id] = report.node, report.pid
        # Tune keeps the last result of every trial: what was written down need not stay in memory.
        report.history = None
        self._latest[trial] = report
        return report

    def _end(self, trial: TuneTrial, report: Report) -> None:
        self._recorder.ended(assignment_of(trial).number, report)
        self._stopping.pop(trial, None)
        self._killed.discard(trial)
        self._latest.pop(trial, None)
