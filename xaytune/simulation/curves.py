"""Where the learning curves of a simulated sweep come from: an earlier sweep, or a function that computes them."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from xaytune.errors import Problem, SpecError
from xaytune.records.history import measured
from xaytune.records.results import Results
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord
from xaytune.search.configurations import distance
from xaytune.sweep.references import resolve
from xaytune.sweep.space import Space, dotted
from xaytune.sweep.time_axis import TimeAxis
from xaytune.sweep.values import key


@dataclass(frozen=True)
class Curve:
    """What a configuration is worth as it trains.

    Attributes:
        values: The metric by time (epochs or steps finished), ascending; None: not finite. May be empty.
        seconds: Seconds of training until each of these times.
        ends: Whether the training is over after the last of them. Else it was cut off there: what would have come
            is not known.
        began: Seconds after the earlier sweep began at which it was started there: its values come as long after
            that again. None: as long after it is started here.
        ended: Seconds after the earlier sweep began at which it ended there, where its values come so.
        length: Epochs or steps of the whole training; None where that is not known.
    """

    values: Mapping[int, float | None]
    seconds: Mapping[int, float]
    ends: bool = True
    began: float | None = None
    ended: float | None = None
    length: int | None = None


class Curves(Protocol):
    """Gives the curve of a configuration."""

    def of(self, trial: int, config: Mapping[str, Any]) -> Curve:
        """Returns the curve of a trial's configuration.

        Raises:
            SpecError: There is none.
        """


Function = Callable[[Mapping[str, Any]], "tuple[Sequence[float], Sequence[float]]"]


class Surrogate:
    """Curves that a function computes: of ``(config)`` to ``(times, values)``.

    ``times`` are the seconds of training after each unit of time (epoch or step), ``values`` the metric there.

    Args:
        function: The function.
    """

    def __init__(self, function: Function) -> None:
        self._function = function

    def of(self, trial: int, config: Mapping[str, Any]) -> Curve:
        """Returns the curve of a configuration.

        Raises:
            SpecError: The function raised, or returned something else.
        """
        try:
            returned = self._function(config)
        except Exception as error:  # whatever the user's function does
            message = f"the function raised {type(error).__name__}: {error} (for {dict(config)})"
            raise SpecError([Problem(("curves",), message)]) from error
        try:
            seconds, values = returned
            by_time = {time: _finite(float(value)) for time, value in enumerate(values, start=1)}
            by_seconds = {time: float(second) for time, second in enumerate(seconds, start=1)}
        except (TypeError, ValueError) as error:
            raise SpecError(
                [Problem(("curves",), f"must return (times, values), a number for each epoch or step ({error})")]
            ) from error
        if not by_time or len(by_time) != len(by_seconds):
            got = f"{len(by_seconds)} times, {len(by_time)} values"
            raise SpecError([Problem(("curves",), f"must return as many times as values, and some (got {got})")])
        if not all(one < other < math.inf for one, other in itertools.pairwise([0.0, *by_seconds.values()])):
            raise SpecError([Problem(("curves",), f"times must rise from 0, in seconds (got {seconds})")])
        return Curve(by_time, by_seconds, length=len(by_time))


class _Recorded(NamedTuple):
    """When trials were where: in seconds of the sweep where values come as they came, else of their training.

    Attributes:
        moments: By number, and by epochs or steps finished.
        ends: By number, of those that have ended.
    """

    moments: dict[int, dict[int, float]]
    ends: dict[int, float]


class RecordedCurves:
    """The curves of an earlier sweep: of its decision points, evaluations and ends.

    A trial gets the curve of the trial of the same number if their configurations are equal; else of the first
    with an equal configuration; else, where that is allowed, of the nearest.

    Args:
        results: The earlier sweep.
        space: The space that both draw from.
        axis: What time is counted in.
        nearest: Whether a configuration that was never trained gets the curve of the nearest.
        timed: Whether values come when they came there, instead of after as many seconds of training.

    Attributes:
        matched: Trials that got the curve of another configuration, and which.
    """

    def __init__(self, results: Results, space: Space, axis: TimeAxis, *, nearest: bool, timed: bool) -> None:
        self._results, self._space, self._axis = results, space, axis
        self._nearest, self._timed = nearest, timed
        self._configs = {trial.number: trial.config for trial in results.trials}
        self._numbers: dict[str, list[int]] = {}  # of the trials with each configuration
        for number, config in self._configs.items():
            self._numbers.setdefault(key(config), []).append(number)
        self.matched: dict[int, int] = {}

    def of(self, trial: int, config: Mapping[str, Any]) -> Curve:
        """Returns the curve of a configuration.

        Raises:
            SpecError: It was never trained, and no other is to stand for it.
        """
        if numbers := self._numbers.get(key(config)):
            return self._curve(trial if trial in numbers else numbers[0])
        if not self._nearest:
            raise SpecError(
                [
                    Problem(
                        ("curves",),
                        f"trial {trial} has a configuration that {self._results.sweep.name} never trained: "
                        f"{dotted(config)}; simulate with the same search and seed, or allow the nearest with "
                        "--nearest",
                    )
                ]
            )
        known = [trial.number for trial in self._results.trials if trial.results or trial.best is not None]
        if not known:
            raise SpecError([Problem(("curves",), f"no trial of {self._results.sweep.name} has a value")])
        number = min(known, key=lambda number: distance(self._space, self._configs[number], config))
        self.matched[trial] = number
        return self._curve(number)

    @functools.cached_property
    def _length(self) -> int | None:
        """How long trials trained that were not stopped."""
        sweep = self._results.sweep
        completed = [trial for trial in self._results.trials if trial.status == "completed"]
        ends = [self._axis.reached_by(trial) for trial in completed]
        return sweep.max_t or max(ends, default=None)

    @property
    def workers(self) -> int:
        """The most trials that trained at once."""
        changes = sorted(
            change
            for trial in self._results.trials
            if trial.started is not None
            for change in ((trial.started, 1), (math.inf if trial.ended is None else trial.ended, -1))
        )
        return max(itertools.accumulate(change for _, change in changes), default=1)

    def _curve(self, number: int) -> Curve:
        sweep, record = self._results.sweep, self._results.sweep.trials[number]
        metric = sweep.spec["metric"]
        times, found = measured(self._results.history(number), metric, self._axis, record.epoch)
        values: dict[int, float | None] = dict(zip(times, found, strict=True))
        values |= {self._axis.reached_by(result): result.value for result in record.results}
        if metric in record.metrics:
            values.setdefault(self._axis.reached_by(record), record.metrics[metric])
        # Steps between two moments that are known take equally long; what was lost was trained again, later.
        at, moments = zip(*sorted(self._recorded.moments[number].items()), strict=True)
        seconds = np.maximum.accumulate(moments)
        return Curve(
            dict(sorted(values.items())),
            {time: float(np.interp(time, at, seconds) - seconds[0]) for time in values},
            ends=record.status == "completed",
            began=float(seconds[0]) if self._timed else None,
            ended=self._recorded.ends.get(number) if self._timed else None,
            length=self._length,
        )

    @functools.cached_property
    def _recorded(self) -> _Recorded:
        sweep = SweepState("")
        moments: dict[int, dict[int, float]] = {number: {0: 0.0} for number in self._configs}
        ends: dict[int, float] = {}

        def seconds(trial: TrialRecord) -> float:
            return sweep.ran_s if self._timed else trial.seconds

        for event in self._results.events():
            sweep.apply(event)
            if event["event"] in ("start", "result", "end"):
                trial = sweep.trials[event["trial"]]
                if event["event"] == "result":
                    moments[trial.number][self._axis.in_event(event)] = seconds(trial)
                elif event["event"] == "end":
                    moments[trial.number].setdefault(self._axis.in_event(event), seconds(trial))
                    ends[trial.number] = seconds(trial)
                elif event.get("attempt", 0) == 0:
                    moments[trial.number][0] = seconds(trial)
        for trial in sweep.trials.values():  # those that were cut off
            moments[trial.number].setdefault(self._axis.reached_by(trial), seconds(trial))
        return _Recorded(moments, ends)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def surrogate(reference: str) -> Surrogate:
    """Returns the curves of the function that ``module:function`` names.

    Raises:
        SpecError: There is no such function.
    """
    try:
        return Surrogate(resolve(reference))
    except ValueError as error:
        raise SpecError([Problem(("curves",), str(error))]) from error
