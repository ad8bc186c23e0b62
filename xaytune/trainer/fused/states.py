"""Random states of runs that are trained side by side: the global ones are those of one run at a time."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch


class Randomness:
    """The global random states, which are those of one member at a time."""

    def __init__(self) -> None:
        self._whose: States | None = None

    def enter(self, states: States) -> None:
        """Makes them those of a member."""
        if self._whose is states:
            return
        self.vacate()
        states.put()
        self._whose = states

    def vacate(self) -> None:
        """Takes them back from the member that has them: what is drawn now changes no member."""
        if self._whose is not None:
            self._whose.take()
            self._whose = None


class States:
    """The random states of a member: at first those of the process.

    Args:
        entered: Called when its states have become the global ones: its code is to run.
        left: Called when they are to be so no longer.

    Attributes:
        owner: Stands for whose they are, and keeps nothing of it alive.
    """

    def __init__(self, entered: Callable[[], None] | None = None, left: Callable[[], None] | None = None) -> None:
        self._entered, self._left = entered, left
        self.owner = object()
        self._cpu = torch.Generator()
        self._cuda: torch.Generator | None = None
        self._take()

    def generator(self, device: torch.device) -> torch.Generator:
        """Returns what draws as a device's global generator would, while these states are not the global ones."""
        if device.type != "cuda":
            return self._cpu
        if self._cuda is None:
            self._cuda = torch.Generator(device)
            self._cuda.set_state(torch.cuda.get_rng_state(device))
        return self._cuda

    def take(self) -> None:
        """Takes the global states."""
        if self._left is not None:
            self._left()
        self._take()

    def _take(self) -> None:
        numpy: Any = np.random.get_state(legacy=False)
        if "key" in numpy["state"]:  # the 624 numbers of MT19937: numpy reads a list much faster than an array
            numpy["state"]["key"] = numpy["state"]["key"].tolist()
        self._python, self._numpy = random.getstate(), numpy
        self._cpu.set_state(torch.get_rng_state())
        if self._cuda is not None:
            self._cuda.set_state(torch.cuda.get_rng_state(self._cuda.device))

    def put(self) -> None:
        """Makes these the global states."""
        random.setstate(self._python)
        np.random.set_state(self._numpy)
        torch.set_rng_state(self._cpu.get_state())
        if self._cuda is not None:
            torch.cuda.set_rng_state(self._cuda.get_state(), self._cuda.device)
        if self._entered is not None:
            self._entered()
