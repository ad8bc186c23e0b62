"""The driver: runs a sweep on Ray Tune from its first trial to its last."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial as TuneTrial

from xaytune.records.results import Results
from xaytune.search.searcher import Searcher
from xaytune.sweep.errors import SpecError
from xaytune.sweep.spec import SweepSpec
from xaytune.tuning import resources
from xaytune.tuning.judges import judge_for
from xaytune.tuning.recipe import check_references, never_reported
from xaytune.tuning.recorder import Listener, Recorder
from xaytune.tuning.report import StopRequest, Task
from xaytune.tuning.scheduler import CooperativeScheduler, assignment_of
from xaytune.tuning.source import TrialSource
from xaytune.tuning.storage import new_sweep_dir
from xaytune.tuning.trainable import trainable_for

__all__ = ["run_sweep"]

# A heartbeat costs the driver about 2 ms: with n trials one every 20 n ms takes a tenth of a core.
_HEARTBEAT_S = 2.0
_HEARTBEAT_S_PER_TRIAL = 0.02

# Tune's own logs, snapshots and output are off: the journal has what users need, at a fraction of the cost.
_TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    # Else Tune would restart a preempted trial by itself, and we would not know.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}


def run_sweep(
    spec: SweepSpec, storage: Path, name: str | None, default_name: str, listener: Listener | None = None
) -> Results:
    """Runs a sweep to its end.

    The first Ctrl-C (or SIGTERM) pauses the running trials through their own loops, and ends the sweep as
    ``interrupted``; the second ends it at once.

    Args:
        spec: The sweep.
        storage: Folder that the sweep's own folder is made in.
        name: Name of the sweep, if it was given one; there must be no sweep of that name.
        default_name: Else its name, with a number where it is taken.
        listener: Called with the state and each event, as it is recorded.

    Raises:
        SpecError: The sweep cannot run as specified, which may show only when its first trial has ended.
    """
    check_references(spec)
    searcher = Searcher(spec)
    with _ray(), _quiet_tune():
        resources.check_feasible(spec.resources_per_trial)
        limit = spec.max_concurrent_trials or resources.max_concurrent(spec.resources_per_trial)
        # Else Tune starts one process at a time.
        os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(limit)
        judge = judge_for(spec)
        sweep_dir = new_sweep_dir(storage, name, default_name)
        heartbeat_s = max(_HEARTBEAT_S, _HEARTBEAT_S_PER_TRIAL * limit)
        task = Task.of(spec, judge.points, sweep_dir, heartbeat_s)
        recorder = Recorder(sweep_dir, spec.metric, listener)
        with contextlib.closing(recorder):
            recorder.sweep(
                "running",
                name=sweep_dir.name,
                spec=spec.plain(),
                num_trials=spec.num_trials,
                host=socket.gethostname(),
                pid=os.getpid(),
            )
            source = TrialSource(spec, searcher, recorder, limit)
            scheduler = CooperativeScheduler(judge, recorder, spec.stop_grace_s, heartbeat_s)
            control = _Control(spec, recorder, source, scheduler)
            try:
                with control.signals():
                    _tune(task, spec, source, scheduler, control)
                state, reason = control.outcome()
            except KeyboardInterrupt:
                state, reason = "interrupted", "interrupted twice: its trials were not waited for"
            except BaseException as error:
                with contextlib.suppress(OSError):  # the disk may be what failed
                    recorder.sweep("failed", reason=f"{type(error).__name__}: {error}")
                raise
            recorder.sweep(state, reason=reason)
            if control.fatal is not None:
                raise control.fatal
    return Results(sweep_dir)


def _tune(
    task: Task, spec: SweepSpec, source: TrialSource, scheduler: CooperativeScheduler, control: _Control
) -> None:
    trainable = tune.with_resources(trainable_for(task), resources.placement(spec.resources_per_trial))
    with tempfile.TemporaryDirectory(prefix="xaytune-") as scratch:
        tune.run(
            trainable,
            name="tune",
            storage_path=scratch,
            num_samples=spec.num_trials,
            search_alg=source,
            scheduler=scheduler,
            callbacks=[control],
            reuse_actors=True,
            raise_on_failed_trial=False,
            trial_name_creator=lambda trial: f"trial-{assignment_of(trial).number:05d}",
            trial_dirname_creator=lambda trial: f"{assignment_of(trial).number:05d}",
            verbose=0,
        )


class _Control(tune.Callback):
    """Looks after a sweep while Tune runs it: interrupts, overdue stops, and what ends it early.

    Attributes:
        fatal: What the sweep ended for before its time.
    """

    def __init__(
        self, spec: SweepSpec, recorder: Recorder, source: TrialSource, scheduler: CooperativeScheduler
    ) -> None:
        self.fatal: SpecError | None = None
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
        record = self._recorder.state.trials[assignment_of(trial).number]
        finished = record.status == "completed" and record.reason is None
        if finished and self._spec.metric not in record.metrics and self.fatal is None:
            self.fatal = SpecError([never_reported(self._spec, record.metrics)])

    def _wind_down(self, request: StopRequest, trials: list[TuneTrial]) -> None:
        """Starts no more trials, and asks those that run to end."""
        self._winding_down = request
        self._source.closed = True
        self._scheduler.wind_down(trials, request)


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Runs within the Ray that is there, or within one of its own."""
    if ray.is_initialized():
        yield
        return
    # A cluster that is there already has its own dashboard, or none.
    ray.init(logging_level=logging.ERROR, include_dashboard=None if "RAY_ADDRESS" in os.environ else False)
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _quiet_tune() -> Iterator[None]:
    """Switches off what Tune writes, prints and logs by itself."""
    environment, logger = dict(os.environ), logging.getLogger("ray.tune")
    level = logger.level
    os.environ.update(_TUNE_ENVIRONMENT)
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.clear()
        os.environ.update(environment)
