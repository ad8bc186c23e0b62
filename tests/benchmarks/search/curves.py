"""Learning curves that are known: a task gives the curve of a configuration, and what is good on it."""

from __future__ import annotations

import functools
import json
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xaytune.search.curves.axes import axis_of
from xaytune.sweep.objective import Mode
from xaytune.sweep.space import Space
from xaytune.sweep.space_parser import parse_space

# A budget of so many full trainings.
FULL_TRAININGS = 20

# The others are kept for a last measurement.
LCBENCH_OPEN = (
    "3945", "34539", "126026", "146212", "167149", "167161", "167181", "167185", "167200", "168329", "168331",
    "168868", "168910", "189862", "189866", "189905", "189908",
)  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """What training a configuration is worth, epoch by epoch.

    Attributes:
        values: The metric as it is measured after each epoch; not a number from where it diverges.
        true: The metric without the noise of measuring.
        seconds: Of each epoch.
    """

    values: NDArray[np.float64]
    true: NDArray[np.float64]
    seconds: NDArray[np.float64]

    def to(self, epoch: int) -> Curve:
        """Returns the curve, known to that epoch at least."""
        return self


@dataclass(frozen=True)
class Trouble:
    """What makes curves harder to read.

    Attributes:
        noise: Standard deviation of what is measured around the metric, in its unit.
        diverging: Share of configurations whose metric is not a number from some epoch on.
    """

    noise: float = 0.0
    diverging: float = 0.0


class Task(ABC):
    """Something to train.

    Attributes:
        name: Of the task.
        space: What is searched.
        mode: What is better.
        max_t: Epochs of a full training.
    """

    name: str
    space: Space
    mode: Mode
    max_t: int

    @abstractmethod
    def curve(self, config: Mapping[str, Any]) -> Curve:
        """Returns the curve of a configuration, without trouble."""

    def worth(self, curve: Curve) -> float:
        """Returns what a configuration is worth that was trained in full: the metric at its best epoch."""
        return float(curve.true.max() if self.mode == "max" else curve.true.min())

    @abstractmethod
    def scale(self) -> tuple[float, float]:
        """Returns the values of regret 0 and regret 1: the best, and a bad one, of many random configurations."""


def seed_of(*parts: Any) -> list[int]:
    """Returns a seed that follows from some values."""
    return [zlib.crc32(json.dumps(part, sort_keys=True, default=str).encode()) for part in parts]


def method_seed(task: str, seed: int) -> int:
    """Returns what a method is seeded with: another one for each task."""
    return seed_of(task, seed)[0] ^ seed


def troubled(curve: Curve, trouble: Trouble, seed: Sequence[int]) -> Curve:
    """Returns a curve as it is measured: the same for one configuration, whichever method asks for it."""
    rng = np.random.default_rng(seed)
    values = curve.true + trouble.noise * rng.standard_normal(len(curve.true))
    if rng.random() < trouble.diverging:
        values[rng.integers(len(values)) :] = np.nan
    return Curve(values, curve.true, curve.seconds)


class LcBench(Task):
    """A task of LCBench (Zimmer, Lindauer and Hutter, 2021) as YAHPO Gym's surrogate predicts it.

    Args:
        folder: Where ``model.onnx`` and ``encoding.json`` are.
        name: The OpenML task's number.
    """

    mode: Mode = "max"
    max_t = 52
    space = parse_space(
        {
            "batch_size": {"lograndint": [16, 513]},
            "learning_rate": {"loguniform": [1e-4, 0.1]},
            "momentum": {"uniform": [0.1, 0.99]},
            "weight_decay": {"uniform": [1e-5, 0.1]},
            "num_layers": {"randint": [1, 6]},
            "max_units": {"lograndint": [64, 1025]},
            "max_dropout": {"uniform": [0.0, 1.0]},
        }
    )
    _NAMES = tuple(parameter.name for parameter in space.parameters)

    def __init__(self, folder: Path, name: str) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self.name = name
        self._session = onnxruntime.InferenceSession(str(folder / "model.onnx"), options)
        self._code = json.loads((folder / "encoding.json").read_text())["OpenML_task_id"][name]
        self._folder = folder

    def curve(self, config: Mapping[str, Any]) -> Curve:
        accuracy, time = self._predict(np.array([[config[name] for name in self._NAMES]]))
        return Curve(accuracy[0], accuracy[0], np.maximum(np.diff(time[0], prepend=0), 1e-3))

    def scale(self) -> tuple[float, float]:
        return _lcbench_scale(self._folder, self.name)

    def random_curves(self, count: int) -> NDArray[np.float64]:
        """Returns the accuracy of random configurations, ``[count, epochs]``."""
        rng = np.random.default_rng(0)
        axes = [axis_of(parameter.domain) for parameter in self.space.parameters]
        rows = [[float(axis.value(rng.random())) for axis in axes] for _ in range(count)]
        return self._predict(np.array(rows))[0]

    def _predict(self, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Accuracy and cumulative seconds, ``[n, epochs]``."""
        epochs = np.tile(np.arange(1, self.max_t + 1), len(rows))[:, None]
        continuous = np.concatenate([epochs, np.repeat(rows, self.max_t, axis=0)], axis=1).astype(np.float32)
        task = np.full((len(continuous), 1), self._code, np.int32)
        outputs = self._session.run(None, {"x_cat": task, "x_cont": continuous})[0].reshape(
            len(rows), self.max_t, -1
        )
        return outputs[:, :, 1].astype(float), outputs[:, :, 0].astype(float)


@functools.cache
def _lcbench_scale(folder: Path, name: str) -> tuple[float, float]:
    # What a configuration is worth is its value at its best epoch: the best of them is 0, the worst 1.
    worth = LcBench(folder, name).random_curves(5000).max(axis=1)
    return float(worth.max()), float(worth.min())
