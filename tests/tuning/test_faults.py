"""Faults, made for real: nothing that was finished is done again, and no decision changes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
import torch

from tests.conftest import Run
from tests.tuning.test_sweeps import ASHA, events_of
from xaytune.records.journal import FILE_NAME, Event, read_events
from xaytune.records.results import Results

SAVED: dict[str, Any] = {
    "metric": "eval_accuracy",
    "space": {"x": {"loguniform": [1e-3, 1]}},
    "search": {"algorithm": "tpe", "seed": 3, "n_startup_trials": 3},
    "scheduler": ASHA,
    "max_concurrent_trials": 1,
}


def decisions(results: Results) -> list[Event]:
    """What was suggested, judged, stopped and ended, without when and where."""
    kinds = ("trial", "result", "stop", "end")
    fleeting = ("t", "path", "checkpoints")
    found = [event for event in events_of(results) if event["event"] in kinds]
    return [{key: value for key, value in event.items() if key not in fleeting} for event in found]


def last_checkpoint(results: Results, trial: int) -> dict[str, Any]:
    steps = results.trials[trial].checkpoints
    loaded: dict[str, Any] = torch.load(steps[max(steps)])
    return loaded


def assert_same(left: Any, right: Any) -> None:
    """Equal to the last bit."""
    assert type(left) is type(right)
    if isinstance(left, torch.Tensor):
        assert torch.equal(left, right)
    elif isinstance(left, dict):
        assert left.keys() == right.keys()
        for key in left:
            assert_same(left[key], right[key])
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right)
        for a, b in zip(left, right, strict=True):
            assert_same(a, b)
    else:
        assert left == right


def assert_same_sweep(disturbed: Results, undisturbed: Results) -> None:
    assert decisions(disturbed) == decisions(undisturbed)
    for trial in undisturbed.trials:
        pd.testing.assert_frame_equal(disturbed.history(trial.number), undisturbed.history(trial.number))
        assert_same(last_checkpoint(disturbed, trial.number), last_checkpoint(undisturbed, trial.number))


@pytest.fixture(scope="module")
def undisturbed(ray_here: None, tmp_path_factory: pytest.TempPathFactory) -> Results:
    from xaytune.tuning.sweep import Sweep

    sweep = Sweep("tests.recipes:saved", mode="max", num_samples=12, **SAVED)
    return sweep.run(storage=tmp_path_factory.mktemp("undisturbed"))


def test_a_trial_whose_process_is_killed_goes_on_and_ends_with_the_same_bits(
    run: Run, undisturbed: Results
) -> None:
    results = run("saved", num_samples=12, callbacks=["tests.recipes:kill_once_at_step_40"], **SAVED)
    killed = [trial for trial in results.trials if trial.attempts == 2]
    assert killed
    assert_same_sweep(results, undisturbed)
    for trial in killed:
        failure = next(e for e in events_of(results) if e["event"] == "failure" and e["trial"] == trial.number)
        assert (failure["kind"], failure["retried"]) == ("lost", True)
        assert results.history(trial.number)["global_step"].tolist() == list(range(1, trial.global_step + 1))


def test_a_driver_killed_at_20_random_moments_leaves_the_same_sweep(undisturbed: Results, tmp_path: Path) -> None:
    spec = tmp_path / "saved.yaml"
    spec.write_text(
        "recipe: tests.recipes:saved\nmetric: eval_accuracy\nmode: max\n"
        "space: {x: {loguniform: [1e-3, 1]}}\n"
        "search: {algorithm: tpe, seed: 3, n_startup_trials: 3}\n"
        "scheduler: {algorithm: asha, max_t: 9, reduction_factor: 3}\n"
        "num_samples: 12\nmax_concurrent_trials: 1\n"
    )
    journal = tmp_path / "saved" / FILE_NAME
    draw = random.Random(4)
    command = ["run", str(spec)]
    for _ in range(20):
        process = start(command, tmp_path)
        before = lines(journal)
        moment = before + draw.randint(1, 5)
        while lines(journal) < moment and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0, 0.05))
        process.kill()
        process.wait()
        command = ["resume", "saved"]
    done = start(command, tmp_path)
    assert done.wait() == 0
    assert sum(event["event"] == "sweep" for event in read_events(journal)) >= 20
    assert_same_sweep(Results(tmp_path / "saved"), undisturbed)


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def start(command: list[str], storage: Path) -> subprocess.Popen[bytes]:
    """Starts the command line, in the Ray of the tests."""
    address = ray.get_runtime_context().gcs_address
    return subprocess.Popen(
        [sys.executable, "-m", "xaytune", *command, "--storage", str(storage)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "RAY_ADDRESS": address},
    )
