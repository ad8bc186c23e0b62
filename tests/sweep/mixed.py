"""A space of 20 configurations with every kind of domain and value, and a recipe that notes what it is given."""

from __future__ import annotations

import math
import pickle
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tests.sweep.values_to_import import Model, Optimizer, scale

if TYPE_CHECKING:  # it imports torch, for which the tests of decisions do not wait
    from xaytune.trial.run.trial import Trial

VALUES: list[Any] = [
    *(0, False, 1, 1.0, True, None, "", "0", math.inf, b"ab"),
    *((8, 16), [8, 16], {1: "a"}, {"1": {"a": [2**70, None]}}, {1, 2}, Path("data")),
    *(np.float32(0.5), Optimizer.SGD, Model.Block, scale),
]
KILLED = range(3, len(VALUES), 3)  # trials in which a sweep is killed, by number: after each third
KILLED_IN_RAY = KILLED[::3]  # where a kill takes seconds
SPACE: dict[str, Any] = {
    "value": {"grid": VALUES},
    "equal": {"choice": [0, False, 0.0]},
    "dropout": {"choice": [None, 0.0, 0.5]},
    "missing": {"choice": [math.nan, None, 0.5]},
    "x": {"uniform": [0, 1]},
    "lr": {"loguniform": [1e-4, 1]},
    "steps": {"quniform": [0, 2, 0.25]},
    "seed": {"randint": [0, 2**62]},
    "units": {"lograndint": [1, 1000]},
    "betas": ({"uniform": [0.8, 0.9]}, 0.999),
    "schedule": {"choice": [{"kind": "step", "gamma": math.inf}, {"kind": "cosine", "epochs": (5, 10)}, {}]},
    "optimizer": {"choice": ["sgd", "adam"]},
    "sgd": {"momentum": {"uniform": [0.5, 0.99], "when": {"optimizer": "sgd"}}},
    "width": {"choice": [(32,), [64]], "when": {"layers": [2, 3]}},
    "layers": {"randint": [1, 4]},
    "constant": (1, [2.0, {"a": None}], math.inf),
}


def note(config: dict[str, Any], trial: Trial) -> float:
    """Notes the configuration as it is, and is worth something that follows from it."""
    _write(trial, "given", config)
    return float(config["x"])


def waits_once_to_be_killed(trial: Trial, config: dict[str, Any]) -> None:
    """Notes the configuration of a trial in :data:`KILLED_IN_RAY`, which waits for that, the first time."""
    noted = path(trial.checkpoint_dir.parents[1], "killed", trial.number)
    if trial.number in KILLED_IN_RAY and not noted.exists():
        _write(trial, "killed", config)
        signal.pause()


def path(sweep: Path, kind: str, trial: int) -> Path:
    """Where a note of a trial is."""
    return sweep / f"{kind}-{trial}.pkl"


def _write(trial: Trial, kind: str, config: dict[str, Any]) -> None:
    written = path(trial.checkpoint_dir.parents[1], kind, trial.number)
    written.with_suffix(".part").write_bytes(pickle.dumps(config))
    written.with_suffix(".part").rename(written)
