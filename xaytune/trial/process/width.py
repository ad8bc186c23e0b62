"""How many trials a process is to train at once, where the spec leaves that to it: found by trying."""

from __future__ import annotations

import random
import resource
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from xaytune.messages import FIRST_WIDTH, Task
from xaytune.trial.common.kernel import memory_left

MOST = 1024
# Seconds and rounds, at least, that a width is measured for, while the process has nearly as many trials.
_WINDOW_S = 1.0
_ROUNDS = 40
# Rounds in halves, and as many not, that are enough to be compared.
_ENOUGH = 3
# Share of the trials wanted that is nearly as many.
_NEARLY = 0.75
# Times as fast as in two halves that trials must train for twice as many to be tried: more trials at once cost
# memory, and a search knows less of them.
_GAIN = 1.1
# Share of the memory that what twice as many trials take must fit into.
_SHARE = 0.8


class Width:
    """Doubles while trials train faster at once than in two halves and there is memory, and then stays.

    What is compared is measured by turns, which are drawn: what else the machine does meanwhile slows both down.
    Rounds are compared with such of as many steps in a row: the more, the faster is each.

    Args:
        fits: Tells whether there is memory for twice as many.

    Attributes:
        wanted: How many trials the process is to be given.
    """

    def __init__(self, fits: Callable[[], bool]) -> None:
        self.wanted, self._halved = FIRST_WIDTH, False
        self._fits = fits
        self._settled = False
        self._turns = random.Random(0)
        self._rounds = _Rounds()

    def halves(self, trials: int) -> bool:
        """Whether the next round is to be taken in two halves, of so many trials that the process has."""
        return self._halved and self._are_enough(trials)

    def did(self, steps: int, in_a_row: int, seconds: float, trials: int, most: int) -> str | None:
        """Takes in what was done in a round.

        Args:
            steps: Steps and evaluations, of all trials.
            in_a_row: Steps that a trial took in a row; 0 where they were evaluated.
            seconds: What they took.
            trials: How many the process has.
            most: How many can be trained at once: where memory ran out, that is known.

        Returns:
            What was found, once it is.
        """
        if self._settled:
            return None
        if most < self.wanted:
            self._settle(most)
            return f"{most} at once: there is no memory for more"
        if not self._are_enough(trials) or not steps:
            return None
        self._rounds.add(self._halved, in_a_row, steps, seconds)
        self._halved = self._turns.random() < 0.5
        gain = self._rounds.gain()
        if gain is None:
            return None
        self._rounds = _Rounds()
        return self._measured(gain)

    def _measured(self, gain: float) -> str | None:
        if gain >= _GAIN and 2 * self.wanted <= MOST and self._fits():
            self.wanted *= 2
            return None
        if gain < 1.0:
            self._settle(self.wanted // 2)
            return f"{self.wanted} at once: {1 / gain:.2f} times as fast as {2 * self.wanted}"
        self._settle(self.wanted)
        return f"{self.wanted} at once: {gain:.2f} times as fast as in two halves"

    def _settle(self, width: int) -> None:
        self.wanted, self._halved, self._settled = width, False, True

    def _are_enough(self, trials: int) -> bool:
        return trials >= _NEARLY * self.wanted


class _Rounds:
    """Rounds of one width."""

    def __init__(self) -> None:
        # Seconds of each step, by whether it was in halves, and by steps in a row.
        self._each: dict[bool, defaultdict[int, list[float]]] = {False: defaultdict(list), True: defaultdict(list)}
        self._seconds, self._count = 0.0, 0

    def add(self, halved: bool, in_a_row: int, steps: int, seconds: float) -> None:
        """Takes in a round."""
        self._each[halved][in_a_row].append(seconds / steps)
        self._seconds, self._count = self._seconds + seconds, self._count + 1

    def gain(self) -> float | None:
        """Returns how many times as fast steps are at once as in halves; None while that is not known."""
        whole, halves = self._each[False], self._each[True]
        known = [n for n in whole if min(len(whole[n]), len(halves.get(n, []))) >= _ENOUGH]
        if self._count < _ROUNDS or self._seconds < _WINDOW_S or not known:
            return None
        weights = [max(1, n) * (len(whole[n]) + len(halves[n])) for n in known]
        gains = [statistics.median(halves[n]) / statistics.median(whole[n]) for n in known]
        return statistics.fmean(gains, weights)


class Memory:
    """Tells whether there is memory for twice as many trials, by what those that there are have taken.

    Args:
        gpus: The share of a GPU that a process has; 0 is none.
    """

    def __init__(self, gpus: float) -> None:
        self._share = min(1.0, gpus)
        self._begun_with = _resident()

    def __call__(self) -> bool:
        """Whether there is."""
        grown = _resident() - self._begun_with
        if grown > _SHARE * _available():
            return False
        if not self._share:
            return True
        import torch

        _, whole = torch.cuda.mem_get_info()
        return 2 * torch.cuda.max_memory_reserved() <= _SHARE * self._share * whole


def clock_for(task: Task) -> Callable[[], float]:
    """Returns what a process measures its work by: a CPU's time is that of others too."""
    return time.monotonic if task.gpus else time.process_time


def _resident() -> int:
    """Bytes that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _available() -> int:
    """Bytes of memory that there are for more."""
    line = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    return min([int(line.split()[1]) * 1024, *memory_left()])
