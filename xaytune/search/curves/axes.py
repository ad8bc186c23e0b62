"""The domains of a space as axes: every value is a number in [0, 1], and the features that a model sees."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaytune.search.configurations import hold
from xaytune.sweep.domains import Categorical, Domain, Float, Integer

Coordinates = NDArray[np.float64]


class Axis(ABC):
    """One parameter.

    Attributes:
        width: Features that it is to a model.
        count: Values that it can have; infinity where they are not counted.
    """

    width: int
    count: float

    @abstractmethod
    def settle(self, coordinates: Coordinates) -> Coordinates:
        """Moves coordinates to those of values that the parameter can have."""

    @abstractmethod
    def index(self, coordinates: Coordinates) -> Coordinates:
        """Returns which of its values coordinates stand for, where they are counted."""

    @abstractmethod
    def place(self, value: Any) -> int:
        """Returns which of its values a value is, where they are counted."""

    @abstractmethod
    def value(self, coordinate: float) -> Any:
        """Returns the value at a coordinate."""

    @abstractmethod
    def coordinate(self, value: Any) -> float:
        """Returns the coordinate of a value."""

    @abstractmethod
    def all(self) -> Coordinates:
        """Returns the coordinates of all values, where they are counted."""

    @abstractmethod
    def features(self, coordinates: Coordinates) -> Coordinates:
        """Returns what a model sees, ``[n, width]``; a parameter that does not exist has no coordinate (NaN)."""


class Numeric(Axis):
    """Numbers by their scale. Those in steps take the middles of equal cells, on their scale."""

    width = 1

    def __init__(self, domain: Float | Integer) -> None:
        self._domain = domain
        self._log = domain.log
        self._step = domain.q if isinstance(domain, Float) else 1
        self._first, self._last = domain.low, domain.high if isinstance(domain, Float) else domain.high - 1
        self.count = math.inf if self._step is None else round((self._last - self._first) / self._step) + 1
        margin = 0 if self._step is None else self._step / 2
        self._low, self._high = self._scaled(self._first - margin), self._scaled(self._last + margin)

    def settle(self, coordinates: Coordinates) -> Coordinates:
        """Moves coordinates to the nearest values."""
        if self._step is None:
            return np.clip(coordinates, 0, 1)
        return self._of_steps(self.index(coordinates))

    def index(self, coordinates: Coordinates) -> Coordinates:
        """Returns which of its steps coordinates stand for."""
        assert self._step is not None, "its values are not counted"
        steps = np.round((self._number(coordinates) - self._first) / self._step)
        return np.clip(steps, 0, self.count - 1)

    def place(self, value: Any) -> int:
        """Returns which of its steps a value is."""
        assert self._step is not None, "its values are not counted"
        step: int = round((value - self._first) / self._step)
        return step

    def value(self, coordinate: float) -> float | int:
        """Returns the value at a coordinate."""
        held = hold(self._domain, float(self._number(np.asarray(coordinate))))
        return int(held) if isinstance(self._domain, Integer) else float(held)

    def coordinate(self, value: Any) -> float:
        """Returns the coordinate of a value."""
        return (self._scaled(value) - self._low) / (self._high - self._low)

    def all(self) -> Coordinates:
        """Returns the coordinates of all values."""
        return self._of_steps(np.arange(self.count))

    def features(self, coordinates: Coordinates) -> Coordinates:
        """Returns what a model sees, ``[n, width]``."""
        return np.where(np.isnan(coordinates), 0.5, coordinates)[:, None]

    def _scaled(self, number: float) -> float:
        return math.log(number) if self._log else number

    def _number(self, coordinates: Coordinates) -> Coordinates:
        scaled = self._low + coordinates * (self._high - self._low)
        return np.exp(scaled) if self._log else scaled

    def _of_steps(self, steps: Coordinates) -> Coordinates:
        numbers = self._first + steps * (self._step or 0)
        scaled = np.log(numbers) if self._log else numbers
        return np.asarray((scaled - self._low) / (self._high - self._low))


class Choice(Axis):
    """Choices: one feature each, so that any two are equally far apart."""

    def __init__(self, domain: Categorical) -> None:
        self._domain = domain
        self.width = self.count = len(domain.choices)

    def settle(self, coordinates: Coordinates) -> Coordinates:
        """Moves coordinates to the nearest values."""
        return np.asarray((self.index(coordinates) + 0.5) / self.width)

    def index(self, coordinates: Coordinates) -> Coordinates:
        """Returns which choice a coordinate stands for."""
        return np.clip(np.floor(coordinates * self.width), 0, self.width - 1)

    def place(self, value: Any) -> int:
        """Returns which choice a value is."""
        return self._domain.index(value)

    def value(self, coordinate: float) -> Any:
        """Returns the value at a coordinate."""
        return self._domain.choices[int(self.index(np.asarray(coordinate)))]

    def coordinate(self, value: Any) -> float:
        """Returns the coordinate of a value."""
        return (self.place(value) + 0.5) / self.width

    def all(self) -> Coordinates:
        """Returns the coordinates of all values."""
        return (np.arange(self.width) + 0.5) / self.width

    def features(self, coordinates: Coordinates) -> Coordinates:
        """Returns what a model sees, ``[n, width]``."""
        # The distance of two choices is 1, as that of the two ends of a range.
        return np.asarray((self.index(coordinates)[:, None] == np.arange(self.width)) * math.sqrt(0.5))


def axis_of(domain: Domain) -> Axis:
    """Returns the axis of a domain."""
    return Choice(domain) if isinstance(domain, Categorical) else Numeric(domain)
