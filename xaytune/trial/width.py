"""How many trials a process is to train at once, where the spec leaves that to it: found by trying."""

from __future__ import annotations

import resource
import time
from collections.abc import Callable
from pathlib import Path

from xaytune.trial.messages import Task

__all__ = ["FIRST_WIDTH", "Memory", "Width", "clock_for"]

FIRST_WIDTH = 8
MOST = 1024
# A width is measured for so long, and so many rounds, while the process has nearly as many trials.
_WINDOW_S = 1.0
_ROUNDS = 40
_NEARLY = 0.75
# They must train so many times as fast as in two halves, for twice as many to be tried: more trials at once cost
# memory, and a search knows less of them.
_GAIN = 1.15
# What twice as many trials take must fit into this share of the memory.
_SHARE = 0.8


class Width:
    """Doubles while trials train faster at once than in two halves and there is memory, and then stays.

    What is compared is measured in turns: what else the machine does meanwhile slows both down.

    Args:
        fits: Tells whether there is memory for twice as many.

    Attributes:
        wanted: How many trials the process is to be given.
        halved: Whether the next round is to be taken in two halves.
    """

    def __init__(self, fits: Callable[[], bool]) -> None:
        self.wanted, self.halved = FIRST_WIDTH, False
        self._fits = fits
        self._settled = False
        self._rounds: dict[bool, list[tuple[float, int]]] = {False: [], True: []}  # seconds a step, and steps

    def did(self, steps: int, seconds: float, trials: int, most: int) -> str | None:
        """Takes in what was done in a round.

        Args:
            steps: Steps and evaluations.
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
        if trials < _NEARLY * self.wanted or not steps:
            return None
        self._rounds[self.halved].append((seconds / steps, steps))
        self.halved = not self.halved
        rounds = [*self._rounds[False], *self._rounds[True]]
        if len(rounds) < _ROUNDS or sum(each * steps for each, steps in rounds) < _WINDOW_S:
            return None
        gain = _median(self._rounds[True]) / _median(self._rounds[False])
        self._rounds = {False: [], True: []}
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
        self.wanted, self.halved, self._settled = width, False, True


def _median(rounds: list[tuple[float, int]]) -> float:
    """The seconds of the median step: rounds in which trials begin or end, or few take a step, hardly count."""
    half, done = sum(steps for _, steps in rounds) / 2, 0
    for each, steps in sorted(rounds):
        done += steps
        if done >= half:
            return each
    raise ValueError("there are no rounds")


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
    return int(line.split()[1]) * 1024
