"""Sweeps that are disturbed, and the one that they are compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import ray
import torch

from tests.callbacks import notes
from xaytune.records.journal import FILE_NAME, Event, read_events
from xaytune.records.results import Results

ASHA = {"algorithm": "asha", "max_t": 9, "reduction_factor": 3}
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
    fleeting = ("t", "s", "seconds", "path", "checkpoints")
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


def lines(journal: Path) -> int:
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def start(command: list[str], storage: Path | str) -> subprocess.Popen[bytes]:
    """Starts the command line, in the Ray of the tests."""
    assert ray.is_initialized(), "the test is to ask for ray_here: asked for its context, Ray starts by itself"
    address = ray.get_runtime_context().gcs_address
    return subprocess.Popen(
        [sys.executable, "-m", "xaytune", *command, "--storage", str(storage)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_ADDRESS": address},
    )


def saved_spec(folder: Path, more: str = "") -> str:
    """The spec of the undisturbed sweep, as a file."""
    path = folder / "saved.yaml"
    path.write_text(
        "recipe: tests.recipes:saved\nmetric: eval_accuracy\nmode: max\n"
        "space: {x: {loguniform: [1e-3, 1]}}\n"
        "search: {algorithm: tpe, seed: 3, n_startup_trials: 3}\n"
        "scheduler: {algorithm: asha, max_t: 9, reduction_factor: 3}\n"
        f"num_samples: 12\nmax_concurrent_trials: 1\n{more}"
    )
    return str(path)


def wait_for(journal: Path, count: int, process: subprocess.Popen[bytes]) -> None:
    """Waits until a journal has so many lines, or its process has ended."""
    while lines(journal) < count and process.poll() is None:
        time.sleep(0.001)


def events_of(results: Results) -> list[Event]:
    return list(read_events(results.path / FILE_NAME))


def fired(results: Results, trial: int) -> list[str]:
    return notes(results.path, trial).read_text().split()
