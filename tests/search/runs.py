"""Sweeps that are played without training: their curves are given, and workers take turns at random."""

from __future__ import annotations

from typing import Any

from xaytune.sweep.spec import SweepSpec

SPACE: dict[str, Any] = {"x": {"uniform": [0, 1]}}


def spec_of(scheduler: Any = "fifo", search: Any = "random", **options: Any) -> SweepSpec:
    """Returns the spec of a sweep."""
    base = {"recipe": "a:b", "metric": "m", "mode": "max", "space": SPACE, "num_samples": 8}
    return SweepSpec.parse({**base, "scheduler": scheduler, "search": search, **options})
