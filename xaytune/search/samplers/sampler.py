"""The base class of samplers, and what they learn of trials."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from xaytune.search.extension import Extension

__all__ = ["Outcome", "Sampler"]


@dataclass(frozen=True)
class Outcome:
    """How a trial ended.

    Attributes:
        status: ``completed``, ``stopped`` (early, by whatever decision), ``diverged`` (stopped, for its metric was
            not finite), ``failed``, or ``infeasible`` (this configuration can never be trained here).
        value: The best finite value that its metric reached.
        intermediate: The metric by time, at the trial's decision points, the newest where it came to one again.
    """

    status: Literal["completed", "stopped", "diverged", "failed", "infeasible"]
    value: float | None = None
    intermediate: Mapping[int, float] = field(default_factory=dict)


class Sampler(Extension, ABC):
    """Gives the configurations of a sweep.

    Its state follows from the calls below, in their order. Trials are numbered from 0.

    Attributes:
        adaptive: Whether it learns from how trials did.
        every_combination: Whether each combination of all values is tried in turn.
    """

    adaptive: ClassVar[bool] = True
    every_combination: ClassVar[bool] = False

    @abstractmethod
    def ask(self, trial: int, fixed: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the configuration of a new trial.

        Asked for the same trial again it draws again: the configuration that it gave was tried before.

        Args:
            trial: The number of the new trial.
            fixed: Parameters, by dotted name, that have a value already.
        """

    def adopt(self, trial: int, config: Mapping[str, Any]) -> None:
        """Learns that a new trial has a configuration of another origin, whatever was drawn for it."""

    def tell(self, trial: int, outcome: Outcome) -> None:
        """Learns how a trial ended."""

    def fall_back(self) -> None:
        """Learns that it takes too long to decide: what is cheaper is to be done from now on."""
