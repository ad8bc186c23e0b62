"""The source of trials: turns the searcher's suggestions into trials of Tune, and tells it how they did."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from ray.tune.experiment import Trial as TuneTrial
from ray.tune.search import SearchAlgorithm

from xaytune.driver.recorder import Recorder
from xaytune.records.state import TrialRecord
from xaytune.search.searcher import Outcome, Searcher
from xaytune.sweep.seeds import trial_seed
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import Assignment

__all__ = ["TrialSource", "outcome_of"]


class TrialSource(SearchAlgorithm):
    """Gives Tune the trials of a sweep.

    Args:
        spec: The sweep.
        searcher: Suggests configurations.
        recorder: Takes down what is suggested, and knows how trials did.
        at_once: Returns how many trials may be under way, waiting ones included.
        make_trial: Makes Tune's trial of an assignment.
        unfinished: Trials to go on with first.
    """

    def __init__(
        self,
        spec: SweepSpec,
        searcher: Searcher,
        recorder: Recorder,
        at_once: Callable[[], int],
        make_trial: Callable[[Assignment], TuneTrial],
        unfinished: Iterable[TuneTrial] = (),
    ) -> None:
        self._spec = spec
        self._searcher = searcher
        self._recorder = recorder
        self._at_once = at_once
        self._make_trial = make_trial
        self._num_trials = spec.num_trials
        self._unfinished = deque(unfinished)
        self._closed = False
        self._numbers: dict[str, int] = {}  # of the trials under way, by Tune's id

    def close(self) -> None:
        """Lets there be no more trials."""
        self._closed = True

    def is_finished(self) -> bool:
        """Tells whether there are no more trials."""
        return self._closed or (not self._unfinished and self._searcher.asked >= self._num_trials)

    def next_trial(self) -> TuneTrial | None:
        """Returns the next trial; None while enough are under way, and when there are no more."""
        if self.is_finished() or len(self._numbers) >= self._at_once():
            return None
        trial = self._unfinished.popleft() if self._unfinished else self._new_trial()
        self._numbers[trial.trial_id] = trial.config["assignment"].number
        return trial

    def _new_trial(self) -> TuneTrial:
        suggestion = self._searcher.ask()
        seed = trial_seed(self._spec.search.seed, suggestion.number)
        assignment = Assignment(suggestion.number, seed, suggestion.config)
        self._recorder.suggested(assignment)
        return self._make_trial(assignment)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the searcher how a trial did, by what was recorded of it."""
        number = self._numbers.pop(trial_id, None)
        if number is None:
            return
        record = self._recorder.state.trials[number]
        if record.finished:
            self._searcher.tell(number, outcome_of(record, self._spec))


def outcome_of(record: TrialRecord, spec: SweepSpec) -> Outcome:
    """Returns how a trial that has ended did, as the searcher is to know it."""
    if record.failure == "infeasible":
        return Outcome("infeasible")
    time_attr = getattr(spec.scheduler, "time_attr", "epoch")
    intermediate = {r[time_attr]: r["value"] for r in record.results if r["value"] is not None}
    return Outcome(record.status, record.value, intermediate)  # type: ignore[arg-type]
