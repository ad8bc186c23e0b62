"""A sweep in Optuna's dashboard: its study is kept as far as the journal is."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, make_server

from optuna.storages import BaseStorage, InMemoryStorage
from optuna.trial import FrozenTrial

from xaytune.errors import DashboardError, JournalError
from xaytune.records.history import measured
from xaytune.records.results import Results
from xaytune.records.sweep_folder import SweepFolder
from xaytune.records.trial_record import TrialRecord
from xaytune.report.study import frozen, space_of
from xaytune.search.distributions import direction_of

# Seconds between two readings of the journal.
_EVERY_S = 1.0


class StudyStorage(InMemoryStorage):
    """A storage whose trials can be replaced: one that has finished may run again."""

    def replace_trial(self, trial_id: int, trial: FrozenTrial) -> None:
        """Puts a trial in the place of what was known of it before."""
        with self._lock:
            self._set_trial(trial_id, trial)

    def get_best_trial(self, study_id: int) -> FrozenTrial:
        """Returns the best of the trials that are completed now: the one that was may run again."""
        return BaseStorage.get_best_trial(self, study_id)


class StudyMirror:
    """Keeps a storage of Optuna's as far as a sweep's journal is.

    Attributes:
        storage: Holds one study, of the sweep's name, in which trials have their numbers as ids.

    Args:
        sweep_folder: The sweep's.
    """

    def __init__(self, sweep_folder: SweepFolder) -> None:
        self._sweep_folder = sweep_folder
        results = Results(sweep_folder)
        self.storage = StudyStorage()
        self._study = self.storage.create_new_study([direction_of(results.sweep.objective)], results.sweep.name)
        self._space = space_of(results.sweep)
        self._taken: dict[int, TrialRecord] = {}  # the trials as they were taken last, by number
        self._take(results)

    def follow(self, every_s: float, until: threading.Event) -> None:
        """Reads the journal again and again.

        Args:
            every_s: Seconds between two readings.
            until: Ends it.
        """
        while not until.wait(every_s):
            with contextlib.suppress(OSError, JournalError):  # of a storage that does not answer now
                self.update()

    def update(self) -> None:
        """Reads the journal again."""
        self._take(Results(self._sweep_folder))

    def _take(self, results: Results) -> None:
        for trial in results.trials:
            before = self._taken.get(trial.number)
            if trial.finished and trial == before:
                continue
            known = frozen(trial, self._space, intermediate_values=_reached(results, trial))
            if before is None:
                self.storage.create_new_trial(self._study, known)
            else:
                self.storage.replace_trial(trial.number, known)
            self._taken[trial.number] = trial


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
