"""Warm starts: what is taken from earlier sweeps."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.journals import simulated, spec
from xaytune.errors import SpecError
from xaytune.records.warm_start import best_of_earlier, warm_started


def test_the_best_of_each_earlier_sweep_come_first_five_at_most_and_only_of_the_space(tmp_path: Path) -> None:
    sweeps = [simulated(tmp_path / name, search={"seed": seed}) for name, seed in (("one", 1), ("two", 2))]
    simulated(tmp_path / "other", space={"y": {"uniform": [0, 1]}})
    objective = sweeps[0].sweep.objective
    taken = best_of_earlier(["one", "other", "two"], str(tmp_path), spec().space, objective)
    ranked = [sorted(sweep.trials, key=lambda trial: -(trial.value or 0)) for sweep in sweeps]
    assert taken == [ranked[i % 2][i // 2].config for i in range(5)]


def test_a_warm_start_of_which_nothing_can_be_tried_is_refused(tmp_path: Path) -> None:
    simulated(tmp_path / "other", space={"y": {"uniform": [0, 1]}})
    with pytest.raises(SpecError, match="warm_start: no trial of other has a value, and a configuration of this"):
        warm_started(spec(warm_start=["other"]), str(tmp_path))


def test_a_warm_start_from_a_sweep_that_looked_for_the_opposite_is_refused(tmp_path: Path) -> None:
    earlier = simulated(tmp_path / "one")
    opposite = "min" if earlier.sweep.objective.mode == "max" else "max"
    with pytest.raises(SpecError, match=f"best of one are the worst here: .* \\(got {opposite}\\)"):
        warm_started(spec(warm_start=["one"], mode=opposite), str(tmp_path))
    warm_started(spec(warm_start=["one"], mode=opposite, metric="another"), str(tmp_path))
