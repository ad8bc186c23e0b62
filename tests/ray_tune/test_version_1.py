"""Sweeps that were interrupted under the version before, whose journals are of version 1, go on under this one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from xaytune import Results, resume
from xaytune.report.page import page

OLD = Path(__file__).parent / "version_1"


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_a_sweep_of_the_version_before_is_read_resumed_and_reported(
    ray_here: None, tmp_path: Path, name: str
) -> None:
    shutil.copytree(OLD / name, tmp_path / name)
    before = Results(tmp_path / name)
    ended = {trial.number: trial for trial in before.trials if trial.finished}
    assert ended
    assert before.sweep.state == "interrupted"
    # Without the callback that made it slow.
    results = resume(tmp_path / name, overrides={"callbacks": []})
    assert results.sweep.state == "completed"
    assert {trial.status for trial in results.trials} <= {"completed", "stopped"}
    assert len(results.trials) == 8
    for number, trial in ended.items():
        now = results.sweep.trials[number]
        assert (now.status, now.value, now.stop_reason) == (trial.status, trial.value, trial.stop_reason)
    for trial in results.trials:
        assert results.history(trial.number)["global_step"].tolist() == list(range(1, trial.global_step + 1))
    assert page(results, [], []).startswith("<!doctype html>")
