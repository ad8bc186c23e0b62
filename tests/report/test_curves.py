"""Learning curves show what was measured, and nothing else."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.report.journals import Written, simulated
from xaytune.records import history
from xaytune.records.history import Row
from xaytune.records.results import Results
from xaytune.report.curves import learning_curves
from xaytune.report.figures import plots

STEPS = 3


def with_history(folder: Path, values: Sequence[float], *, left: int = 0) -> Results:
    """A sweep of one trial that stood at a value after each epoch, and went on by some steps of another one."""
    results = simulated(folder, num_samples=1, scheduler={"algorithm": "fifo"})
    results.trials[0].epoch = len(values)
    rows: list[Row] = []
    stood = math.nan
    for epoch, value in enumerate([*values, math.nan] if left else values):
        for step in range(left if epoch == len(values) else STEPS):
            stood = value if step == STEPS - 1 else stood
            metrics = {} if math.isnan(stood) and epoch == 0 else {"score": stood}
            rows.append(Row(epoch, step + 1, len(rows) + 1, metrics))
    path = history.path_for(results.path, 0)
    path.unlink(missing_ok=True)
    history.append(path, history.pack(rows))
    return results


def drawn(results: Results) -> dict[int, float]:
    (curve,) = learning_curves(results)
    return dict(zip(curve.times, curve.values, strict=True))


def test_a_trial_that_is_evaluated_every_third_epoch_has_values_of_those_and_of_its_end(tmp_path: Path) -> None:
    third = [math.nan, math.nan, 0.2, 0.2, 0.2, 0.3, 0.3, 0.3, 0.4, 0.4]
    assert drawn(with_history(tmp_path, third)) == {3: 0.2, 6: 0.3, 9: 0.4, 10: 0.4}


@pytest.mark.parametrize("values", [[0.5, 0.5, 0.6, 0.6, 0.6], [0.5, 0.5, 0.5], [0.5, 0.6]])
def test_a_value_that_comes_again_is_drawn_again(tmp_path: Path, values: list[float]) -> None:
    assert drawn(with_history(tmp_path, values)) == dict(enumerate(values, 1))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_is_not_drawn_as_the_one_before(tmp_path: Path, bad: float) -> None:
    assert drawn(with_history(tmp_path, [0.5, 0.6, bad])) == {1: 0.5, 2: 0.6}


def test_an_epoch_that_was_not_finished_has_no_value(tmp_path: Path) -> None:
    assert drawn(with_history(tmp_path, [0.5, 0.6], left=2)) == {1: 0.5, 2: 0.6}


def test_a_long_curve_keeps_its_best_and_its_worst_value(tmp_path: Path) -> None:
    generator = random.Random(0)
    values = [generator.random() for _ in range(3000)]
    found = drawn(with_history(tmp_path, values))
    assert len(found) <= 202
    assert max(found.values()) == max(values)
    assert min(found.values()) == min(values)
    assert found[3000] == values[-1]


def test_predictions_in_epochs_are_not_drawn_with_curves_in_steps(tmp_path: Path) -> None:
    written = Written(tmp_path / "sweep")
    written("trial", 0, config={"x": 0.5}, seed=1)
    written("start", 0, attempt=0, node="n", pid=1)
    written.at("result", 0, epoch=1, step=20, due=True, checkpoints={})
    place = {"epoch": 1, "global_step": 20, "value": 0.5, "details": {"predicted": [[3, 0.55, 0.05]]}}
    written("verdict", 0, decision="continue", reason="r", cutoff=None, compared=0, **place)
    results = written.results()
    rows = [Row(0, step, step, {"score": step / 40}) for step in range(1, 21)]
    history.append(history.path_for(results.path, 0), history.pack(rows))
    drawn = {plot.name for plot in plots(results, list(results.events()))}
    assert "learning-curves" in drawn
    assert not {"predictions", "predicted-curves"} & drawn
