"""The options of the search that reads learning curves."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from xaytune.sweep.algorithms import Options

__all__ = ["CurvesSpec", "levels_of"]

# The ratio of a level to the one before.
_GROWTH = 1.5


class CurvesSpec(Options):
    """A Gaussian process over configurations and time: it says what to try next, and which trial to stop.

    Attributes:
        time_attr: What time is counted in.
        grace_period: The first time at which a trial is judged; by default a twentieth of `max_t`, rounded up.
        max_t: Time at which a trial has trained in full; by default what the first trial says when it starts.
    """

    algorithm: Literal["curves"]
    time_attr: Literal["epoch", "global_step"] = "epoch"
    grace_period: int | None = Field(default=None, ge=1)
    max_t: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _first_level_is_reached(self) -> CurvesSpec:
        if self.grace_period is not None and self.max_t is not None and self.grace_period > self.max_t:
            raise ValueError(
                f"grace_period must be at most max_t (got grace_period {self.grace_period}, max_t {self.max_t})"
            )
        return self


def levels_of(grace_period: int | None, max_t: int) -> tuple[int, ...]:
    """Returns the times at which trials are judged: grace_period, then each 1.5 times the last, and max_t."""
    level = min(grace_period or math.ceil(max_t / 20), max_t)
    levels = [level]
    while level < max_t:
        level = min(math.ceil(level * _GROWTH), max_t)
        levels.append(level)
    return tuple(levels)
