"""Configurations as points of the unit cube: a row of coordinates, one for each parameter of the space.

A coordinate that is not a number stands for a parameter that does not exist in that configuration.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaytune.search.curves.axes import Choice, Coordinates, axis_of
from xaytune.sweep.space import Space

# A space of more combinations than this is not listed: draws find what is left of it.
_MAX_LISTED = 20_000


def key_of(point: Coordinates) -> bytes:
    """Returns what tells a configuration from another."""
    return keys_of(point[None])[0]


def keys_of(points: Coordinates) -> list[bytes]:
    """Returns the same of several points, ``[n, dimensions]``."""
    return [row.tobytes() for row in np.round(points, 9)]


class Encoding:
    """The space of a sweep as points.

    Args:
        space: The space.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._axes = {parameter.name: axis_of(parameter.domain) for parameter in space.parameters}
        self._columns = {name: column for column, name in enumerate(self._axes)}
        self._choice = np.array([isinstance(axis, Choice) for axis in self._axes.values()], bool)

    @property
    def dimensions(self) -> int:
        """Coordinates of a point."""
        return len(self._axes)

    def settle(self, points: Coordinates) -> Coordinates:
        """Moves points to those of configurations that there are, ``[n, dimensions]``."""
        settled = np.empty_like(points)
        for column, (parameter, axis) in enumerate(zip(self._space.parameters, self._axes.values(), strict=True)):
            coordinates = axis.settle(points[:, column])
            for parent, allowed in parameter.when.items():
                coordinates[~self._has(settled, parent, allowed)] = np.nan
            settled[:, column] = coordinates
        return settled

    def config(self, point: Coordinates) -> dict[str, Any]:
        """Returns the configuration at a settled point, constants included."""
        return self._space.configure(
            lambda parameter: self._axes[parameter.name].value(float(point[self._columns[parameter.name]]))
        )

    def point(self, config: Mapping[str, Any]) -> Coordinates:
        """Returns the point of a configuration, ``[dimensions]``."""
        values = self._space.values(config)
        coordinates = [
            axis.coordinate(values[name]) if name in values else np.nan for name, axis in self._axes.items()
        ]
        settled: Coordinates = self.settle(np.array([coordinates]))[0]
        return settled

    def features(self, points: Coordinates) -> Coordinates:
        """Returns what a model sees of settled points, ``[n, features]``."""
        columns = [axis.features(points[:, column]) for column, axis in enumerate(self._axes.values())]
        return np.concatenate([np.empty((len(points), 0)), *columns], axis=1)

    def random(self, rng: np.random.Generator, count: int) -> Coordinates:
        """Draws points evenly."""
        return self.settle(rng.random((count, self.dimensions)))

    def neighbours(self, rng: np.random.Generator, points: Coordinates, count: int) -> Coordinates:
        """Draws points near some others: most numbers moved, near and far, and some choices redrawn."""
        near = points[rng.integers(len(points), size=count)]
        near = np.where(np.isnan(near), rng.random(near.shape), near)
        step = 0.3 * 10 ** rng.uniform(-0.7, 0.3, (count, 1)) * rng.standard_normal(near.shape)
        moved = np.where(rng.random(near.shape) < 0.6, np.clip(near + step, 0, 1), near)
        redrawn = np.where(rng.random(near.shape) < 0.3, rng.random(near.shape), near)
        return self.settle(np.where(self._choice, redrawn, moved))

    def all(self) -> Coordinates | None:
        """Returns every point there is, each once; None where they are too many to be listed."""
        if math.prod(axis.count for axis in self._axes.values()) > _MAX_LISTED:
            return None
        rows = list(itertools.product(*(axis.all() for axis in self._axes.values())))
        settled = self.settle(np.array(rows).reshape(len(rows), self.dimensions))
        return np.array(list({key_of(point): point for point in settled}.values()))

    def _has(self, settled: Coordinates, parent: str, allowed: tuple[Any, ...]) -> NDArray[np.bool_]:
        """Tells at which points a parent exists and has one of the allowed values."""
        if parent not in self._axes:
            return np.full(len(settled), self._space.constants[parent] in allowed)
        axis, coordinates = self._axes[parent], settled[:, self._columns[parent]]
        indices = [axis.place(value) for value in allowed]
        return np.isin(axis.index(coordinates), indices)
