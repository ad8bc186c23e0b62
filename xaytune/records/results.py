"""Results: what a sweep found, read from its folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xaytune.records import history
from xaytune.records.journal import FILE_NAME, Event, JournalError, read_events
from xaytune.records.place import Place, place_of
from xaytune.records.state import SweepState, TrialRecord

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Results", "dotted"]


class Results:
    """What a sweep found, or has found so far.

    Attributes:
        path: The sweep's folder on this machine.
        sweep: Its state.

    Args:
        sweep: The sweep's folder; a path, or the URI of one in a remote storage.

    Raises:
        JournalError: It holds no journal, or a damaged one.
        OSError: The remote storage cannot be reached.
    """

    def __init__(self, sweep: Path | str | Place) -> None:
        self._place = sweep if isinstance(sweep, Place) else place_of(str(sweep))
        self._place.fetch_journal()
        self._fetched = False  # the histories
        self.path = self._place.folder
        self._events = list(read_events(self.path / FILE_NAME))
        self.sweep = SweepState(str(self._place), self._events)
        if not self.sweep.spec:
            raise JournalError(f"{self.path / FILE_NAME}: the journal does not say what sweep it is of")

    def events(self) -> Iterator[Event]:
        """Yields the events of the journal that the state follows from, oldest first."""
        return iter(self._events)

    @property
    def trials(self) -> list[TrialRecord]:
        """The trials suggested so far, by number."""
        return list(self.sweep.trials.values())

    @property
    def best(self) -> TrialRecord | None:
        """The trial whose metric reached the best value; None while no trial reported it."""
        return self.sweep.best

    def history(self, trial: int) -> pd.DataFrame:
        """Returns a row for every optimizer step that a trial trained, stopped and failed trials included.

        Args:
            trial: The trial's number.

        Returns:
            Columns ``epoch``, ``step``, ``global_step``, and the metrics as they stood after each step.

        Raises:
            KeyError: There is no such trial.
        """
        if trial not in self.sweep.trials:
            raise KeyError(f"{self.sweep.name} has no trial {trial}; it has {len(self.sweep.trials)}, from 0")
        if not self._fetched:
            self._place.fetch_histories()
            self._fetched = True
        return history.read(history.path_for(self.path, trial))

    def to_dataframe(self) -> pd.DataFrame:
        """Returns a row a trial: its status, value, configuration (``config.*``) and metrics where it was best."""
        import pandas as pd

        return pd.DataFrame([_flat(trial) for trial in self.trials])


def _flat(trial: TrialRecord) -> dict[str, Any]:
    seconds = trial.ended - trial.started if trial.ended and trial.started else None
    return {
        "trial": trial.number,
        "status": trial.status,
        "value": trial.value,
        "epochs": trial.epoch,
        "steps": trial.global_step,
        "seconds": seconds,
        "reason": trial.reason,
        "started": trial.started,
        "ended": trial.ended,
        "node": trial.node,
        "attempts": trial.attempts,
        "checkpoint": trial.checkpoint,
        **{f"config.{name}": value for name, value in dotted(trial.config).items()},
        **(trial.best.metrics if trial.best is not None else {}),
    }


def dotted(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a nested configuration as one of dotted names."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": item for inner, item in dotted(value).items()}
        else:
            flat[name] = value
    return flat
