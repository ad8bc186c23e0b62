"""Runs the trials of a sweep on Ray Tune, and records how it ended.

Apart from running.py because importing Tune takes a second: that is done while Ray starts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator

import ray

from xaytune.driver.driver import Driver
from xaytune.driver.recorder import Recorder
from xaytune.driver.resuming import Remaining, resume
from xaytune.errors import StorageError
from xaytune.interrupts import Interrupts
from xaytune.messages import FIRST_WIDTH, Task
from xaytune.ray_tune import resources
from xaytune.ray_tune.controller import run_trials
from xaytune.ray_tune.shared_storage import check_shared
from xaytune.ray_tune.sweep_run import SweepRun
from xaytune.records.clock import SystemClock
from xaytune.records.mirror import Mirror
from xaytune.records.results import Results
from xaytune.sweep.gpus import unused_gpus
from xaytune.sweep.references import not_found_again
from xaytune.trial.trackers import tracking as trackers

# A heartbeat costs the driver about 2 ms: with n trials one every 20 n ms takes a tenth of a core.
_HEARTBEAT_S = 2.0
_HEARTBEAT_S_PER_TRIAL = 0.02
# A search that learns knows nothing of trials in flight: it has no more than this, fused. Of what TPE gains
# over random search in 96 trials they leave about 90 %, 32 at once some 40 % (python -m tests.benchmarks fused).
_AHEAD = 16


def drive(run: SweepRun, task: Task) -> Results:
    """Runs what is left of a sweep, all of it if it is new.

    Args:
        run: The run.
        task: What its trials share.

    Raises:
        SessionError: Ray cannot be used.
        SpecError: The sweep cannot run as specified.
        StorageError: The sweep's folder cannot be written any more.
    """
    run.session.wait()
    spec, sweep_folder = run.spec, run.sweep_folder
    with Interrupts() as interrupts:  # from now on: Ray has just set handlers of its own
        resources.check_feasible(spec)
        check_shared(sweep_folder)
        trackers.begin(spec.trackers, sweep_folder.name)
        with (
            Mirror(sweep_folder) as mirror,
            contextlib.closing(Recorder(sweep_folder, spec, SystemClock(), run.listener, run.known)) as recorder,
        ):
            remaining = resume(spec, recorder, run.method, resume_errored=run.resume_errored)
            driver = _run(run, task, recorder, remaining, interrupts)
    if driver.refused and run.known is None:
        sweep_folder.remove()  # nothing was trained: it is as if the sweep had not begun
    if driver.fatal is not None:
        raise driver.fatal
    if mirror.error is not None:
        raise StorageError(sweep_folder.address, mirror.error)
    return Results(sweep_folder, driver.state)


def _run(run: SweepRun, task: Task, recorder: Recorder, remaining: Remaining, interrupts: Interrupts) -> Driver:
    """Runs the trials, and records what happens and how the sweep ended."""
    spec, session = run.spec, run.session
    capacity = resources.Capacity(spec)
    width = FIRST_WIDTH if spec.fused == "auto" else spec.fused
    heartbeat_s = max(_HEARTBEAT_S, _HEARTBEAT_S_PER_TRIAL * capacity.count() * width)
    recorder.begun()
    with _failure_recorded(recorder):
        _note(run, recorder)
        driver = Driver(spec, run.method, recorder, SystemClock(), remaining, heartbeat_s)
        task = dataclasses.replace(task, sweep_id=recorder.sweep_id, heartbeat_s=heartbeat_s)
        reserved, interrupted = resources.placement(spec), lambda: interrupts.asked
        try:
            run_trials(driver, task, reserved, capacity.count, width, _at_once(run), session.check, interrupted)
            state, reason = driver.outcome()
        except KeyboardInterrupt:
            state, reason = "interrupted", "interrupted twice: its trials were not waited for"
            recorder.abandoned(reason)
    # Where the storage is full, that was reported already.
    with contextlib.suppress(StorageError) if driver.fatal is not None else contextlib.nullcontext():
        recorder.finished(state, reason)
    return driver


def _note(run: SweepRun, recorder: Recorder) -> None:
    """Records what whoever runs the sweep should know before its trials begin."""
    spec = run.spec
    if spec.without_scheduler is not None:
        recorder.noted(spec.without_scheduler)
    recorder.noted(*run.session.notes)
    for (option, *_), reference in spec.functions.items():
        if (why := not_found_again(str(option), reference)) is not None:
            recorder.noted(why)
    if (unused := unused_gpus(spec, ray.cluster_resources().get("GPU", 0))) is not None:
        recorder.noted(unused)


@contextlib.contextmanager
def _failure_recorded(recorder: Recorder) -> Iterator[None]:
    """A context whose exceptions are recorded as how the sweep ended."""
    try:
        yield
    except BaseException as error:
        with contextlib.suppress(StorageError):  # it may be what failed
            state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
            recorder.finished(state, f"{type(error).__name__}: {error}")
        raise


def _at_once(run: SweepRun) -> int:
    """Returns how many trials may be trained at once, at most."""
    ahead = _AHEAD if run.method.adaptive and run.spec.fuses else sys.maxsize
    return min(run.spec.max_concurrent_trials or sys.maxsize, ahead)
