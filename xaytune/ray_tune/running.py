"""Running a sweep on Ray Tune, from its first trial to its last: a new one, or one that is resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from xaytune.driver.recorder import Listener
from xaytune.errors import JournalError, Problem, SessionError, SpecError, StorageError
from xaytune.messages import Task
from xaytune.ray_tune import compat
from xaytune.ray_tune.session import RaySession
from xaytune.ray_tune.sweep_run import SweepRun
from xaytune.records.journal import FILE_NAME, KnownEvents
from xaytune.records.naming import new_sweep_folder
from xaytune.records.results import Results
from xaytune.records.resumed_spec import has_more, resumed_spec
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import SweepFolder
from xaytune.records.warm_start import warm_started
from xaytune.search.build import method_for
from xaytune.sweep.references import check_references, own_functions, use_import_paths
from xaytune.sweep.shipping import check_shippable
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.client.template_client import Template
from xaytune.trial.trackers import tracking as trackers

# Seconds that threads which a recipe leaves are given, and no more than half of what the trial itself is given.
_THREADS_S = 30.0
# A sweep that trains records its progress every 10 s at least. One whose trials have not begun, or whose journal
# takes seconds to copy, may be silent for longer: it is not noticed.
WATCHED_S = 20.0


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
    spec = warm_started(spec, storage)
    _check_given(spec)
    sweep_folder = new_sweep_folder(storage, name, default_name)
    try:
        return _prepare_and_drive(SweepRun(spec, method_for(spec), sweep_folder, session, listener))
    except (SpecError, SessionError, KeyboardInterrupt):
        if sweep_folder.local.exists() and not sweep_folder.exists:  # nothing was recorded: it has not begun
            sweep_folder.remove()
        raise


def resume_sweep(
    sweep_folder: SweepFolder,
    session: RaySession,
    listener: Listener | None = None,
    overrides: Mapping[str, Any] | None = None,
    *,
    resume_errored: bool = False,
) -> Results:
    """Resumes a sweep, whatever ended it: what was finished stays, and nothing is decided anew.

    Unfinished trials resume from their newest sound checkpoint, with their own numbers and configurations.

    Args:
        sweep_folder: The sweep's.
        session: The Ray to run it in, which may still be starting.
        listener: Called with the state and each event, as it is recorded.
        overrides: Options by dotted name, instead of the spec's. What decides on trials cannot change any more.
        resume_errored: Whether trials that failed resume, too.

    Raises:
        JournalError: The sweep is running, or its journal is damaged.
        SpecError: The sweep cannot run as specified.
        StorageError: The sweep's folder cannot be written any more.
    """
    sweep_folder.fetch_journal()
    known = KnownEvents(sweep_folder.local / FILE_NAME)
    sweep = SweepState(str(sweep_folder), known.all(), sweep_folder.address)
    spec = resumed_spec(sweep, overrides or {})
    if not has_more(sweep, overrides or {}, resume_errored=resume_errored):
        if listener is not None:
            listener(sweep, known.all()[-1])
        return Results(sweep_folder)
    spec = _with_own_functions(spec)
    _check_given(spec)
    is_written = sweep_folder.is_written
    sweep.notice_loss(is_written)
    if is_written or sweep.runs_here:
        raise JournalError(f"{sweep_folder}: the sweep is running, in another process")
    if sweep.may_run_on is not None and sweep_folder.grows(WATCHED_S):
        raise JournalError(f"{sweep_folder}: the sweep is running, on {sweep.may_run_on}")
    try:
        sweep_folder.fetch_histories()
    except OSError as error:
        raise StorageError(sweep_folder.address, error) from error
    run = SweepRun(spec, method_for(spec), sweep_folder, session, listener, known, resume_errored)
    return _prepare_and_drive(run, *filter(None, [sweep.folder]))


def _check_given(spec: SweepSpec) -> None:
    """Checks functions that were given themselves, not by their names: those the processes of trials look for."""
    given = {path: function for path, function in spec.functions.items() if not isinstance(function, str)}
    check_references(given)
    check_shippable(given)


def _with_own_functions(spec: SweepSpec) -> SweepSpec:
    """Returns a spec with the functions of this script or notebook in place of their names."""
    named = spec.functions | {("trackers", index): tracker.tracker for index, tracker in enumerate(spec.trackers)}
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


def _prepare_and_drive(run: SweepRun, *folders: str) -> Results:
    """Starts this node's template, which imports meanwhile, and runs what is left of a sweep.

    Args:
        run: The run.
        folders: Where modules are found beside the current folder.
    """
    if run.spec.fuses and run.sweep_folder.remote is not None:
        raise SpecError([Problem(("fused",), "needs a storage folder that all nodes share, not a remote storage")])
    # Modules are found in the current folder first, by this process too: it begins the trackers.
    import_paths = [os.getcwd(), *folders]
    use_import_paths(import_paths)
    task = _task(run, import_paths)
    template = Template(task)
    try:
        # While Ray starts, and the template of this node imports what trials need: Tune takes a second to import.
        compat.check(*compat.TUNE)
        from xaytune.ray_tune.tune_sweep import drive

        return drive(run, task)
    finally:
        template.end()


def _task(run: SweepRun, import_paths: list[str]) -> Task:
    """Returns what all trials share."""
    spec, sweep_folder = run.spec, run.sweep_folder
    return Task(
        sweep=sweep_folder.name,
        sweep_id="",
        sweep_dir=str(sweep_folder.local),
        remote=sweep_folder.remote.uri if sweep_folder.remote is not None else None,
        recipe=spec.trains,
        setup=spec.setup,
        callbacks=tuple(spec.callbacks),
        trackers=tuple(spec.trackers),
        tracker_settings=trackers.settings(spec.trackers),
        tracker_timeout_s=spec.tracker_timeout_s,
        objective=spec.objective,
        seed=spec.search.seed,
        points=run.method.points,
        import_paths=tuple(import_paths),
        cpus=spec.bundles[0].get("cpu", 1),
        gpus=spec.bundles[0].get("gpu", 0),
        finds_width=spec.fused == "auto",
        threads_s=min(_THREADS_S, *(limit / 2 for limit in (spec.stop_grace_s, spec.stall_timeout_s) if limit)),
    )
