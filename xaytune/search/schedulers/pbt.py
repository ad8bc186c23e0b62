"""Population based training (Jaderberg et al., 2017), with Ray Tune's quantiles and perturbations."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, ClassVar

from xaytune.errors import Problem, SpecError
from xaytune.search.configurations import draw_value, hold, seeded
from xaytune.search.method import Action, Continue, Decision, End, Exploit, KeepCheckpoint, Pause, Result, Stop
from xaytune.search.schedulers.scheduler import Scheduler
from xaytune.sweep.algorithms import Options, PbtSpec
from xaytune.sweep.domains import Categorical, Domain, Integer
from xaytune.sweep.numbers import told_apart, trials, written
from xaytune.sweep.parameter import Parameter
from xaytune.sweep.space import Space
from xaytune.sweep.time_axis import DecisionPoints, TimeAxis

_FACTORS = (1.2, 0.8)


@dataclass
class _Member:
    """A trial of the population: how far it is, what it was worth there, and what is kept of it for others."""

    config: Mapping[str, Any]
    time: int = 0
    score: float | None = None
    judgements: int = 0
    paused: bool = False
    taken_over: int = 0  # the age at which it took over another
    kept_time: int = -1  # of the checkpoint that others may take over
    kept_score: float | None = None
    kept_config: Mapping[str, Any] = field(default_factory=dict)
    # Of its results the ages, in intervals, after which and up to which each counts, and the scores.
    results: list[tuple[int, int, float]] = field(default_factory=list)

    def score_at(self, age: int) -> float | None:
        """Returns its newest score that counts for an age."""
        return next((score for after, to, score in reversed(self.results) if after < age <= to), None)


class PbtScheduler(Scheduler):
    """The worst of a population take over the checkpoints of the best, and perturb their configurations.

    Trials are compared at the same age, by the first result of each from there on. With `synch` all wait for each
    other at each interval. Without, a trial is paused only where another one waits for its place, and then judged
    once all have come to its age. Else, or if it trains again before that, it is judged at the newest age that
    1 / `quantile_fraction` trials (or all there are) have come to. Trials that have ended are neither compared nor
    taken over.
    """

    options_model: ClassVar[type[Options]] = PbtSpec
    options: PbtSpec

    def setup(self) -> None:
        """Begins without trials.

        Raises:
            SpecError: The number of trials is not known.
        """
        if self.setting.num_trials is None:
            message = "must be given: a population has a size"
            raise SpecError([Problem(("num_samples",), message)])
        self._population = self.setting.num_trials
        self._members: dict[int, _Member] = {}  # those that have not ended, as they came or were paused
        self._added = 0
        self._next_synch = max(self.options.perturbation_interval, self.options.burn_in_period)

    @property
    def points(self) -> DecisionPoints:
        """Trials are judged, and saved, at each interval."""
        axis = TimeAxis(self.options.time_attr)
        return DecisionPoints(axis, every=self.options.perturbation_interval, pausing=True)

    def on_add(self, trial: int, config: Mapping[str, Any]) -> None:
        """Takes a new trial into the population."""
        self._members[trial] = _Member(config)
        self._added += 1

    def on_result(self, trial: int, result: Result) -> Sequence[Action]:
        """Lets a trial that is among the worst of its age take over one of the best."""
        assert result.value is not None
        member, before = self._members[trial], self._age(trial)
        member.time, member.score = result.time, self.objective.score(result.value)
        member.judgements += 1
        if self.options.synch:
            return self._wait_for_all(trial, result.value)
        if result.time < self.options.burn_in_period:
            reason = f"{self.axis.at(result.time)}: {written(result.value)}, within burn_in_period"
            return self.keep_training(trial, reason)
        age = self._age(trial)
        member.results.append((min(before, age - 1), age, member.score))
        self._prune()
        scores = self._scores_at(age)
        pausing = self._others_wait(trial)
        judged = self._judge(trial, age - pausing)
        if isinstance(judged, Exploit):
            return [judged]
        if pausing:
            self._pause(trial)
            kept = self._keep(trial, scores)
            reason = f"leaves its place at {self.axis.at(result.time)} to the others of its population"
            return self._first(trial, Pause(trial=trial, reason=reason), kept, self._judge_paused())
        return [judged, *self._keep(trial, scores)]

    def on_diverged(self, trial: int, result: Result) -> Sequence[Action]:
        """Takes a trial out of the population."""
        return self._remove(trial)

    def on_end(self, trial: int, end: End) -> Sequence[Action]:
        """Takes a trial out of the population."""
        return self._remove(trial)

    def next_to_resume(self, *, new_possible: bool) -> int | None:
        """Returns the paused trial that has come least far; a new one has not come at all."""
        if new_possible:
            return None
        waiting = [trial for trial, member in self._members.items() if self._resumable(member)]
        return min(waiting, key=lambda trial: self._members[trial].time, default=None)

    def on_resume(self, trial: int) -> None:
        """Learns that a paused trial trains again."""
        if trial in self._members:
            self._members[trial].paused = False

    def recall(self, decision: Decision) -> None:
        """Takes a trial for what it was decided to be."""
        member = self._members.get(decision.trial)
        if member is None:
            return
        if isinstance(decision, Exploit):
            self._take_over(decision.trial, decision.donor, decision.config)
        elif isinstance(decision, Stop):
            self._remove(decision.trial)
        else:
            member.paused = isinstance(decision, Pause)

    def _wait_for_all(self, trial: int, value: float) -> list[Action]:
        """Pauses a trial until all have come to the interval; the last one that comes decides on all of them."""
        at = self.axis.at(self._members[trial].time)
        if self._members[trial].time < self._next_synch:
            reason = f"{at}: {written(value)}, its population is compared at {self.axis.at(self._next_synch)}"
            return self.keep_training(trial, reason)
        self._pause(trial)
        kept = self._keep(trial, self._synchronized())
        reason = f"waits at {at} for the others of its population"
        return self._first(trial, Pause(trial=trial, reason=reason), kept, self._synchronize())

    @staticmethod
    def _first(trial: int, own: Action, kept: list[Action], exploits: Iterable[Exploit]) -> list[Action]:
        """Puts what happens to a trial itself before what happens to others."""
        decisions: dict[int, Action] = {exploit.trial: exploit for exploit in exploits}
        return [decisions.pop(trial, own), *kept, *decisions.values()]

    def _judge(self, trial: int, newest: int) -> Exploit | Continue:
        """Judges a trial at the newest age up to one at which there are enough others to compare it with."""
        for age in self._ages(self._members[trial].taken_over, newest):
            scores, time = self._scores_at(age), age * self.options.perturbation_interval
            if trial in scores and len(scores) >= self._enough:
                worst, donors = self._quantiles(scores, time)
                if trial in worst and donors:
                    return self._exploit(trial, donors, scores, time)
                reason = f"{self._place(trial, time)}: {written(self.objective.value_of(scores[trial]))}"
                if trial in worst:
                    reason += (
                        f" is among the worst of {trials(len(scores))}, but no checkpoint of the best is kept"
                    )
                else:
                    reason += f" is not among the worst of {trials(len(scores))}"
                return Continue(trial=trial, reason=reason, compared=len(scores) - 1)
        come = len(self._scores_at(self._age(trial)))
        at = self.axis.at(self._members[trial].time)
        reason = f"{at}: not compared, {come} of the {trials(self._enough)} that it takes have come as far"
        return Continue(trial=trial, reason=reason)

    def _place(self, trial: int, time: int) -> str:
        """Returns a text that says where a trial is, and when it is compared, if that was before."""
        now = self._members[trial].time
        return self.axis.at(now) + (f", compared at {self.axis.at(time)}" if time < now else "")

    def _judge_paused(self) -> Iterator[Exploit]:
        """Judges the trials that wait for a place, where all have come to their age."""
        if self._added < self._population:
            return
        youngest = self._youngest()
        waiting = [trial for trial, m in self._members.items() if m.paused and self._age(trial) == youngest]
        scores, time = self._scores_at(youngest), youngest * self.options.perturbation_interval
        worst, donors = self._quantiles(scores, time)
        for trial in waiting:
            if trial in worst and donors and self._members[trial].taken_over < youngest:
                yield self._exploit(trial, donors, scores, time)

    def _age(self, trial: int) -> int:
        """The intervals that a trial has trained."""
        return self._members[trial].time // self.options.perturbation_interval

    def _youngest(self) -> int:
        """The intervals that all trials have trained."""
        return 0 if self._added < self._population else min(map(self._age, self._members), default=0)

    def _ages(self, after: int, newest: int) -> list[int]:
        """The ages for which enough trials may have scores, newest first: more have where one has a result."""
        each = [[to for _, to, _ in member.results] for member in self._members.values() if member.results]
        come = sorted(map(max, each), reverse=True)
        if len(come) < self._enough:
            return []
        oldest, newest = max(after + 1, self._youngest()), min(newest, come[self._enough - 1])
        return sorted((age for age in {newest}.union(*each) if oldest <= age <= newest), reverse=True)

    def _scores_at(self, age: int) -> dict[int, float]:
        """The scores of trials at an age."""
        scores = ((trial, member.score_at(age)) for trial, member in self._members.items())
        return {trial: score for trial, score in scores if score is not None}

    @property
    def _enough(self) -> int:
        """How many trials it takes to tell the worst."""
        return max(2, min(math.ceil(1 / self.options.quantile_fraction), self._size))

    def _synchronized(self) -> dict[int, float]:
        """The scores of those that have come to the interval."""
        come = ((trial, m.score) for trial, m in self._members.items() if m.time >= self._next_synch)
        return {trial: score for trial, score in come if score is not None}

    def _synchronize(self) -> Iterator[Exploit]:
        """Lets the worst take over the best, where all have come to the interval."""
        scores = self._synchronized()
        if not scores or len(scores) < self._size:
            return
        worst, donors = self._quantiles(scores, self._next_synch)
        self._next_synch = int(self.points.after(max(member.time for member in self._members.values())))
        for trial in worst if donors else ():
            yield self._exploit(trial, donors, scores, self._members[trial].time)

    def _quantiles(self, scores: Mapping[int, float], time: int) -> tuple[list[int], list[int]]:
        """Returns the worst of some trials, and those of the best that can be taken over from a time on.

        There are none where there are too few to tell.
        """
        ranked = sorted(scores, key=lambda trial: (scores[trial], trial))
        if len(ranked) < self._enough:
            return [], []
        share = min(math.ceil(len(ranked) * self.options.quantile_fraction), len(ranked) // 2)
        best = ranked[len(ranked) - share :]
        return ranked[:share], [trial for trial in best if self._members[trial].kept_time >= time]

    def _keep(self, trial: int, scores: Mapping[int, float]) -> list[Action]:
        """Keeps the checkpoint of a trial that may be among the best once all have come, while it is there."""
        better = sum(score > scores[trial] for score in scores.values())
        if better >= math.ceil(self._size * self.options.quantile_fraction):
            return []
        member = self._members[trial]
        member.kept_time, member.kept_score, member.kept_config = member.time, member.score, member.config
        return [KeepCheckpoint(trial)]

    @property
    def _size(self) -> int:
        """Trials that have not ended, and those to come."""
        return len(self._members) + self._population - self._added

    def _exploit(self, trial: int, donors: Sequence[int], scores: Mapping[int, float], time: int) -> Exploit:
        """Lets a trial take over one of the best, as their scores at a time tell."""
        rng = seeded(self.setting.seed, trial, self._members[trial].judgements)
        donor = rng.choice(donors)
        config = self.explore(trial, donor, self._members[donor].kept_config, rng)
        mine, theirs = told_apart(self.objective.value_of(scores[trial]), self.objective.value_of(scores[donor]))
        place = self._place(trial, time)
        self._take_over(trial, donor, config)
        reason = f"{place}: {mine} is among the worst, and {theirs} of trial {donor} among the best"
        return Exploit(trial=trial, reason=reason, donor=donor, config=config)

    def config_of(self, trial: int) -> Mapping[str, Any]:
        """Returns the configuration that a trial has now."""
        return self._members[trial].config

    def explore(self, trial: int, donor: int, config: Mapping[str, Any], rng: Random) -> dict[str, Any]:
        """Returns the configuration that a trial continues with, from that of the trial it takes over."""
        names = {parameter.name for parameter in self.setting.space.mutated(self.options.hyperparam_mutations)}

        def perturb(parameter: Parameter, value: Any) -> Any:
            if parameter.name not in names:
                return value
            if rng.random() < self.options.resample_probability:
                return draw_value(parameter.domain, rng)
            return perturbed(parameter.domain, value, rng)

        return changed(self.setting.space, config, perturb, rng)

    def _take_over(self, trial: int, donor: int, config: Mapping[str, Any]) -> None:
        member = self._members[trial]
        member.config = config
        if donor in self._members:
            member.time, member.score = self._members[donor].kept_time, self._members[donor].kept_score
        self._pause(trial)
        member.taken_over = self._age(trial)

    def _pause(self, trial: int) -> None:
        """Pauses a trial; it comes last of those that are as old."""
        member = self._members[trial] = self._members.pop(trial)
        member.paused = True

    def _others_wait(self, trial: int) -> bool:
        others = (member for other, member in self._members.items() if other != trial)
        return self._added < self._population or any(member.paused for member in others)

    def _resumable(self, member: _Member) -> bool:
        return member.paused and (not self.options.synch or member.time < self._next_synch)

    def _remove(self, trial: int) -> list[Action]:
        if self._members.pop(trial, None) is None:
            return []
        return list(self._synchronize() if self.options.synch else self._judge_paused())

    def _prune(self) -> None:
        """Forgets results for ages that all trials have passed."""
        youngest = self._youngest()
        for member in self._members.values():
            member.results = [result for result in member.results if result[1] >= youngest]


def changed(
    space: Space, config: Mapping[str, Any], change: Callable[[Parameter, Any], Any], rng: Random
) -> dict[str, Any]:
    """Returns a changed configuration of the space: children appear and vanish with their parents.

    Args:
        space: The space.
        config: The configuration to begin from.
        change: Gives the new value of a parameter, from the one that it has.
        rng: What parameters are drawn from that did not exist.
    """
    values = space.values(config)
    return space.configure(lambda p: change(p, values[p.name]) if p.name in values else draw_value(p.domain, rng))


def perturbed(domain: Domain, value: Any, rng: Random) -> Any:
    """Returns a neighbour of a choice, or a number times a factor; it stays within the domain."""
    if not isinstance(domain, Categorical):
        factor = rng.choice(_FACTORS)
        moved = hold(domain, value * factor)
        step = 1 if isinstance(domain, Integer) else domain.q
        if moved == value and step is not None:  # the factor is too small for a step: it takes one all the same
            moved = hold(domain, value + math.copysign(step, value * (factor - 1)))
        return moved
    place = domain.index(value) + rng.choice((-1, 1))
    return domain.choices[min(max(place, 0), len(domain.choices) - 1)]
