"""A parameter of a search space."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xaytune.sweep.domains import Domain
from xaytune.sweep.values import same


@dataclass(frozen=True)
class Parameter:
    """A parameter of the space.

    Attributes:
        name: Its dotted name.
        domain: Its values.
        when: The values of parents that it exists for, by their names.
    """

    name: str
    domain: Domain
    when: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)

    def active(self, values: Mapping[str, Any]) -> bool:
        """Tells whether the parameter exists where the parents have these values."""
        return all(
            name in values and any(same(values[name], one) for one in allowed)
            for name, allowed in self.when.items()
        )
