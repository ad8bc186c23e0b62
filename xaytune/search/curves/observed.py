"""How far the trials of a sweep are, and which of them trains in full whatever the model says."""

from __future__ import annotations

import bisect
import heapq
import math
from collections import defaultdict
from dataclasses import dataclass

from xaytune.search.curves.axes import Coordinates

# One trial is trained in full for so many times max_t that all have trained: four, with something to spare.
FULL_EVERY = 3.5
# And one of so many trials, where their number is limited: they may all be tried in little time.
FULL_EVERY_TRIALS = 18
# Not before so many have been seen.
FEW = 8
# It is among this share of the best at its level.
BEST_SHARE = 0.1
# Something is known of a level once so many trials have reached it.
_ENOUGH = 3


@dataclass
class ObservedTrial:
    """A trial.

    Attributes:
        number: From 0.
        point: Its configuration.
        features: What a model sees of it.
        time: When it was last seen; 0 before that.
        score: What it was worth then: a value turned so that larger is better.
        best: The best of its scores.
        chosen: Whether it trains in full whatever the model says.
    """

    number: int
    point: Coordinates
    features: Coordinates
    time: int = 0
    score: float = -math.inf
    best: float = -math.inf
    chosen: bool = False


class ObservedTrials:
    """The trials of a sweep.

    Args:
        limited: Whether there are only so many of them.

    Attributes:
        levels: Times at which they are judged, ascending; the last is that of a trial that was trained in full.
            Empty until it is known.
        trials: By number.
        running: Those that may still be seen again, by number.
        spent: What all trials have trained together.
        full: Trials that were trained in full, to the last level or to an end of their own.
    """

    def __init__(self, *, limited: bool = False) -> None:
        self._limited = limited
        self.levels: tuple[int, ...] = ()
        self.trials: list[ObservedTrial] = []
        self.running: dict[int, ObservedTrial] = {}
        self.spent = 0
        self.full = 0
        self._scores: defaultdict[int, list[float]] = defaultdict(list)

    @property
    def max_t(self) -> int:
        """When a trial was trained in full; 0 until it is known."""
        return max(self.levels, default=0)

    def begin(self, point: Coordinates, features: Coordinates) -> ObservedTrial:
        """Begins the next trial."""
        trial = ObservedTrial(len(self.trials), point, features)
        self.trials.append(trial)
        self.running[trial.number] = trial
        return trial

    def reach(self, trial: ObservedTrial, time: int, score: float) -> None:
        """Takes a score of a trial."""
        self.spent += time - trial.time
        trial.time, trial.score, trial.best = time, score, max(trial.best, score)
        self.full += time >= self.max_t
        bisect.insort(self._scores[self._level(time)], score)

    def end(self, number: int, *, completed: bool = False) -> None:
        """Learns that a trial trains no more, and whether it had an end of its own."""
        if self.running.pop(number, None) is not None and completed:
            self.full += self.trials[number].time < self.max_t

    def reopen(self, number: int) -> None:
        """Learns that a trial trains on after all."""
        self.running[number] = self.trials[number]

    def best(self, count: int) -> list[ObservedTrial]:
        """Returns the best trials, of those that were seen."""
        seen = (trial for trial in self.trials if trial.time)
        return heapq.nsmallest(count, seen, key=lambda trial: -trial.best)

    def level_after(self, time: int, steps: int = 1) -> int:
        """Returns the level so many after a time; the last, where there are not as many."""
        return self.levels[min(bisect.bisect(self.levels, time) + steps - 1, len(self.levels) - 1)]

    def known_level(self) -> int:
        """Returns the latest level that some trials have reached, and the second at least."""
        reached = [level for level, scores in self._scores.items() if len(scores) >= _ENOUGH]
        return max(self.levels[max(reached, default=0)], self.level_after(0, 2))

    def choose(self, trial: ObservedTrial, *, closing: bool) -> bool:
        """Tells whether a trial is to train in full whatever the model says; it does so to its end.

        Without some that do, none may: a model knows little beyond the levels that were reached, and draws what
        comes later back to the mean, so that a new trial, asked about at an early level, looks better.

        Args:
            trial: It has just reached a level.
            closing: Whether nothing new is to be started in its place: one trial at least is to train in full.
        """
        # While it trains to its end, so do the others that run.
        spent = self.spent + len(self.running) * (self.max_t - trial.time)
        due = spent // (FULL_EVERY * self.max_t) if len(self.trials) >= FEW else 0
        if self._limited:
            due = max(due, len(self.trials) // FULL_EVERY_TRIALS)
        due = max(due, int(closing))
        if not trial.chosen and self.full + sum(other.chosen for other in self.running.values()) < due:
            scores = self._scores[self._level(trial.time)]
            alone = closing and len(self.running) == 1
            trial.chosen = alone or trial.score >= scores[-math.ceil(BEST_SHARE * len(scores))]
        return trial.chosen

    def survives(self, trial: ObservedTrial) -> bool:
        """Tells whether successive halving would let a trial train on: as large a share does as the time grows."""
        scores = self._scores[self._level(trial.time)]
        kept = trial.time / self.level_after(trial.time)
        return trial.score >= scores[-max(1, math.ceil(kept * len(scores)))]

    def _level(self, time: int) -> int:
        return max(bisect.bisect(self.levels, time) - 1, 0)
