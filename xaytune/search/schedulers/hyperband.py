"""HyperBand (Li et al., 2018), as Ray Tune's HyperBandScheduler decides."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from xaytune.search.method import Action, Continue, Decision, End, Pause, Result, Stop
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.algorithms import HyperbandSpec
from xaytune.sweep.numbers import written
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis


class HyperbandScheduler(Scheduler):
    """Trials of a bracket wait for each other at its milestones, paused, and the best continue together.

    Trials fill one bracket after another; a bracket knows how many it is planned for, so they may come one by one.
    """

    options_model = HyperbandSpec
    options: HyperbandSpec

    def setup(self) -> None:
        """Begins without brackets."""
        self._brackets: list[_Bracket] = []  # those with trials that have not ended, or are to come
        self._bracket_of: dict[int, _Bracket] = {}
        self._made = 0  # brackets ever, also those too short to train in
        self._trials = 0  # trials ever

    @property
    def points(self) -> DecisionPoints:
        """Trials are judged, and saved, at the milestones of all brackets."""
        times = {time for halvings in self._lengths() for time in self._milestones(halvings)}
        return DecisionPoints(TimeAxis(self.options.time_attr), tuple(sorted(times)), pausing=True)

    def on_add(self, trial: int, config: Mapping[str, Any]) -> None:
        """Puts a new trial into the bracket that is being filled, or a new one."""
        if not self._brackets or not self._brackets[-1].missing:
            self._brackets.append(self._new_bracket())
        self._trials += 1
        self._brackets[-1].add(trial)
        self._bracket_of[trial] = self._brackets[-1]

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Lets a trial wait for its bracket; the last one that comes decides on all of them."""
        assert result.value is not None
        bracket = self._bracket_of[trial]
        bracket.report(trial, result.time, self.objective.score(result.value))
        if result.time < bracket.milestone:
            at = f"{self.axis.at(result.time)}: {written(result.value)}"
            return self.keep_training(trial, f"{at}, its bracket decides at {self.axis.at(bracket.milestone)}")
        decisions = {decision.trial: decision for decision in self._decide(bracket, trial)}
        own: Action | None = decisions.pop(trial, None)
        if own is None:
            own = Pause(trial=trial, reason=f"waits at {self.axis.at(result.time)} for the others of its bracket")
            bracket.waiting.add(trial)
        return [own, *decisions.values()]

    def on_diverged(self, trial: int, result: Result) -> Sequence[Action]:
        """Takes a trial out of its bracket, which may have waited for it."""
        return self._remove(trial)

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Takes a trial out of its bracket, which may have waited for it."""
        return self._remove(trial)

    def next_to_resume(self, *, new_possible: bool) -> int | None:
        """Returns a trial of the bracket that has come least far, and has one to train."""
        for bracket in sorted(self._brackets, key=lambda bracket: (bracket.band, bracket.completion)):
            if bracket.resumable:
                return min(bracket.resumable)
            if bracket.missing and new_possible:
                return None
        return None

    def on_resume(self, trial: int) -> None:
        """Learns that a paused trial trains again."""
        bracket = self._bracket_of.get(trial)
        if bracket is not None:
            bracket.resumable.discard(trial)
            bracket.waiting.discard(trial)

    def recall(self, decision: Decision) -> None:
        """Takes a trial for what it was decided to be."""
        if isinstance(decision, Stop):
            self._remove(decision.trial)
        elif isinstance(decision, Continue):
            self.on_resume(decision.trial)
        elif isinstance(decision, Pause) and decision.trial in self._bracket_of:
            bracket = self._bracket_of[decision.trial]
            bracket.waiting.add(decision.trial)
            bracket.release()

    def _remove(self, trial: int) -> list[Action]:
        bracket = self._bracket_of.pop(trial, None)
        if bracket is None:
            return []
        bracket.drop(trial)
        actions: list[Action] = list(self._decide(bracket, None))
        self._brackets = [bracket for bracket in self._brackets if bracket.members or bracket.missing]
        return actions

    def _decide(self, bracket: _Bracket, reporting: int | None) -> Iterator[Continue | Stop]:
        """Halves a bracket whose trials have all come to its milestone, until some have further to go."""
        while bracket.members and bracket.done:
            if bracket.halvings == 0:
                for trial in list(bracket.members):
                    yield self._complete(bracket, trial)
                return
            best, others = bracket.halve()
            cutoff = self.objective.value_of(bracket.score(best[0]))
            compared = len(best) + len(others)
            for trial in others:
                place, size = self._place(bracket, trial), len(best)
                reason = f"{place} is not among the best {size} of {compared} in its bracket"
                yield Stop(trial=trial, reason=reason, cutoff=cutoff, compared=compared)
                self._forget(bracket, trial)
            for trial in best:
                if trial == reporting and bracket.time(trial) < bracket.milestone:
                    reason = (
                        f"{self._place(bracket, trial)} is among the best {len(best)} of {compared} in its bracket"
                    )
                    yield Continue(trial=trial, reason=reason, cutoff=cutoff, compared=compared)
            bracket.release()

    def _complete(self, bracket: _Bracket, trial: int) -> Stop:
        at = self.axis.at(bracket.time(trial))
        reason = f"reached max_t at {at}"
        if bracket.milestone < self.options.max_t:
            reason = f"its bracket ended at {at}, the last of its milestones below max_t {self.options.max_t}"
        self._forget(bracket, trial)
        return Stop(trial=trial, reason=reason, status="completed")

    def _forget(self, bracket: _Bracket, trial: int) -> None:
        bracket.drop(trial)
        self._bracket_of.pop(trial, None)

    def _place(self, bracket: _Bracket, trial: int) -> str:
        value = self.objective.value_of(bracket.score(trial))
        return f"{self.axis.at(bracket.time(trial))}: {written(value)}"

    @property
    def _most_halvings(self) -> int:
        return int(np.round(np.log(self.options.max_t) / np.log(self.options.reduction_factor)))

    def _first_time(self, halvings: int) -> int:
        # Ray's arithmetic, rounding errors and all, as that of the sizes of brackets.
        return int(self.options.max_t * self.options.reduction_factor ** (-halvings))

    def _lengths(self) -> list[int]:
        """Halvings of each bracket that trains at all."""
        return [halvings for halvings in range(self._most_halvings + 1) if self._first_time(halvings) > 0]

    def _milestones(self, halvings: int) -> list[int]:
        times = [self._first_time(halvings)]
        for _ in range(halvings):
            times.append(min(times[-1] * self.options.reduction_factor, self.options.max_t))
        return times

    def _new_bracket(self) -> _Bracket:
        brackets = self._most_halvings + 1
        while self._first_time(self._made % brackets) == 0:
            self._made += 1
        band, halvings = divmod(self._made, brackets)
        self._made += 1
        factor = self.options.reduction_factor
        size = int(np.ceil(brackets / (halvings + 1) * factor**halvings))
        planned = self.setting.num_trials
        left = size if planned is None else max(planned - self._trials, 1)
        return _Bracket(band, size, min(size, left), self._milestones(halvings), factor)


class _Bracket:
    """Trials that are compared with each other.

    Args:
        band: The round of brackets that it belongs to.
        size: How many trials it may have.
        planned: How many it will get; fewer where the sweep has no more.
        milestones: The times at which its trials are compared, the last of which ends them.
        factor: One in so many continues.

    Attributes:
        members: The trials that have not ended, with their newest time and score.
        missing: Trials that are still to come.
        waiting: Paused trials that wait for others.
        resumable: Paused trials that may train again.
    """

    def __init__(self, band: int, size: int, planned: int, milestones: Sequence[int], factor: int) -> None:
        self.band = band
        self.members: dict[int, tuple[int, float] | None] = {}
        self.missing = planned
        self.waiting: set[int] = set()
        self.resumable: set[int] = set()
        self._size, self._milestones, self._factor = size, list(milestones), factor
        self._progress = 0
        self._work = self._planned_work()

    @property
    def milestone(self) -> int:
        """The time at which its trials are compared next."""
        return self._milestones[0]

    @property
    def halvings(self) -> int:
        """How often its trials are still to be halved."""
        return len(self._milestones) - 1

    @property
    def done(self) -> bool:
        """Whether all of its trials have come to the milestone."""
        times = (member[0] if member is not None else 0 for member in self.members.values())
        return not self.missing and all(time >= self.milestone for time in times)

    @property
    def completion(self) -> float:
        """The share of the planned work that is done."""
        return min(self._progress / self._work, 1.0)

    def add(self, trial: int) -> None:
        self.members[trial] = None
        self.missing -= 1

    def report(self, trial: int, time: int, score: float) -> None:
        before = self.members[trial]
        self._progress += time - (before[0] if before is not None else 0)
        self.members[trial] = time, score

    def drop(self, trial: int) -> None:
        for known in (self.waiting, self.resumable):
            known.discard(trial)
        self.members.pop(trial, None)

    def time(self, trial: int) -> int:
        return self._reported(trial)[0]

    def score(self, trial: int) -> float:
        return self._reported(trial)[1]

    def halve(self) -> tuple[list[int], list[int]]:
        """Moves to the next milestone; returns the trials that continue and those that do not, worst first."""
        self._milestones.pop(0)
        self._size = math.ceil(self._size / self._factor)
        ranked = sorted(self.members, key=self.score)
        return ranked[-self._size :], ranked[: -self._size]

    def release(self) -> None:
        """Lets those that wait train again, where they have further to go."""
        released = {trial for trial in self.waiting if self.time(trial) < self.milestone}
        self.waiting -= released
        self.resumable |= released

    def _reported(self, trial: int) -> tuple[int, float]:
        member = self.members[trial]
        assert member is not None
        return member

    def _planned_work(self) -> int:
        size, work = self._size, 0
        for before, milestone in itertools.pairwise([0, *self._milestones]):
            work += size * (milestone - before)
            size = math.ceil(size / self._factor)
        return work
