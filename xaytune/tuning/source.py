"""The source of trials: turns the searcher's suggestions into trials of Tune, and tells it how they did."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import SearchAlgorithm

from xaytune.records.state import TrialRecord
from xaytune.search.searcher import Outcome, Searcher
from xaytune.sweep.spec import SweepSpec
from xaytune.tuning.recorder import Recorder
from xaytune.tuning.report import Assignment
from xaytune.tuning.seeds import trial_seed

__all__ = ["TrialSource"]


class TrialSource(SearchAlgorithm):
    """Gives Tune the trials of a sweep.

    Args:
        spec: The sweep.
        searcher: Suggests configurations.
        recorder: Takes down what is suggested, and knows how trials did.
        max_concurrent: Trials that may be under way at once.
        make_trial: Makes Tune's trial of an assignment.
    """

    def __init__(
        self,
        spec: SweepSpec,
        searcher: Searcher,
        recorder: Recorder,
        max_concurrent: int,
        make_trial: Callable[[Assignment], TuneTrial],
    ) -> None:
        self._spec = spec
        self._searcher = searcher
        self._recorder = recorder
        self._max_concurrent = max_concurrent
        self._make_trial = make_trial
        self._num_trials = spec.num_trials
        self._finished = False
        self._numbers: dict[str, int] = {}  # of the trials under way, by Tune's id

    def close(self) -> None:
        """Lets there be no more trials."""
        self._finished = True

    def next_trial(self) -> TuneTrial | None:
        """Returns the next trial; None while enough are under way, and when there are no more."""
        if self.is_finished() or len(self._numbers) >= self._max_concurrent:
            return None
        suggestion = self._searcher.ask()
        seed = trial_seed(self._spec.search.seed, suggestion.number)
        assignment = Assignment(suggestion.number, seed, suggestion.config)
        self._recorder.suggested(assignment)
        trial = self._make_trial(assignment)
        self._numbers[trial.trial_id] = suggestion.number
        if suggestion.number + 1 == self._num_trials:
            self._finished = True
        return trial

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the searcher how a trial did, by what was recorded of it."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        record = self._recorder.state.trials[number]
        if record.finished:
            self._searcher.tell(number, self._outcome(record))

    def _outcome(self, record: TrialRecord) -> Outcome:
        time_attr = getattr(self._spec.scheduler, "time_attr", "epoch")
        intermediate = {r[time_attr]: r["value"] for r in record.results if r["value"] is not None}
        return Outcome(record.status, record.value, intermediate)  # type: ignore[arg-type]
