"""L-BFGS: minimises a smooth function of a few variables, the same way on every call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# The decrease that a step must bring, as a share of what the gradient promises (Armijo).
_SUFFICIENT = 1e-4
# Steps that the curvature is estimated from.
_MEMORY = 10


def minimise(
    function: Callable[[Vector], tuple[float, Vector]],
    start: Vector,
    *,
    tolerance: float,
    max_steps: int = 60,
) -> Vector:
    """Minimises a function by limited-memory BFGS with backtracking (Nocedal and Wright, 2006, algorithm 7.4).

    Args:
        function: Gives the value and the gradient at a point; a value that is not finite is a point to avoid.
        start: Where to begin; the function is finite there.
        tolerance: The largest component of the gradient at which it is done.
        max_steps: Steps at most.

    Returns:
        The best point found.
    """
    point = start
    value, gradient = function(point)
    steps: deque[tuple[Vector, Vector]] = deque(maxlen=_MEMORY)
    for _ in range(max_steps):
        if np.abs(gradient).max() <= tolerance:
            break
        direction = -_inverse_hessian_times(gradient, steps)
        slope = float(direction @ gradient)
        # Nothing is known of the scale at first: one unit at most.
        length = 1.0 if steps else min(1.0, 1.0 / float(np.abs(gradient).sum()))
        for _ in range(20):
            step = length * direction
            new_value, new_gradient = function(point + step)
            if np.isfinite(new_value) and new_value <= value + _SUFFICIENT * length * slope:
                break
            length /= 2
        else:
            break
        change = new_gradient - gradient
        if step @ change > 1e-10 * float(change @ change):
            steps.append((step, change))
        point, value, gradient = point + step, new_value, new_gradient
    return point


def _inverse_hessian_times(vector: Vector, steps: deque[tuple[Vector, Vector]]) -> Vector:
    """The two loops of L-BFGS."""
    result = vector.copy()
    weights = []
    for step, change in reversed(steps):
        weight = (step @ result) / (step @ change)
        weights.append(weight)
        result -= weight * change
    if steps:
        step, change = steps[-1]
        result *= (step @ change) / (change @ change)
    for (step, change), weight in zip(steps, reversed(weights), strict=True):
        result += (weight - (change @ result) / (step @ change)) * step
    return result
