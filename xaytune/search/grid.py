"""The combinations of a space's gridded parameters, in turn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from xaytune.search.configurations import configuration_key
from xaytune.sweep.space import Parameter, Space, nest

__all__ = ["combinations"]


def combinations(
    space: Space, gridded: tuple[Parameter, ...], tried: Iterable[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Yields every combination of the gridded parameters, by name, again and again.

    Args:
        space: The space.
        gridded: The parameters whose values are tried each in turn.
        tried: Configurations that come first: each stands for a combination, which is left out once.
    """
    names = {parameter.name for parameter in gridded}
    left_out = Counter(
        configuration_key(
            space, nest({name: value for name, value in space.values(config).items() if name in names})
        )
        for config in tried
    )
    while True:
        for point in space.grid(gridded):
            key = configuration_key(space, nest(point)) if left_out else 0
            if left_out[key] > 0:
                left_out -= Counter([key])
            else:
                yield point
