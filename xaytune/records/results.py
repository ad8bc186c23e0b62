"""Results: what a sweep found, read from its folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaytune.errors import JournalError, RemoteError, nearest
from xaytune.records import history
from xaytune.records.journal import FILE_NAME, Event, JournalTail, read_events
from xaytune.records.recommendation import Recommendation, recommend
from xaytune.records.state import SweepState
from xaytune.records.sweep_folder import DEFAULT_STORAGE, SweepFolder, find_sweep
from xaytune.records.trial_record import TrialRecord
from xaytune.sweep.space import dotted

if TYPE_CHECKING:
    import pandas as pd

_ABSENT = object()


class Results:
    """What a sweep found, or has found so far.

    Attributes:
        path: The sweep's folder on this machine, absolute.
        sweep: Its state.

    Args:
        sweep: Its folder (a path or a URI), or its name in ``runs``.
        state: What its journal tells, where that is known: to who has run the sweep. By default it is read.

    Raises:
        JournalError: There is no such sweep, its storage cannot be reached, or its journal is damaged.
    """

    def __init__(self, sweep: Path | str | SweepFolder, state: SweepState | None = None) -> None:
        self._sweep_folder = sweep if isinstance(sweep, SweepFolder) else find_sweep(str(sweep), DEFAULT_STORAGE)
        self._fetched = False  # the histories
        self.path = self._sweep_folder.local
        if state is not None:
            self.sweep, self._read = state, (self.path / FILE_NAME).stat().st_size  # bytes
            return
        try:
            self._sweep_folder.fetch_journal()
        except RemoteError as error:
            raise JournalError(f"the storage cannot be reached: {error}") from None
        tail = JournalTail(self.path / FILE_NAME)
        self.sweep = SweepState(str(self._sweep_folder), tail.new(), self._sweep_folder.address)
        self._read = tail.read
        self.sweep.notice_loss(self._sweep_folder.is_written)
        if not self.sweep.spec:
            raise JournalError(f"{self.path / FILE_NAME}: the journal does not say what sweep it is of")

    def __repr__(self) -> str:
        sweep, best = self.sweep, self.sweep.best
        found = f"trial {best.number}, {sweep.objective.metric} {best.value:.4g}" if best is not None else "none"
        return f"<Results of {sweep.name}: {sweep.state}, {len(sweep.trials)} trials, best: {found}>"

    def events(self) -> Iterator[Event]:
        """Yields the events of the journal that the state follows from, oldest first."""
        return read_events(self.path / FILE_NAME, self._read)

    @property
    def trials(self) -> list[TrialRecord]:
        """The trials suggested so far, by number."""
        return list(self.sweep.trials.values())

    @property
    def best(self) -> TrialRecord | None:
        """The trial whose metric reached the best value; None while no trial reported it."""
        return self.sweep.best

    @property
    def recommended(self) -> Recommendation | None:
        """The trial whose configuration to train again, and why; None while no trial reported the metric."""
        return recommend(self.sweep)

    @property
    def best_config(self) -> dict[str, Any] | None:
        """The configuration to train again: of the best trial at ``max_t``, once three trials have reached it.

        Until then, and where the scheduler has no ``max_t``, that of the best trial. ``recommended`` says why.
        """
        recommended = self.recommended
        return recommended.trial.best_config if recommended is not None else None

    def history(self, trial: int) -> pd.DataFrame:
        """Returns a row for every optimizer step that a trial trained, stopped and failed trials included.

        Args:
            trial: The trial's number.

        Returns:
            Columns ``epoch`` (from 0), ``step`` (within the epoch), ``global_step``, and ``metrics.NAME`` for each
            metric, as it stood after the step: what an evaluation measured stays until the next one.

        Raises:
            KeyError: There is no such trial.
        """
        if trial not in self.sweep.trials:
            raise KeyError(f"{self.sweep.name} has no trial {trial}; it has {len(self.sweep.trials)}, from 0")
        if not self._fetched:
            self._sweep_folder.fetch_histories()
            self._fetched = True
        return history.read(history.path_for(self.path, trial))

    def to_dataframe(self) -> pd.DataFrame:
        """Returns a row a trial.

        Returns:
            Its number (``trial``), ``status``, ``value`` and so on; ``config.NAME`` for each value of the
            configuration that ``value`` was reached with, nested names with dots; ``metrics.NAME`` for each metric
            there.
        """
        import pandas as pd

        rows = [_row(trial) for trial in self.trials]
        columns = {name: [row.get(name, _ABSENT) for row in rows] for name in _names(rows)}
        return pd.DataFrame({name: _column(name, found) for name, found in columns.items()})

    def plot(self, name: str | None = None) -> Any:
        """Returns the report's plots as plotly's figures; a notebook shows them.

        Args:
            name: One of them, such as ``"learning-curves"``; by default a dict of all that there is something to
                show in.

        Raises:
            KeyError: There is no such plot of this sweep.
        """
        from xaytune.report.figures import figures as figures_of

        figures = figures_of(self)
        if name is not None and name not in figures:
            raise KeyError(f"{self.sweep.name} has no plot {name!r}; {nearest(name, figures)}")
        return figures if name is None else figures[name]


def _row(trial: TrialRecord) -> dict[str, Any]:
    metrics = trial.best.metrics if trial.best is not None else {}
    return {
        "trial": trial.number,
        "status": trial.status,
        "value": trial.value,
        "epochs": trial.epoch,
        "steps": trial.global_step,
        "seconds": trial.seconds if trial.started is not None else None,
        "reason": trial.reason,
        "started": trial.started,
        "ended": trial.ended,
        "node": trial.node,
        "attempts": trial.attempts,
        "checkpoint": trial.checkpoint,
        **{f"config.{name}": value for name, value in dotted(trial.best_config).items()},
        **{f"metrics.{name}": value for name, value in metrics.items()},
    }


def _names(rows: list[dict[str, Any]]) -> list[str]:
    """The names of all columns: ours, then those of configurations, then those of metrics."""
    names = dict.fromkeys(name for row in rows for name in row)
    kinds = ("config.", "metrics.")
    return sorted(names, key=lambda name: next((n for n, kind in enumerate(kinds, 1) if name.startswith(kind)), 0))


def _column(name: str, found: list[Any]) -> Any:
    """A column that keeps each value as it is: pandas would make True of 1, 8.0 of 8 and nan of None."""
    import pandas as pd

    column = [None if value is _ABSENT else value for value in found]
    kinds = {type(value) for value in column if value is not None}
    of_numbers = kinds <= {float} or (kinds in ({int}, {bool}) and None not in column)
    if name.startswith("config.") and any(value is None or value != value for value in found):
        of_numbers = False  # None and nan are values of configurations, and differ
    return column if of_numbers else pd.Series(column, dtype=object)
