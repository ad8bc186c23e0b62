"""Running a sweep on Ray Tune, from its first trial to its last: a new one, or one that is resumed."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import cloudpickle
import ray

from xaytune.driver.driver import Driver
from xaytune.driver.recorder import Listener, Recorder
from xaytune.driver.resuming import resume, resumed_spec
from xaytune.errors import Path, Problem, SessionError, SpecError, StorageError
from xaytune.ray_tune import resources
from xaytune.ray_tune.controller import TuneRun
from xaytune.ray_tune.session import RaySession
from xaytune.ray_tune.shared_storage import check_shared
from xaytune.records.clock import SystemClock
from xaytune.records.journal import FILE_NAME, KnownEvents
from xaytune.records.mirror import Mirror
from xaytune.records.naming import new_sweep_folder
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import SweepFolder
from xaytune.records.warm_start import best_of_earlier
from xaytune.search.build import method_for
from xaytune.search.method import SearchMethod
from xaytune.sweep.gpus import unused_gpus
from xaytune.sweep.objective import Objective
from xaytune.sweep.options import Reference
from xaytune.sweep.references import check_shippable, not_found_again, own_functions
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import Task
from xaytune.trial.template_client import start_template
from xaytune.trial.trackers import tracking as trackers
from xaytune.trial.width import FIRST_WIDTH

__all__ = ["resume_sweep", "run_sweep"]

# A heartbeat costs the driver about 2 ms: with n trials one every 20 n ms takes a tenth of a core.
_HEARTBEAT_S = 2.0
_HEARTBEAT_S_PER_TRIAL = 0.02
# A search that learns knows nothing of trials in flight: it has no more than this, fused. Of what TPE gains
# over random search in 96 trials they leave about 90 %, 32 at once some 40 % (python -m tests.benchmarks fused).
_AHEAD = 16


def run_sweep(
    spec: SweepSpec,
    storage: str,
    name: str | None,
    default_name: str,
    session: RaySession,
    listener: Listener | None = None,
) -> Results:
    """Runs a sweep to its end.

    The first Ctrl-C (SIGTERM, SIGHUP) pauses the running trials through their own loops, and ends the sweep as
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
    if spec.warm_start:
        given = spec.points_to_evaluate
        room = None if spec.num_trials is None else max(0, spec.num_trials - len(given))
        earlier = best_of_earlier(spec.warm_start, storage, spec.space)[:room]
        spec = spec.model_copy(update={"points_to_evaluate": [*given, *earlier]})
    method = method_for(spec)
    check_shippable(dict(_references(spec)), cloudpickle.dumps)
    sweep_folder = new_sweep_folder(storage, name, default_name)
    try:
        return _drive(spec, method, sweep_folder, session, listener)
    except (SpecError, SessionError):
        if (
            sweep_folder.local.exists() and not sweep_folder.exists
        ):  # nothing was recorded: the sweep has not begun
            sweep_folder.remove()
        raise


def resume_sweep(
    sweep_folder: SweepFolder,
    session: RaySession,
    listener: Listener | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Results:
    """Resumes a sweep, whatever ended it: what was finished stays, and nothing is decided anew.

    Unfinished trials resume from their newest sound checkpoint, with their own numbers and configurations.

    Args:
        sweep_folder: The sweep's.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event, as it is recorded.
        overrides: Options by dotted name, instead of the spec's. What decides on trials cannot change any more.

    Raises:
        JournalError: The sweep is running, or its journal is damaged.
        SpecError: The sweep cannot run as specified.
        StorageError: The sweep's folder cannot be written any more.
    """
    sweep_folder.fetch_journal()
    known = KnownEvents(sweep_folder.local / FILE_NAME)
    sweep = SweepState(str(sweep_folder), known.all())
    spec = resumed_spec(sweep, overrides or {})
    if sweep.done and spec.num_trials == sweep.num_trials:
        return Results(sweep_folder)
    spec = _with_own_functions(spec)
    check_shippable(dict(_references(spec)), cloudpickle.dumps)
    try:
        sweep_folder.fetch_histories()
    except OSError as error:
        raise StorageError(sweep_folder, error) from error
    return _drive(spec, method_for(spec), sweep_folder, session, listener, known, sweep.folder)


def _with_own_functions(spec: SweepSpec) -> SweepSpec:
    """Returns a spec with the functions of this script or notebook in place of their names."""
    named = dict(_references(spec))
    named |= {("trackers", index): tracker.tracker for index, tracker in enumerate(spec.trackers)}
    own = own_functions(named)
    update = {
        "recipe": own.get(("recipe",), spec.recipe),
        "setup": own.get(("setup",), spec.setup),
        "callbacks": [own.get(("callbacks", index), callback) for index, callback in enumerate(spec.callbacks)],
        "trackers": [
            tracker.model_copy(update={"tracker": own.get(("trackers", index), tracker.tracker)})
            for index, tracker in enumerate(spec.trackers)
        ],
    }
    return spec.model_copy(update=update)


def _drive(
    spec: SweepSpec,
    method: SearchMethod,
    sweep_folder: SweepFolder,
    session: RaySession,
    listener: Listener | None,
    known: KnownEvents | None = None,
    folder: str | None = None,
) -> Results:
    """Runs what is left of a sweep, all of it if it is new.

    Args:
        spec: The sweep.
        method: A new search method of it.
        sweep_folder: Its folder.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event.
        known: The events of its journal, if it was begun before.
        folder: Where it was begun, if that was before.
    """
    if spec.fuses and sweep_folder.remote is not None:
        raise SpecError([Problem(("fused",), "needs a storage folder that all nodes share, not a remote storage")])
    task = _task(spec, method, sweep_folder, [folder] if folder else [])
    with contextlib.ExitStack() as stack:
        # While Ray starts, the template of this node imports what the trials need.
        stack.callback(start_template(task).end)
        session.wait()
        resources.check_feasible(spec)
        check_shared(sweep_folder)
        trackers.begin(spec.trackers, sweep_folder.local.name)
        mirror = stack.enter_context(Mirror(sweep_folder))
        driver = _run(spec, method, sweep_folder, task, session, listener, known)
    if driver.refused:
        sweep_folder.remove()  # nothing was trained: it is as if the sweep had not begun
    if driver.fatal is not None:
        raise driver.fatal
    if mirror.error is not None:
        raise StorageError(sweep_folder, mirror.error)
    return Results(sweep_folder, driver.state)


def _run(
    spec: SweepSpec,
    method: SearchMethod,
    sweep_folder: SweepFolder,
    task: Task,
    session: RaySession,
    listener: Listener | None,
    known: KnownEvents | None,
) -> Driver:
    """Runs the trials, and records what happens and how the sweep ended."""
    capacity, clock = resources.Capacity(spec), SystemClock()
    width = FIRST_WIDTH if spec.fused == "auto" else spec.fused
    heartbeat_s = max(_HEARTBEAT_S, _HEARTBEAT_S_PER_TRIAL * capacity.trials() * width)
    with contextlib.closing(Recorder(sweep_folder, spec, clock, listener, known)) as recorder:
        remaining = resume(spec, recorder, method)
        recorder.begun()
        if spec.without_scheduler is not None:
            recorder.noted(spec.without_scheduler)
        for _, reference in _references(spec):
            if (why := not_found_again(reference)) is not None:
                recorder.noted(why)
        if (unused := unused_gpus(spec, ray.cluster_resources().get("GPU", 0))) is not None:
            recorder.noted(unused)
        driver = Driver(spec, method, recorder, clock, remaining, heartbeat_s)
        task = dataclasses.replace(task, sweep_id=recorder.sweep_id, heartbeat_s=heartbeat_s)
        try:
            with (
                TuneRun(task, resources.placement(spec), capacity.trials, width, _at_once(spec)) as tune_run,
                _Interrupts() as interrupts,
            ):
                tune_run.run(driver, session.check, lambda: interrupts.asked)
            state, reason = driver.outcome()
        except KeyboardInterrupt:
            state, reason = "interrupted", "interrupted twice: its trials were not waited for"
            recorder.abandoned(reason)
        except BaseException as error:
            with contextlib.suppress(StorageError):  # it may be what failed
                recorder.finished("failed", f"{type(error).__name__}: {error}")
            raise
        # Where the storage is full, that was reported already.
        with contextlib.suppress(StorageError) if driver.fatal is not None else contextlib.nullcontext():
            recorder.finished(state, reason)
    return driver


def _at_once(spec: SweepSpec) -> int:
    """Returns how many trials may be trained at once, at most."""
    learns = spec.search.algorithm not in ("random", "grid", "qmc") or spec.scheduler.algorithm == "curves"
    return min(spec.max_concurrent_trials or sys.maxsize, _AHEAD if learns and spec.fuses else sys.maxsize)


def _references(spec: SweepSpec) -> Iterator[tuple[Path, Reference]]:
    """Yields the functions of a spec, and where it names them."""
    if spec.recipe is not None:
        yield ("recipe",), spec.recipe
    if spec.setup is not None:
        yield ("setup",), spec.setup
    for index, callback in enumerate(spec.callbacks):
        yield ("callbacks", index), callback


def _task(spec: SweepSpec, method: SearchMethod, sweep_folder: SweepFolder, folders: list[str]) -> Task:
    """Returns what all trials share: modules are found in the current folder first, then in `folders`."""
    return Task(
        sweep=sweep_folder.local.name,
        sweep_id="",
        sweep_dir=str(sweep_folder.local.absolute()),
        remote=sweep_folder.remote.uri if sweep_folder.remote is not None else None,
        recipe=spec.trains,
        setup=spec.setup,
        callbacks=tuple(spec.callbacks),
        trackers=tuple(spec.trackers),
        tracker_settings=trackers.settings(spec.trackers),
        tracker_timeout_s=spec.tracker_timeout_s,
        objective=Objective(spec.metric, spec.mode),
        seed=spec.search.seed,
        points=method.points,
        import_paths=(os.getcwd(), *folders),
        cpus=spec.bundles[0].get("cpu", 1),
        gpus=spec.bundles[0].get("gpu", 0),
        finds_width=spec.fused == "auto",
    )


_PAUSING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Interrupts:
    """Takes Ctrl-C, SIGTERM and SIGHUP (the terminal is gone) as the wish to pause the sweep. A context.

    The second time they interrupt it. Where SIGHUP is ignored, as under ``nohup``, it stays so; SIGINT, which
    shells ignore for what runs in the background of a script, is taken all the same.

    Attributes:
        asked: Whether the sweep is to be paused.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        if threading.current_thread() is threading.main_thread():
            ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
            taken = [number for number in _PAUSING if not (ignored and number == signal.SIGHUP)]
            self._before = {number: signal.signal(number, self._interrupt) for number in taken}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _interrupt(self, signum: int, frame: object) -> None:
        # A terminal that goes is told of more than once.
        if self.asked and signum != signal.SIGHUP:
            raise KeyboardInterrupt
        self.asked = True
