"""The objective of a sweep: the metric, and which of two of its values is better."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mode = Literal["max", "min"]


@dataclass(frozen=True)
class Objective:
    """What a sweep optimises. Nothing else works out a direction.

    Attributes:
        metric: Name of the metric.
        mode: Whether a ``"max"`` or a ``"min"`` is better.
    """

    metric: str
    mode: Mode

    @property
    def sign(self) -> int:
        """What a value is multiplied with so that larger is better: 1 or -1."""
        return 1 if self.mode == "max" else -1

    def score(self, value: float) -> float:
        """Returns a value as a score: larger is better."""
        return self.sign * value

    def value_of(self, score: float) -> float:
        """Returns the value that a score is of."""
        return self.sign * score

    def is_better(self, value: float, than: float | None) -> bool:
        """Tells whether a value is better than another; any is better than None."""
        return than is None or (value > than if self.mode == "max" else value < than)

    def describe_worse(self, *, worse: bool) -> str:
        """Returns in words on which side of a cut-off a value is: ``is below``, ``is not above`` and so on."""
        side = "below" if self.mode == "max" else "above"
        return f"is {side}" if worse else f"is not {side}"
