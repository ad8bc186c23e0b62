"""The driver: runs a sweep on Ray Tune from its first trial to its last."""

from __future__ import annotations

import contextlib
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from xaytune.records.results import Results
from xaytune.search.searcher import Searcher
from xaytune.sweep.errors import SpecError
from xaytune.sweep.spec import SweepSpec
from xaytune.tuning import resources
from xaytune.tuning.controller import TuneRun
from xaytune.tuning.judges import judge_for
from xaytune.tuning.recipe import never_reported
from xaytune.tuning.recorder import Listener, Recorder
from xaytune.tuning.report import Report, StopRequest, Task
from xaytune.tuning.scheduler import CooperativeScheduler, assignment_of
from xaytune.tuning.session import RaySession
from xaytune.tuning.source import TrialSource
from xaytune.tuning.storage import new_sweep_dir

__all__ = ["run_sweep"]

# A heartbeat costs the driver about 2 ms: with n trials one every 20 n ms takes a tenth of a core.
_HEARTBEAT_S = 2.0
_HEARTBEAT_S_PER_TRIAL = 0.02


def run_sweep(
    spec: SweepSpec,
    storage: Path,
    name: str | None,
    default_name: str,
    session: RaySession,
    listener: Listener | None = None,
) -> Results:
    """Runs a sweep to its end.

    The first Ctrl-C (or SIGTERM) pauses the running trials through their own loops, and ends the sweep as
    ``interrupted``; the second ends it at once.

    Args:
        spec: The sweep.
        storage: Folder that the sweep's own folder is made in.
        name: Name of the sweep, if it was given one; there must be no sweep of that name.
        default_name: Else its name, with a number where it is taken.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event, as it is recorded.

    Raises:
        SpecError: The sweep cannot run as specified, which may show only when its first trial has ended.
    """
    searcher, judge = Searcher(spec), judge_for(spec)
    session.wait()
    resources.check_feasible(spec.resources_per_trial)
    limit = spec.max_concurrent_trials or resources.max_concurrent(spec.resources_per_trial)
    heartbeat_s = max(_HEARTBEAT_S, _HEARTBEAT_S_PER_TRIAL * limit)
    sweep_dir = new_sweep_dir(storage, name, default_name)
    task = Task.of(spec, judge.points, sweep_dir, heartbeat_s)
    with (
        contextlib.closing(Recorder(sweep_dir, spec.metric, listener)) as recorder,
        TuneRun(task, resources.placement(spec.resources_per_trial), limit) as tune_run,
    ):
        recorder.begun(spec)
        source = TrialSource(spec, searcher, recorder, limit, tune_run.make_trial)
        scheduler = CooperativeScheduler(judge, recorder, spec.stop_grace_s, heartbeat_s)
        control = _Control(spec, recorder, source, scheduler)
        try:
            with control.signals():
                tune_run.run(source, scheduler, control)
            state, reason = control.outcome()
        except KeyboardInterrupt:
            state, reason = "interrupted", "interrupted twice: its trials were not waited for"
            recorder.abandoned(reason)
        except BaseException as error:
            with contextlib.suppress(OSError):  # the disk may be what failed
                recorder.finished("failed", f"{type(error).__name__}: {error}")
            raise
        recorder.finished(state, reason)
    if control.refused:
        shutil.rmtree(sweep_dir)  # nothing was trained: it is as if the sweep had not begun
    if control.fatal is not None:
        raise control.fatal
    return Results(sweep_dir)


class _Control(Callback):
    """Looks after a sweep while Tune runs it: interrupts, overdue stops, and what ends it early.

    Attributes:
        fatal: What the sweep ended for before its time.
        refused: Whether that is that no trial of it can run.
    """

    def __init__(
        self, spec: SweepSpec, recorder: Recorder, source: TrialSource, scheduler: CooperativeScheduler
    ) -> None:
        self.fatal: SpecError | None = None
        self.refused = False
        self._spec, self._recorder = spec, recorder
        self._source, self._scheduler = source, scheduler
        self._interrupted = False
        self._winding_down: StopRequest | None = None

    @contextlib.contextmanager
    def signals(self) -> Iterator[None]:
        """Takes Ctrl-C and SIGTERM as the wish to pause the sweep; the second time they interrupt it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def interrupt(signum: int, frame: object) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def outcome(self) -> tuple[str, str | None]:
        """Returns how the sweep ended, and why if it was not finished."""
        if self.fatal is not None:
            return "failed", str(self.fatal)
        if self._interrupted:
            return "interrupted", "interrupted by the user"
        trials = self._recorder.state.trials.values()
        if all(trial.status == "failed" for trial in trials):
            return "failed", "every trial failed"
        if self._recorder.state.best is None:
            return "failed", f"no trial reported a finite {self._spec.metric!r}"
        return "completed", None

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Tune is about to handle its next event."""
        self._scheduler.kill_overdue()
        if self._interrupted and self._winding_down is None:
            self._wind_down(StopRequest("the sweep was interrupted", status="paused"), trials)
        if self.fatal is not None and self._winding_down is None:
            self._wind_down(StopRequest("the sweep was ended: see its reason"), trials)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has got its process."""
        self._scheduler.started(trial)
        if self._winding_down is not None:
            self._scheduler.stop(trial, self._winding_down)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has ended, and was recorded."""
        report: Report | None = trial.last_result.get("report")  # a trial that never ran has none
        if report is not None and report.problems:
            self.fatal, self.refused = SpecError(report.problems), True
        record = self._recorder.state.trials[assignment_of(trial).number]
        finished = record.status == "completed" and record.reason is None
        if finished and self._spec.metric not in record.metrics and self.fatal is None:
            self.fatal = SpecError([never_reported(self._spec, record.metrics)])

    def _wind_down(self, request: StopRequest, trials: list[TuneTrial]) -> None:
        """Starts no more trials, and asks those that run to end."""
        self._winding_down = request
        self._source.close()
        self._scheduler.wind_down(trials, request)
