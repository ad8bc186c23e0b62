"""A configuration is the same value, of the same type, wherever it is given or shown, whatever was killed."""

from __future__ import annotations

import json
import multiprocessing
import pickle
import time
from pathlib import Path
from typing import Any

import ray

from tests.sweep.mixed import KILLED_IN_RAY, SPACE, VALUES, path
from xaytune.ray_tune.sweep import Sweep, resume
from xaytune.records.export import export
from xaytune.records.results import Results
from xaytune.sweep.space import dotted
from xaytune.sweep.values import read, same

OPTIONS: dict[str, Any] = {
    "metric": "score",
    "mode": "max",
    "search": {"algorithm": "tpe", "n_startup_trials": 3, "seed": 1},
    "scheduler": "fifo",
    "max_concurrent_trials": 1,
}


def test_a_sweep_whose_driver_is_killed_again_and_again_has_the_configurations_of_one_that_is_not(
    ray_here: None, tmp_path: Path
) -> None:
    whole = Sweep("tests.sweep.mixed:note", space=SPACE, **OPTIONS).run(name="whole", storage=tmp_path)
    cut = _killed_again_and_again(tmp_path)
    expected = _given(whole)
    assert len(expected) == len(VALUES)
    assert all(any(same(config["value"], value) for config in expected) for value in VALUES)
    assert same(_given(cut), expected)
    for trial in KILLED_IN_RAY:
        assert same(_noted(cut, "killed", trial), expected[trial])
    for results in (whole, cut):
        assert same([trial.config for trial in results.trials], expected)
        assert same(_in_table(results), [dotted(config) for config in expected])
        assert same(_exported(results), [dotted(config) for config in expected])
    assert same(cut.best_config, whole.best_config)


def _killed_again_and_again(storage: Path) -> Results:
    drivers = multiprocessing.get_context("forkserver")
    drivers.set_forkserver_preload(["ray.tune", "xaytune.ray_tune.sweep"])  # imported once for all of them
    address = ray.get_runtime_context().gcs_address
    for number in KILLED_IN_RAY:
        driver = drivers.Process(target=_drive, args=(storage, address))
        driver.start()
        while driver.is_alive() and not path(storage / "cut", "killed", number).exists():
            time.sleep(0.01)
        driver.kill()
        driver.join()
    return resume("cut", storage=storage)


def _drive(storage: Path, address: str) -> None:
    ray.init(address, log_to_driver=False)
    if (storage / "cut").exists():
        resume("cut", storage=storage)
    else:
        callbacks = ["tests.sweep.mixed:waits_once_to_be_killed"]
        Sweep("tests.sweep.mixed:note", space=SPACE, callbacks=callbacks, **OPTIONS).run(
            name="cut", storage=storage
        )


def _noted(results: Results, kind: str, trial: int) -> Any:
    return pickle.loads(path(results.path, kind, trial).read_bytes())


def _given(results: Results) -> list[Any]:
    """What the recipe of each trial was given."""
    return [_noted(results, "given", trial.number) for trial in results.trials]


def _in_table(results: Results) -> list[dict[str, Any]]:
    table = results.to_dataframe()
    rows = [dict(zip(table, row, strict=True)) for row in table.itertuples(index=False, name=None)]
    return [_configuration(row, trial.config) for row, trial in zip(rows, results.trials, strict=True)]


def _exported(results: Results) -> list[dict[str, Any]]:
    file, _ = export(results, results.path / "exported", "json")
    rows = [{name: read(value) for name, value in row.items()} for row in json.loads(file.read_text())]
    return [_configuration(row, trial.config) for row, trial in zip(rows, results.trials, strict=True)]


def _configuration(row: dict[Any, Any], config: dict[str, Any]) -> dict[str, Any]:
    """The values that a row has of a configuration, by dotted names; all other columns of the kind are empty."""
    found = {name.removeprefix("config."): row[name] for name in row if str(name).startswith("config.")}
    absent = found.keys() - dotted(config).keys()
    assert all(found[name] is None or found[name] != found[name] for name in absent)
    return {name: found[name] for name in dotted(config)}
