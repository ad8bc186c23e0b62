"""Learning curves of trainings that happen: what was trained is kept, and no method trains it again."""

from __future__ import annotations

import functools
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.benchmarks.search.curves import FULL_TRAININGS, Curve, Task, method_seed
from tests.benchmarks.search.trainings import EPOCHS, RECIPES
from xaytune.search.configurations import draw_configuration, seeded


@dataclass(frozen=True)
class _Trained(Curve):
    """A curve that is trained on where more of it is asked for."""

    more: Callable[[int], Curve]

    def to(self, epoch: int) -> Curve:
        return self.more(epoch)


class Real(Task):
    """A task that is trained. Its seconds are those of a core.

    Args:
        folder: Where the curves of each task are kept: a line an epoch.
        name: Of the task.
        random: How many configurations are trained in full to know what is good: the best of them has regret 0,
            their median 1. They are the first ones of random search, of each seed as many as its budget takes.
    """

    max_t = EPOCHS

    def __init__(self, folder: Path, name: str, random: int) -> None:
        self.name = name
        self._recipe = RECIPES[name]
        self.space, self.mode = self._recipe.space, self._recipe.mode
        self._random = random
        self._file = folder / f"{name.replace(' ', '-')}.jsonl"
        self._trainings: dict[str, Iterator[float]] = {}
        self._known: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)  # values and seconds
        folder.mkdir(parents=True, exist_ok=True)
        for line in self._file.read_text().splitlines() if self._file.exists() else []:
            entry = json.loads(line)
            self._known[entry["config"]].append((entry["value"], entry["seconds"]))

    def curve(self, config: Mapping[str, Any]) -> Curve:
        return self._trained(json.dumps(config, sort_keys=True), 0)

    def worth(self, curve: Curve) -> float:
        """Returns the metric at the end; the median of the random ones where it is worse, or not finite."""
        end, (_, median) = float(curve.true[-1]), self.scale()
        better = max if self.mode == "max" else min
        return better(end, median) if np.isfinite(end) else median

    def scale(self) -> tuple[float, float]:
        return self._scale

    @functools.cached_property
    def _scale(self) -> tuple[float, float]:
        places = [divmod(number, FULL_TRAININGS) for number in range(self._random)]
        generators = [seeded(method_seed(self.name, seed), trial, 0) for seed, trial in places]
        drawn = [draw_configuration(self.space, generator) for generator in generators]
        ends = np.array([self.curve(config).to(EPOCHS).true[-1] for config in drawn])
        sign = 1 if self.mode == "max" else -1
        scores = np.where(np.isfinite(ends), sign * ends, -np.inf)
        return sign * float(scores.max()), sign * float(np.median(scores))

    def _trained(self, key: str, epochs: int) -> Curve:
        """The curve of a configuration, trained so many epochs at least."""
        known = self._known[key]
        while len(known) < epochs:
            training = self._training(key, len(known))
            started = time.process_time()
            value = next(training)
            known.append((value, time.process_time() - started))
            with self._file.open("a") as file:
                entry = {"config": key, "value": value, "seconds": known[-1][1]}
                file.write(json.dumps(entry) + "\n")
        values, seconds = np.array(known).reshape(-1, 2).T
        return _Trained(values, values, seconds, functools.partial(self._trained, key))

    def _training(self, key: str, epochs: int) -> Iterator[float]:
        """The training of a configuration, after so many epochs."""
        if key not in self._trainings:
            self._trainings[key] = self._recipe.train(json.loads(key))
            for _ in range(epochs):  # it was cut off, and what it had learnt is gone
                next(self._trainings[key])
        return self._trainings[key]
