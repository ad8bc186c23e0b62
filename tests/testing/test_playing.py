"""A sweep that is played tells its search method what a real one would."""

from __future__ import annotations

import pytest

from tests.report.journals import spec
from xaytune.search.build import method_for
from xaytune.sweep.objective import Mode
from xaytune.testing.playing import play

VALUES = (0.5, 0.9, 0.1, 0.4)


@pytest.mark.parametrize("mode", ["max", "min"])
def test_a_trial_ends_with_the_best_value_that_it_reached(mode: Mode) -> None:
    judged_each_epoch = {"algorithm": "asha", "max_t": 4, "reduction_factor": 1.5}
    method = method_for(spec(mode=mode, num_samples=1, scheduler=judged_each_epoch))
    played = play(method, lambda trial, config, time: VALUES[time - 1], mode=mode, end=4)
    assert played.ends[0].best == (max if mode == "max" else min)(VALUES)
