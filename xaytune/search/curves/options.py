"""The times at which the search that reads learning curves decides."""

from __future__ import annotations

import math

from xaytune.sweep.algorithms import CurvesSpec

__all__ = ["CurvesSpec", "levels_of"]

# The ratio of a level to the one before.
_GROWTH = 1.5


def levels_of(grace_period: int | None, max_t: int) -> tuple[int, ...]:
    """Returns the times at which trials are judged: grace_period, then each 1.5 times the last, and max_t."""
    level = min(grace_period or math.ceil(max_t / 20), max_t)
    levels = [level]
    while level < max_t:
        level = min(math.ceil(level * _GROWTH), max_t)
        levels.append(level)
    return tuple(levels)
