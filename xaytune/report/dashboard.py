"""A sweep in Optuna's dashboard: its study is kept as far as the journal is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, make_server

from optuna.storages import InMemoryStorage
from optuna.trial import TrialState

from xaytune.errors import DashboardError, JournalError
from xaytune.records.results import Results
from xaytune.records.state import TrialRecord
from xaytune.records.sweep_folder import SweepFolder
from xaytune.report.curves import measured
from xaytune.report.study import direction_of, frozen, space_of, state_of

__all__ = ["StudyMirror", "serve"]

# The journal is read again so often.
_EVERY_S = 1.0


class StudyMirror:
    """Keeps a storage of Optuna's as far as a sweep's journal is.

    Attributes:
        storage: Holds one study, of the sweep's name.

    Args:
        sweep_folder: The sweep's.
    """

    def __init__(self, sweep_folder: SweepFolder) -> None:
        self._sweep_folder = sweep_folder
        results = Results(sweep_folder)
        self.storage = InMemoryStorage()
        self._study = self.storage.create_new_study([direction_of(results.sweep)], results.sweep.name)
        self._space = space_of(results.sweep)
        self._ids: dict[int, int] = {}  # the storage's ids of trials, by number
        self._take(results)

    def follow(self, every_s: float, until: threading.Event) -> None:
        """Reads the journal again and again.

        Args:
            every_s: Seconds between two readings.
            until: Ends it.
        """
        while not until.wait(every_s):
            with contextlib.suppress(OSError, JournalError):  # of a storage that does not answer now
                self._take(Results(self._sweep_folder))

    def _take(self, results: Results) -> None:
        for trial in results.trials:
            if trial.number not in self._ids:
                created = frozen(trial, self._space, intermediate_values=_reached(results, trial))
                self._ids[trial.number] = self.storage.create_new_trial(self._study, created)
            elif not self.storage.get_trial(self._ids[trial.number]).state.is_finished():
                self._update(self._ids[trial.number], trial, results)

    def _update(self, identity: int, trial: TrialRecord, results: Results) -> None:
        for time, value in _reached(results, trial).items():
            self.storage.set_trial_intermediate_value(identity, time, value)
        if trial.reason is not None:
            self.storage.set_trial_user_attr(identity, "reason", trial.reason)
        state = state_of(trial)
        values = [trial.value] if state == TrialState.COMPLETE and trial.value is not None else None
        self.storage.set_trial_state_values(identity, state, values)


def _reached(results: Results, trial: TrialRecord) -> dict[int, float]:
    """The metric of a trial by the time of its training."""
    sweep = results.sweep
    rows = results.history(trial.number)
    return dict(zip(*measured(rows, sweep.spec["metric"], sweep.axis, trial.epoch), strict=True))


class _Quiet(WSGIRequestHandler):
    """Answers requests without a line on each."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


def serve(sweep_folder: SweepFolder, host: str, port: int, ready: Callable[[str], object]) -> None:
    """Serves a sweep in Optuna's dashboard until it is interrupted.

    Args:
        sweep_folder: The sweep's.
        host: Address to listen at.
        port: Port to listen at; 0 takes any that is free.
        ready: Called with the study's URL once it is served.

    Raises:
        DashboardError: The dashboard is not installed, or cannot listen there.
    """
    try:
        from optuna_dashboard import wsgi
    except ImportError:
        raise DashboardError("the dashboard needs optuna-dashboard: pip install 'xaytune[dashboard]'") from None
    mirror, over = StudyMirror(sweep_folder), threading.Event()
    try:
        server = make_server(host, port, wsgi(mirror.storage), handler_class=_Quiet)
    except OSError as error:
        raise DashboardError(f"cannot listen at {host}:{port}: {error.strerror}; choose another --port") from None
    # Beside this thread: an interrupt in the midst of a request would be taken for a failure of that.
    threads = [
        threading.Thread(target=mirror.follow, args=(_EVERY_S, over), daemon=True),
        threading.Thread(target=server.serve_forever, daemon=True),
    ]
    with server:
        for thread in threads:
            thread.start()
        ready(f"http://{host}:{server.server_port}/dashboard/studies/0")
        try:
            over.wait()
        finally:
            over.set()
            server.shutdown()
            for thread in threads:
                thread.join()
