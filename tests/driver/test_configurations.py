"""A configuration is the same value, of the same type, wherever it is given or shown, also after a kill."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from tests.driver.harness import Played
from tests.sweep.values_to_import import Model, Optimizer, scale
from xaytune.records.export import export
from xaytune.records.results import Results
from xaytune.sweep.values import same

MIXED: list[Any] = [
    *(0, False, 1, 1.0, True, None, "", "0", math.inf, b"ab"),
    *((8, 16), [8, 16], {1: "a"}, {"1": "a"}, {1, 2}, Path("data")),
    *(np.float32(0.5), Optimizer.SGD, Model.Block, scale),
]


def test_a_sweep_that_is_killed_after_each_third_trial_has_the_configurations_of_one_that_is_not(
    tmp_path: Path,
) -> None:
    given: dict[str, list[dict[str, Any]]] = {}
    exported: dict[str, list[dict[str, Any]]] = {}
    for name in ("whole", "cut"):
        sweep = _begin(tmp_path / name)
        given[name] = []
        for number in range(len(MIXED)):
            if name == "cut" and number % 3 == 0:
                killed = sweep.start().config
                sweep.close()
                sweep = _begin(tmp_path / name)
                again = sweep.start()
                assert (again.trial, again.attempt) == (number, 1)
                assert same(again.config, killed)
            else:
                again = sweep.start()
            given[name].append(again.config)
            sweep.end(number, 1, metrics={"m": number / 10})
        assert sweep.driver.next() is None
        sweep.recorder.finished(*sweep.driver.outcome())
        sweep.close()
        results = Results(tmp_path / name)
        assert same([trial.config for trial in results.trials], given[name])
        shown = zip(results.to_dataframe()["config.value"].tolist(), given[name], strict=True)
        differ = [(value, one["value"]) for value, one in shown if not same(value, one["value"])]
        assert differ == [(None, {"1": "a"})]  # whose column is config.value.1
        trials, _ = export(results, tmp_path / f"{name}-out", "json")
        rows = json.loads(trials.read_text())
        exported[name] = [{k: v for k, v in row.items() if k.startswith("config.")} for row in rows]
    assert same(given["cut"], given["whole"])
    assert same(exported["cut"], exported["whole"])
    values = [one["value"] for one in given["whole"]]
    assert all(sum(same(value, one) for one in values) == 1 for value in MIXED)


def _begin(folder: Path) -> Played:
    space = {
        "value": {"grid": MIXED},
        "equal": {"choice": [0, False, 0.0]},
        "x": {"uniform": [0, 1]},
        "nested": {"constant": (1, [2.0, {"a": None}])},
    }
    search = {"algorithm": "tpe", "n_startup_trials": 3, "seed": 1}
    return Played(folder, space=space, search=search, scheduler="fifo", num_samples=1)
