"""Schedulers of one's own, as the README shows one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.simulation.test_simulation import POWER_LAW, spec
from xaytune.records.place import Place
from xaytune.simulation.simulate import simulate


def test_the_scheduler_of_the_readme_stops_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", Path("README.md").read_text(), flags=re.DOTALL)
    (code,) = (block for block in blocks if "class Threshold(Scheduler)" in block)
    (tmp_path / "schedulers_of_the_readme.py").write_text(code.replace("< 0.1", "< 0.4"))
    monkeypatch.syspath_prepend(tmp_path)
    simulated = simulate(
        spec({"algorithm": "schedulers_of_the_readme:Threshold"}), POWER_LAW, Place(tmp_path / "sweep"), workers=2
    )
    for trial in simulated.results.trials:
        after_one = POWER_LAW.of(trial.number, trial.config).values[1]
        assert after_one is not None
        assert trial.status == ("stopped" if after_one < 0.4 else "completed")
