"""How much a point promises: the logarithm of the improvement that is expected there."""

from __future__ import annotations

import math

import numpy as np

from xaytune.search.curves.axes import Coordinates

# Below so many deviations a series is exact to seven digits, where the sum of two tiny numbers would not be.
_FAR = -25.0


def log_expected_improvement(mean: Coordinates, deviation: Coordinates, best: float) -> Coordinates:
    """Returns log E[max(value - best, 0)] of normal values, also where it is too small for a float.

    As in Ament et al., Unexpected Improvements to Expected Improvement (NeurIPS 2023).
    """
    z = (mean - best) / deviation
    return np.asarray(np.log(deviation) + np.array([_log_h(float(value)) for value in z]))


def _log_h(z: float) -> float:
    """log(phi(z) + z * Phi(z)), of the standard normal's density and distribution."""
    log_density = -0.5 * z * z - 0.5 * math.log(2 * math.pi)
    if z < _FAR:
        square = 1 / (z * z)
        return log_density + math.log(square * (1 - 3 * square + 15 * square * square))
    distribution = 0.5 * math.erfc(-z / math.sqrt(2))
    if z > 0:
        return math.log(math.exp(log_density) + z * distribution)
    return log_density + math.log1p(z * distribution / math.exp(log_density))
