"""Whether steps are faster taken at once than one after the other: measured on the first ones of a group."""

from __future__ import annotations

import math
import time
from collections.abc import Hashable

import torch

# Fewer members than this take their steps one after the other, which is as fast.
FEWEST = 3

# Steps that are measured, of which the fastest counts: what disturbs them makes them slower.
_STEPS = 8
# Where so many at once are not faster, more would not be either.
_ENOUGH = 8


class FusionTiming:
    """Times of steps of the same shapes.

    If few at once are not faster, it is measured again with twice as many.

    Attributes:
        fewest: With fewer members than this, steps are taken one after the other.
    """

    def __init__(self) -> None:
        self.fewest, self._done = FEWEST, False
        self._shapes: Hashable = None
        self._alone = self._together = math.inf
        self._members, self._left = 0, _STEPS

    def begin(self, shapes: Hashable) -> bool:
        """Tells whether a step over batches of these shapes is to be measured.

        The first shapes decide which are; none is once it shows what is faster.
        """
        if self._shapes is None:
            self._shapes = shapes
        return not self._done and shapes == self._shapes

    def took(self, alone: float, together: float, members: int) -> str | None:
        """Takes in the seconds of a step alone, and of one of several members at once.

        Returns:
            Why they are not to be fused; None where they are, or it does not show yet.
        """
        self._alone = min(self._alone, alone)
        if together / members < self._together:
            self._together, self._members = together / members, members
        self._left -= 1
        if self._left > 0:
            return None
        each, one = self._together, self._alone
        self._done = each < one
        if self._done:
            return None
        if self._members < _ENOUGH:
            self.fewest = 2 * self._members
            self._alone = self._together = math.inf
            self._left = _STEPS
            return None
        self._done = True
        return f"a step of {self._members} at once takes {each * 1e3:.3g} ms each, and alone {one * 1e3:.3g} ms"


def now(device: torch.device) -> float:
    """Returns the time, in seconds, when a device has done what it was given; on a CPU, that of this process.

    Where others compute on the same CPU, what takes longer is interrupted more often.
    """
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()
