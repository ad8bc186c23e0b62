"""The source of trials: hands the searcher's suggestions to Ray Tune, and tells it how they did."""

from __future__ import annotations

from typing import Any

from ray.tune.search import Searcher as TuneSearcher

from xaytune.records.state import TrialRecord
from xaytune.search.searcher import Outcome, Searcher
from xaytune.sweep.spec import SweepSpec
from xaytune.tuning.recorder import Recorder
from xaytune.tuning.report import Assignment
from xaytune.tuning.seeds import trial_seed

__all__ = ["TrialSource"]


class TrialSource(TuneSearcher):
    """Suggests the trials of a sweep to Tune.

    Args:
        spec: The sweep.
        searcher: Suggests configurations.
        recorder: Takes down what is suggested, and knows how trials did.
        max_concurrent: Trials that may be under way at once.
    """

    def __init__(self, spec: SweepSpec, searcher: Searcher, recorder: Recorder, max_concurrent: int) -> None:
        super().__init__(metric=None, mode=None)
        self.closed = False
        self._spec = spec
        self._searcher = searcher
        self._recorder = recorder
        self._max_concurrent = max_concurrent
        self._asked = 0
        self._numbers: dict[str, int] = {}

    def suggest(self, trial_id: str) -> Any:
        """Returns Tune's configuration of the next trial, None while enough are under way."""
        if self.closed or self._asked >= self._spec.num_trials:
            return TuneSearcher.FINISHED
        if len(self._numbers) >= self._max_concurrent:
            return None
        suggestion = self._searcher.ask()
        seed = trial_seed(self._spec.search.seed, suggestion.number)
        assignment = Assignment(suggestion.number, seed, suggestion.config)
        self._asked += 1
        self._numbers[trial_id] = suggestion.number
        self._recorder.suggested(assignment)
        return {"assignment": assignment}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Nothing: the searcher hears of a trial once, when it has ended."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the searcher how a trial did, by what was recorded of it."""
        number = self._numbers.pop(trial_id)
        record = self._recorder.state.trials[number]
        if record.finished:
            self._searcher.tell(number, self._outcome(record))

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the journal is what a sweep is rebuilt from."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the journal is what a sweep is rebuilt from."""

    def _outcome(self, record: TrialRecord) -> Outcome:
        time_attr = getattr(self._spec.scheduler, "time_attr", "epoch")
        intermediate = {r[time_attr]: r["value"] for r in record.results if r["value"] is not None}
        return Outcome(record.status, record.value, intermediate)  # type: ignore[arg-type]
