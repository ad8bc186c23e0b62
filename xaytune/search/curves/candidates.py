"""Configurations that could be tried next: none that was tried before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xaytune.search.curves.axes import Coordinates
from xaytune.search.curves.encoding import Encoding, key_of, keys_of
from xaytune.sweep.space import Space

# Trials at the start that are spread over the space, before the model has a say.
STARTUP_TRIALS = 8
_RANDOM, _NEAR = 400, 600
# The generators of three bits: upper triangles of ones on the diagonal; the first are those of Joe and Kuo (2008).
_GENERATORS = [
    [[1, a, b], [0, 1, c], [0, 0, 1]]
    for a, b, c in [(0, 0, 0), (1, 1, 0), (1, 0, 1), (1, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 1, 1)]
]


class Candidates:
    """The points of a space that have not been tried.

    Args:
        space: What is searched.
        seed: Seed of the first points.

    Attributes:
        encoding: Configurations as points.
    """

    def __init__(self, space: Space, seed: int) -> None:
        self.encoding = Encoding(space)
        self._design = self.encoding.settle(_spread(np.random.default_rng([seed]), self.encoding.dimensions))
        self._taken: set[bytes] = set()
        listed = self.encoding.all()
        self._left = None if listed is None else {key_of(point): point for point in listed}

    def take(self, config: Mapping[str, Any]) -> Coordinates:
        """Returns the point of a configuration; it is no candidate any more."""
        point = self.encoding.point(config)
        self._taken.add(key_of(point))
        if self._left is not None:
            self._left.pop(key_of(point), None)
        return point

    def release(self, config: Mapping[str, Any]) -> None:
        """Makes a configuration that was taken a candidate again."""
        point = self.encoding.point(config)
        self._taken.discard(key_of(point))
        if self._left is not None:
            self._left[key_of(point)] = point

    def first(self, number: int, rng: np.random.Generator) -> Coordinates:
        """Returns a point of the design of the start, or a random one where that was taken.

        Returns:
            ``[1, dimensions]``; none where all were taken.
        """
        point: Coordinates = self._design[number : number + 1]
        return point if key_of(point[0]) not in self._taken else self.draw(rng, [])[:1]

    def draw(self, rng: np.random.Generator, near: Sequence[Coordinates]) -> Coordinates:
        """Draws points all over the space, and near some; in a space of few all that are left.

        Returns:
            ``[n, dimensions]``; none where all were taken.
        """
        if self._left is not None and len(self._left) <= _RANDOM:
            left = np.array(list(self._left.values())).reshape(len(self._left), self.encoding.dimensions)
            return rng.permutation(left)
        points = self.encoding.random(rng, _RANDOM)
        if near:
            points = np.concatenate([points, self.encoding.neighbours(rng, np.array(near), _NEAR)])
        return points[[key not in self._taken for key in keys_of(points)]]


def _spread(rng: np.random.Generator, dimensions: int) -> Coordinates:
    """The first eight points of a Sobol sequence, scrambled: each eighth of each axis has one.

    Each axis has one of the eight generators of three bits, its bits mixed from the first on (Matousek, 1998).
    """
    generators = [_GENERATORS[axis % len(_GENERATORS)] for axis in range(dimensions)]
    matrices = np.array(generators, np.int64).reshape(dimensions, 3, 3)
    mix = np.tril(rng.integers(2, size=matrices.shape), -1) + np.eye(3, dtype=np.int64)
    shift = rng.integers(2, size=(dimensions, 1, 3))
    bits = (np.arange(STARTUP_TRIALS)[:, None] >> np.arange(3)) & 1
    digits = (bits @ np.swapaxes(mix @ matrices, 1, 2) + shift) % 2
    cells = (digits @ [4, 2, 1]).T
    return (cells + rng.random(cells.shape)) / STARTUP_TRIALS
