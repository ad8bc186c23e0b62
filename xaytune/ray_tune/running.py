"""The driver: runs a sweep on Ray Tune from its first trial to its last."""

from __future__ import annotations

import contextlib
import copy
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any

from ray.tune import Callback
from ray.tune.experiment import Trial as TuneTrial

from xaytune.driver.recorder import Listener, Recorder
from xaytune.ray_tune import resources
from xaytune.ray_tune.controller import TuneRun
from xaytune.ray_tune.judges import judge_for
from xaytune.ray_tune.replay import replay
from xaytune.ray_tune.scheduler import CooperativeScheduler, assignment_of
from xaytune.ray_tune.session import RaySession
from xaytune.ray_tune.source import TrialSource
from xaytune.ray_tune.storage import StorageError, check_shared, new_place
from xaytune.records.place import Mirror, Place
from xaytune.records.results import Results
from xaytune.records.state import SweepState, TrialRecord
from xaytune.search.searcher import Searcher
from xaytune.sweep.errors import Problem, SpecError, nearest
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import Report, StopRequest, Task
from xaytune.trial.recipe import never_reported
from xaytune.trial.trackers import tracking as trackers

__all__ = ["resume_sweep", "resumed_spec", "run_sweep"]

# A heartbeat costs the driver about 2 ms: with n trials one every 20 n ms takes a tenth of a core.
_HEARTBEAT_S = 2.0
_HEARTBEAT_S_PER_TRIAL = 0.02
# So many trials that raise before any has trained a step are enough: the others would as well.
_STILLBORN = 2
# What a sweep may be resumed with otherwise than it was begun.
_CHANGEABLE = (
    "budget",
    "callbacks",
    "checkpoint_config",
    "failures",
    "max_concurrent_trials",
    "num_samples",
    "placement_strategy",
    "recipe",
    "requirements",
    "resources_per_trial",
    "stall_timeout_s",
    "stop_grace_s",
    "trackers",
)


def run_sweep(
    spec: SweepSpec,
    storage: str,
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
        storage: Folder that the sweep's own folder is made in, a path or a URI.
        name: Name of the sweep, if it was given one; there must be no sweep of that name.
        default_name: Else its name, with a number where it is taken.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event, as it is recorded.

    Raises:
        SpecError: The sweep cannot run as specified, which may show only when its first trial has ended.
        StorageError: The sweep's folder cannot be written any more.
    """
    session.wait()
    resources.check_feasible(spec)
    place = new_place(storage, name, default_name)
    try:
        _prepare(spec, place)
    except SpecError:
        place.remove()
        raise
    return _drive(spec, place, listener)


def resume_sweep(
    place: Place, session: RaySession, listener: Listener | None = None, overrides: Mapping[str, Any] | None = None
) -> Results:
    """Goes on with a sweep, whatever ended it: what was finished stays, and nothing is decided anew.

    Unfinished trials go on from their newest sound checkpoint, with their own numbers and configurations.

    Args:
        place: The sweep's.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event, as it is recorded.
        overrides: Options by dotted name, instead of the spec's. What decides on trials cannot change any more.

    Raises:
        JournalError: The sweep is running, or its journal is damaged.
        SpecError: The sweep cannot run as specified.
        StorageError: The sweep's folder cannot be written any more.
    """
    results = Results(place)
    spec = resumed_spec(results.sweep, overrides or {})
    if results.sweep.done and spec.num_trials == results.sweep.num_trials:
        return results
    try:
        place.fetch_histories()
    except OSError as error:
        raise StorageError(place, error) from error
    session.wait()
    resources.check_feasible(spec)
    _prepare(spec, place)
    return _drive(spec, place, listener)


def resumed_spec(sweep: SweepState, overrides: Mapping[str, Any]) -> SweepSpec:
    """Returns the spec that a sweep goes on with.

    Args:
        sweep: The sweep.
        overrides: Options by dotted name. What decides on trials cannot change any more.

    Raises:
        SpecError: An option cannot be changed, or its value is wrong.
    """
    plain = copy.deepcopy(sweep.spec)
    for name, value in overrides.items():
        option, _, inner = name.partition(".")
        if option not in _CHANGEABLE:
            raise SpecError([Problem((option,), f"cannot be changed any more; {nearest(option, _CHANGEABLE)}")])
        if inner:
            before = plain[option] if isinstance(plain[option], dict) else {}
            plain[option] = {**before, inner: value}
        else:
            plain[option] = value
    spec = SweepSpec.parse(plain)
    if spec.num_trials < len(sweep.trials):
        message = f"the sweep has {len(sweep.trials)} trials already (got {spec.num_trials} in all)"
        raise SpecError([Problem(("num_samples",), message)])
    return spec


def _prepare(spec: SweepSpec, place: Place) -> None:
    """Checks that all nodes see the sweep's folder, and makes what its trials share in trackers."""
    check_shared(place)
    trackers.begin(spec.trackers, place.folder.name)


def _drive(spec: SweepSpec, place: Place, listener: Listener | None) -> Results:
    """Runs what is left of a sweep, all of it if it is new."""
    try:
        return _run(spec, place, listener)
    except (ConnectionError, TimeoutError):
        raise  # Ray's, not the storage's
    except OSError as error:
        raise StorageError(place, error) from error


def _run(spec: SweepSpec, place: Place, listener: Listener | None) -> Results:
    room = resources.Room(spec)
    heartbeat_s = max(_HEARTBEAT_S, _HEARTBEAT_S_PER_TRIAL * room.trials())
    searcher, judge = Searcher(spec), judge_for(spec)
    with Mirror(place) as mirror, contextlib.closing(Recorder(place, spec, listener)) as recorder:
        folder = recorder.state.folder
        task = Task.of(spec, judge.points, place, recorder.sweep_id, heartbeat_s, [folder] if folder else [])
        with TuneRun(task, resources.placement(spec), room.trials) as tune_run:
            recorder.reopen_stillborn()
            left = replay(spec, recorder.events(), recorder.state, searcher, judge, tune_run.make_trial)
            recorder.begun()
            # A scheduler that lets trials wait for each other has to know them all.
            ahead = (lambda: spec.num_trials) if judge.points.pausing else room.trials
            source = TrialSource(spec, searcher, recorder, ahead, tune_run.make_trial, left.unfinished.values())
            scheduler = CooperativeScheduler(judge, recorder, spec, heartbeat_s, left)
            scheduler.catch_up(left)
            control = _Control(spec, recorder, source, scheduler)
            try:
                with control.signals():
                    tune_run.run(source, scheduler, control, ahead)
                state, reason = control.outcome()
            except KeyboardInterrupt:
                state, reason = "interrupted", "interrupted twice: its trials were not waited for"
                recorder.abandoned(reason)
            except BaseException as error:
                with contextlib.suppress(OSError):  # the disk may be what failed
                    recorder.finished("failed", f"{type(error).__name__}: {error}")
                raise
            # Where the storage is full that was told already.
            with contextlib.suppress(OSError) if control.fatal is not None else contextlib.nullcontext():
                recorder.finished(state, reason)
    if control.refused:
        place.remove()  # nothing was trained: it is as if the sweep had not begun
    if control.fatal is not None:
        raise control.fatal
    if mirror.error is not None:
        raise StorageError(place, mirror.error)
    return Results(place)


class _Control(Callback):
    """Looks after a sweep while Tune runs it: interrupts, budgets, overdue stops, and what ends it early.

    Attributes:
        fatal: What the sweep ended for before its time, if that is to be raised.
        refused: Whether that is that no trial of it can run.
    """

    def __init__(
        self, spec: SweepSpec, recorder: Recorder, source: TrialSource, scheduler: CooperativeScheduler
    ) -> None:
        self.fatal: SpecError | StorageError | None = None
        self.refused = False
        self._spec, self._recorder = spec, recorder
        self._source, self._scheduler = source, scheduler
        self._interrupted = False
        self._ending: tuple[str, str] | None = None  # state and reason of a sweep that ends early
        self._stillborn: list[TrialRecord] = []  # trials that raised before their first step
        self._most_stillborn = min(_STILLBORN, spec.num_trials)

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
        if self._ending is not None:
            return self._ending
        trials = self._recorder.state.trials.values()
        if all(trial.status == "failed" for trial in trials):
            return "failed", "every trial failed"
        if self._recorder.state.best is None:
            return "failed", f"no trial reported a finite {self._spec.metric!r}"
        return "completed", None

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        """Tune is about to handle its next event."""
        self._scheduler.kill_overdue()
        if self._ending is not None:
            return
        spent = self._budget_spent()
        if self.fatal is not None:
            self._end_early("failed", str(self.fatal), StopRequest("the sweep was ended", "paused"), trials)
        elif self._interrupted:
            request = StopRequest("the sweep was interrupted", "paused")
            self._end_early("interrupted", "interrupted by the user", request, trials)
        elif len(self._stillborn) >= self._most_stillborn:
            first = self._stillborn[0]
            reason = f"its first trials raised before their first step: {first.reason}"
            self._end_early("failed", reason, StopRequest("the sweep was ended", "paused"), trials)
        elif spent is not None:
            self._end_early("completed", spent, StopRequest(spent), trials)

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has got its process."""
        self._scheduler.started(trial)

    def on_trial_complete(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        """A trial has ended, and was recorded."""
        report: Report | None = trial.last_result.get("report")  # a trial that never ran has none
        if report is not None and report.problems:
            self.fatal, self.refused = SpecError(report.problems), not self._began()
        if report is not None and report.failure == "storage":
            self.fatal = StorageError(self._recorder.place, str(report.reason))
        record = self._recorder.state.trials[assignment_of(trial).number]
        finished = record.status == "completed" and record.reason is None
        if finished and self._spec.metric not in record.metrics and self.fatal is None:
            self.fatal = SpecError([never_reported(self._spec, record.metrics)])
        if record.failure == "error" and not self._recorder.state.trained:
            self._stillborn.append(record)

    def _began(self) -> bool:
        """Whether any trial was ever begun."""
        return any(trial.attempts > 0 for trial in self._recorder.state.trials.values())

    def _budget_spent(self) -> str | None:
        """Says what budget is spent, if one is."""
        budget, state = self._spec.budget, self._recorder.state
        if budget.epochs is not None and state.epochs >= budget.epochs:
            return f"the budget of {budget.epochs} epochs is spent"
        if budget.time is not None and state.running_s(time.time()) >= budget.time:
            return f"the budget of {budget.time:g} s is spent"
        return None

    def _end_early(self, state: str, reason: str, request: StopRequest, trials: list[TuneTrial]) -> None:
        """Starts no more trials, and asks those that run to end."""
        self._ending = state, reason
        self._source.close()
        self._scheduler.wind_down(trials, request)
