from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from xaytune.search.curves.acquisition import log_expected_improvement


@pytest.mark.parametrize(("mean", "deviation", "best"), [(1.0, 0.5, 0.8), (0.0, 1.0, 3.0), (2.0, 0.1, -1.0)])
def test_it_is_the_logarithm_of_the_improvement_that_is_expected(
    mean: float, deviation: float, best: float
) -> None:
    expected = quad(lambda value: (value - best) * norm.pdf(value, mean, deviation), best, mean + 12 * deviation)[
        0
    ]
    found = log_expected_improvement(np.array([mean]), np.array([deviation]), best)[0]
    assert found == pytest.approx(np.log(expected), abs=1e-6)


def test_it_still_tells_points_apart_where_the_improvement_is_too_small_for_a_float() -> None:
    means = -np.linspace(0, 1000, 20_001)
    found = log_expected_improvement(means, np.ones_like(means), 0.0)
    assert np.isfinite(found).all()
    assert (np.diff(found) < 0).all()
    # No step where the series takes over.
    assert np.abs(np.diff(found, 2)).max() < 0.01
