"""Learning curves that cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def power_law(config: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """A curve that nears ``1 - (x - .3) ** 2`` over 27 epochs of a second and more."""
    best = 1 - (config["x"] - 0.3) ** 2
    epochs = range(1, 28)
    return [epoch * (1 + config["x"]) for epoch in epochs], [best * (1 - 1 / (1 + epoch)) for epoch in epochs]
