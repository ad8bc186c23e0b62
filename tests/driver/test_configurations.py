"""A configuration is the same value, of the same type, wherever it is given, also after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.driver.harness import Played
from tests.sweep.mixed import KILLED, SPACE, VALUES
from xaytune.sweep.values import same


def test_a_sweep_that_is_killed_after_each_third_trial_gives_the_configurations_of_one_that_is_not(
    tmp_path: Path,
) -> None:
    given: dict[str, list[dict[str, Any]]] = {"whole": [], "cut": []}
    for name, configurations in given.items():
        sweep = _begin(tmp_path / name)
        for number in range(len(VALUES)):
            started = sweep.start()
            if name == "cut" and number in KILLED:
                killed = started.config
                sweep.close()
                sweep = _begin(tmp_path / name)
                started = sweep.start()
                assert (started.trial, started.attempt) == (number, 1)
                assert same(started.config, killed)
            configurations.append(started.config)
            sweep.end(number, 1, metrics={"m": number / 10})
        assert sweep.driver.next() is None
        sweep.close()
    assert same(given["cut"], given["whole"])


def _begin(folder: Path) -> Played:
    search = {"algorithm": "tpe", "n_startup_trials": 3, "seed": 1}
    return Played(folder, space=SPACE, search=search, scheduler="fifo", num_samples=1)
