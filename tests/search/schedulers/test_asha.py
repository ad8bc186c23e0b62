from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from xaytune.search.schedulers.asha import _Rung

SCORES = st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)


@given(st.lists(SCORES, min_size=1, max_size=30), st.sampled_from([1.5, 2, 2.5, 3, 4, 7]))
def test_a_rungs_cutoff_is_numpys_percentile_to_the_bit(scores: list[float], factor: float) -> None:
    rung = _Rung(1, 1 - 1 / factor)
    for trial, score in enumerate(scores):
        rung.add(trial, score)
    assert rung.cutoff() == np.nanpercentile(scores, (1 - 1 / factor) * 100)
