"""Synthetic learning curves: they need no data, and their best value is known."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from tests.benchmarks.search.curves import Curve, Task
from xaytune.sweep.objective import Mode
from xaytune.sweep.space_parser import parse_space


class Synthetic(Task):
    """Curves ``a - (a - start) * (1 + t / tau) ** -1.5`` that end near a, the sooner the smaller tau.

    What `a` is best for is at one place of a log float, a float, an integer and a choice; one parameter does
    nothing. Small values of the float start fast and end poor.

    Args:
        number: Which one of the tasks.
        mode: ``"min"`` turns the metric round.
    """

    max_t = 27
    space = parse_space(
        {
            "lr": {"loguniform": [1e-4, 1.0]},
            "width": {"uniform": [0.0, 1.0]},
            "layers": {"randint": [1, 9]},
            "kind": {"choice": ["a", "b", "c"]},
            "idle": {"uniform": [0.0, 1.0]},
        }
    )

    def __init__(self, number: int, mode: Mode = "max") -> None:
        self.name = f"synthetic {number}"
        self.mode = mode
        rng = np.random.default_rng(number)
        self._lr, self._width, self._layers = rng.uniform(0.2, 0.8, 3)
        self._offsets = dict(zip("abc", rng.permutation([0.0, 0.1, 0.2]), strict=True))
        self._sign = 1 if mode == "max" else -1

    def curve(self, config: Mapping[str, Any]) -> Curve:
        lr = (math.log10(config["lr"]) + 4) / 4
        distance = 2 * (lr - self._lr) ** 2 + (config["width"] - self._width) ** 2
        distance += 0.5 * ((config["layers"] - 1) / 7 - self._layers) ** 2
        end = 1 - distance - self._offsets[config["kind"]]
        tau = 0.5 + config["width"]
        times = np.arange(1, self.max_t + 1)
        values = self._sign * (end - end * (1 + times / tau) ** -1.5)
        return Curve(values, values, np.ones(self.max_t))

    def scale(self) -> tuple[float, float]:
        rng = np.random.default_rng(0)
        draws = [
            {
                "lr": 10 ** rng.uniform(-4, 0),
                "width": rng.uniform(),
                "layers": int(rng.integers(1, 9)),
                "kind": str(rng.choice(list("abc"))),
                "idle": 0.0,
            }
            for _ in range(1000)
        ]
        ends = np.array([self.curve(draw).true[-1] for draw in draws])
        return float(ends.max() if self.mode == "max" else ends.min()), float(np.median(ends))


class Steps(Synthetic):
    """The same in steps of 1/450, as an accuracy is, with early epochs that tell little, under a schedule."""

    def curve(self, config: Mapping[str, Any]) -> Curve:
        smooth = super().curve(config).true
        share = np.arange(1, self.max_t + 1) / self.max_t
        late = smooth * (0.5 + 0.5 * share**2)
        values = np.round(late * 450) / 450
        return Curve(values, values, np.ones(self.max_t))
