"""What is learned of a shape while runs of it train."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from xaytune.trainer.fused.timing import FusionTiming


@dataclass(eq=False)
class Learned:
    """What is learned of a shape: it stays where the group of those that have it is gone.

    Attributes:
        timing: Whether its steps are faster taken at once.
        refused: Why its runs train alone; None if they need not.
        failures: Steps that could not be taken at once.
        most: How many are trained at once, at most: fewer once the memory was not enough.
        taken: How many steps were taken at once, by the shapes of their batches.
        evaluated: How many evaluations were made at once, by their batches.
        evaluated_alone: Batches over which each run is evaluated by itself.
        epochs: First steps of an epoch that were compared.
        since: Steps of all members since such a first step was compared last.
    """

    timing: FusionTiming = field(default_factory=FusionTiming)
    refused: str | None = None
    failures: int = 0
    most: int = sys.maxsize
    taken: Counter[Hashable] = field(default_factory=Counter)
    evaluated: Counter[Hashable] = field(default_factory=Counter)
    evaluated_alone: set[Hashable] = field(default_factory=set)
    epochs: int = 0
    since: int = 0
