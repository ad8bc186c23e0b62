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
# A width is measured for so long, while the process has nearly as many trials.
_WINDOW_S = 1.0
_FEWEST_ROUNDS = 20
_NEARLY = 0.75
# Twice as many must train so many times as fast: more trials at once cost memory, and a search knows less of them.
_GAIN = 1.15
# What twice as many trials take must fit into this share of the memory.
_SHARE = 0.8


class Width:
    """Doubles while that trains faster and there is memory, and then stays.

    Args:
        fits: Tells whether there is memory for twice as many.

    Attributes:
        wanted: How many trials the process is to be given.
    """

    def __init__(self, fits: Callable[[], bool]) -> None:
        self.wanted = FIRST_WIDTH
        self._fits = fits
        self._settled = False
        self._before = 0.0  # steps a second, with half as many
        self._rounds: list[tuple[float, int]] = []  # seconds a step, and steps

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
            self._settled, self.wanted = True, most
            return f"{most} at once: there is no memory for more"
        if trials < _NEARLY * self.wanted or not steps:
            return None
        self._rounds.append((seconds / steps, steps))
        if sum(each * steps for each, steps in self._rounds) < _WINDOW_S or len(self._rounds) < _FEWEST_ROUNDS:
            return None
        rate, self._rounds = 1 / _median(self._rounds), []
        return self._measured(rate)

    def _measured(self, rate: float) -> str | None:
        if rate >= _GAIN * self._before and 2 * self.wanted <= MOST and self._fits():
            self.wanted, self._before = 2 * self.wanted, rate
            return None
        self._settled = True
        if rate < self._before:
            self.wanted //= 2
            return f"{self.wanted} at once: {self._before:.0f} steps a second, with twice as many {rate:.0f}"
        why = f", with half as many {self._before:.0f}" if self._before else ""
        return f"{self.wanted} at once: {rate:.0f} steps a second{why}"


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
