"""Domains: the values that a parameter can take. Each checks itself when it is made, and says what is wrong."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from xaytune.sweep.values import key, same, text

# A domain with more values than this is not one to try each value of.
_MAX_COUNTED = 100_000
# Beyond this the width of a range would overflow.
_LARGEST = 1e300
# Values that are shown of a domain that has more.
_MOST_SHOWN = 20


@dataclass(frozen=True)
class Float:
    """Floats from `low` to `high`, evenly over the logarithm if `log`, in steps of `q` if given."""

    low: float
    high: float
    log: bool = False
    q: float | None = None
    gridded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)
        if self.q is not None:
            if not 0 < self.q <= self.high - self.low:
                raise ValueError(f"q must be above 0 and at most high - low (got {self.q})")
            steps = (self.high - self.low) / self.q
            if not math.isfinite(steps) or not math.isclose(steps, round(steps), rel_tol=1e-9):
                raise ValueError(f"high - low must be a multiple of q (got {self.low}, {self.high}, {self.q})")
        for name in ("low", "high", "q"):  # what is computed of them is to be a float, too
            if (bound := getattr(self, name)) is not None:
                object.__setattr__(self, name, float(bound))

    def values(self) -> Sequence[float] | None:
        """All values there are; None if they are too many to be tried each."""
        if self.q is None or (steps := self.step_of(self.high)) >= _MAX_COUNTED:
            return None
        return [self.at_step(step) for step in range(steps + 1)]

    def at_step(self, step: int) -> float:
        """Returns the value so many steps of `q` above `low`, as a person writes it: 0.9, not 0.899..."""
        assert self.q is not None, "it has no steps"
        value = min(self.low + step * self.q, self.high)
        short = float(f"{value:.12g}")
        rounding = 2 * math.ulp(max(abs(self.low), abs(self.high)))
        return short if abs(short - value) <= rounding and self.low <= short <= self.high else value

    def step_of(self, value: float) -> int:
        """Returns how many steps of `q` above `low` a value is, or the nearest one that the domain has."""
        assert self.q is not None, "it has no steps"
        return round((min(max(value, self.low), self.high) - self.low) / self.q)

    def accept(self, value: Any) -> float:
        """Returns a value as the domain gives it.

        Raises:
            ValueError: It is none of the domain.
        """
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a number (got {value!r})")
        if not self.low <= value <= self.high:
            raise ValueError(f"must be from {self.low:g} to {self.high:g} (got {value})")
        steps = (value - self.low) / self.q if self.q is not None else 0.0
        if not math.isclose(steps, round(steps), rel_tol=1e-9, abs_tol=1e-9):
            raise ValueError(f"must be {self.low:g} plus a multiple of {self.q:g} (got {value})")
        return float(value)


@dataclass(frozen=True)
class Integer:
    """Integers from `low` to `high` - 1, evenly over the logarithm if `log`."""

    low: int
    high: int
    log: bool = False
    gridded: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _check_bounds(self.low, self.high, self.log)

    def values(self) -> Sequence[int] | None:
        """All values there are; None if they are too many to be tried each."""
        return range(self.low, self.high) if self.high - self.low <= _MAX_COUNTED else None

    def accept(self, value: Any) -> int:
        """Returns a value as the domain gives it.

        Raises:
            ValueError: It is none of the domain.
        """
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an integer (got {value!r})")
        if not self.low <= value < self.high:
            raise ValueError(f"must be from {self.low} to {self.high - 1} (got {value})")
        return int(value)


@dataclass(frozen=True)
class Categorical:
    """One of the choices; if `gridded`, each of them in turn. Choices may differ by their type: 0 and False."""

    choices: tuple[Any, ...]
    gridded: bool = False

    def __post_init__(self) -> None:
        if not self.choices:
            raise ValueError("needs at least one value (got an empty list)")
        if len(set(map(_identity, self.choices))) < len(self.choices):
            raise ValueError(f"holds a value twice (got {text(list(self.choices))})")

    def values(self) -> Sequence[Any]:
        """All values there are."""
        return self.choices

    def accept(self, value: Any) -> Any:
        """Returns a value as the domain gives it; a number also where only its type is another: 1 for 1.0.

        Raises:
            ValueError: It is none of the domain.
        """
        for choice in self.choices:
            if same(choice, value):
                return choice
        if type(value) in (int, float):
            equal = [choice for choice in self.choices if type(choice) in (int, float) and choice == value]
            if equal:
                return equal[0]
        shown = ", ".join(text(choice) for choice in self.choices[:_MOST_SHOWN])
        more = ", ..." if len(self.choices) > _MOST_SHOWN else ""
        raise ValueError(f"must be one of {shown}{more} (got {value!r})")

    def index(self, value: Any) -> int:
        """Returns the place of a value among the choices.

        Raises:
            ValueError: It is none of them.
        """
        accepted = self.accept(value)
        return next(place for place, choice in enumerate(self.choices) if choice is accepted)


Domain = Float | Integer | Categorical


def _identity(value: Any) -> Hashable:
    """Tells True from 1, and 1 from 1.0."""
    return (type(value), value) if type(value) in (int, str, bool) else key(value)


def _check_bounds(low: float, high: float, log: bool) -> None:
    if max(abs(low), abs(high)) > _LARGEST or math.isnan(low) or math.isnan(high):
        raise ValueError(f"bounds must be finite (got {low}, {high})")
    if log and low <= 0:
        raise ValueError(f"low must be above 0 on a logarithmic scale (got {low})")
    if not low < high:
        raise ValueError(f"low must be below high (got {low}, {high})")
