"""What Optuna knows of a sweep, in its terms: distributions of parameters, their values, and what is better."""

from __future__ import annotations

from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.study import StudyDirection

from xaytune.sweep.domains import Categorical, Domain, Float
from xaytune.sweep.objective import Objective
from xaytune.sweep.values import key


class Choices:
    """The values of a parameter as Optuna can tell them apart: choices that Optuna cannot store become texts."""

    def __init__(self, domain: Domain) -> None:
        choices = domain.choices if isinstance(domain, Categorical) else ()
        scalars = all(type(choice) in (bool, int, float, str, type(None)) for choice in choices)
        self._scalars = scalars and len(set(choices)) == len(choices)  # 0 and False are one to Optuna
        self.encoded = [self.encode(choice) for choice in choices]
        self._values = dict(zip(map(_key, self.encoded), choices, strict=True))

    def encode(self, value: Any) -> Any:
        """Returns a value as Optuna stores it."""
        return value if self._scalars else key(value)

    def decode(self, encoded: Any) -> Any:
        """Returns the choice that is stored so."""
        return self._values[_key(encoded)]


def direction_of(objective: Objective) -> StudyDirection:
    """Returns what is better, as Optuna calls it."""
    return StudyDirection.MAXIMIZE if objective.mode == "max" else StudyDirection.MINIMIZE


def distribution_of(domain: Domain) -> BaseDistribution:
    """Returns the distribution that holds all values of a domain."""
    if isinstance(domain, Categorical):
        return CategoricalDistribution(Choices(domain).encoded)
    if isinstance(domain, Float):
        return FloatDistribution(domain.low, domain.high, log=domain.log)
    return IntDistribution(domain.low, domain.high - 1, log=domain.log)


def _key(value: Any) -> tuple[type, Any]:
    """Tells True from 1, and 1 from 1.0."""
    return type(value), value
