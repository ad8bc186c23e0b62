"""Whole sweeps of fused trials: processes killed at random moments, and many trials beside those trained alone."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import random
import re
import signal
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from tests.ray_tune.sweeps import ASHA, events_of
from xaytune.records.journal import Event
from xaytune.records.results import Results
from xaytune.records.state import SweepState

_TRIALS, _FUSED = 12, 6
# A process is killed within so many seconds after it began, which is about what its trials take.
_KILLED_WITHIN_S = 3.0
# Values that are further apart, in their size, are not equal to rounding any more.
_DEPARTED = 1e-3


class _Killer:
    """Kills each process of several trials once, at a random moment."""

    def __init__(self, draw: random.Random) -> None:
        self._draw, self._seen = draw, set[int]()

    def __call__(self, sweep: SweepState, event: Event) -> None:
        if event["event"] != "start" or event["attempt"] > 0 or event["pid"] in self._seen:
            return
        self._seen.add(event["pid"])
        threading.Timer(self._draw.uniform(0, _KILLED_WITHIN_S), _kill, (event["pid"],)).start()


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def kills(runs: int, seed: int) -> None:
    """Kills processes of fused trials so often: each trial has each step once, with the values that it has alone.

    Raises:
        AssertionError: A step is missing or twice, a value is another, or a trial did not resume from its own
            newest checkpoint.
    """
    draw, killed, number = random.Random(seed), 0, 0
    with _ray() as folder:
        alone = _sweep(folder, fused=1, num_samples=_TRIALS)
        while killed < runs:
            scheduler = ASHA if number % 2 else {"algorithm": "fifo"}
            listener = _Killer(draw)
            results = _sweep(folder, listener, fused=_FUSED, num_samples=_TRIALS, scheduler=scheduler)
            events = events_of(results)
            lost = {event["trial"] for event in events if event["event"] == "failure"}
            first = [event for event in events if event["event"] == "start" and event["attempt"] == 0]
            killed += len({event["pid"] for event in first if event["trial"] in lost})
            for trial in range(_TRIALS):
                _check(results, alone, trial)
            print(f"sweep {number}: {len(lost)} trials lost their process; {killed} kills so far", flush=True)
            number += 1


def _sweep(folder: Path, listener: Any = None, **options: Any) -> Results:
    from xaytune.ray_tune.sweep import Sweep

    sweep = Sweep(
        "tests.ray_tune.fused_recipes:saving",
        metric="eval_loss",
        mode="min",
        space={"x": {"loguniform": [0.001, 0.3]}, "drop": 0.2},
        failures={"retries": 1},  # the one that its process had left, if it is killed then
        **options,
    )
    return sweep.run(storage=tempfile.mkdtemp(dir=folder), listener=listener)


def _check(results: Results, alone: Results, number: int) -> None:
    """Checks a trial of which some process may have been killed."""
    trial = results.trials[number]
    assert trial.status in ("completed", "stopped"), (number, trial.status, trial.reason)
    rows, others = results.history(number), alone.history(number)
    assert list(rows["global_step"]) == list(range(1, trial.global_step + 1)), number
    assert _far(rows, others[: len(rows)]) < 1e-9, number
    newest, saved = 0, [0]  # the newest checkpoint that was known of, also at each start
    events = [event for event in events_of(results) if event.get("trial") == number]
    for event in events:
        newest = max([newest, *map(int, event.get("checkpoints", {}))])
        if event["event"] == "checkpoint":
            newest = event["global_step"]
        if event["event"] == "failure":
            saved.append(newest)
    assert [event["event"] for event in events].count("end") == 1
    output = (results.path / "output" / f"{number:05d}.txt").read_text()
    begun = [int(step) for step in re.findall(r"from (\d+)", output)]
    assert begun == saved[-len(begun) :], (number, begun, saved)  # one that is killed may not have begun yet


def _far(rows: pd.DataFrame, others: pd.DataFrame) -> float:
    """How far the values of histories are from each other at most, in their size."""
    far = 0.0
    for name in ("metrics.loss", "metrics.grad_norm", "metrics.eval_loss"):
        for one, other in zip(rows[name], others[name], strict=True):
            if math.isfinite(one) or math.isfinite(other):
                far = max(far, abs(one - other) / (1 + abs(other)))
    return far


def depart(runs: int, seed: int) -> None:
    """Trains so many random trials of digits fused and alone, under fifo, and prints how many of them depart.

    The one that departs most is trained alone once more, from weights that are changed by 1e-7.

    Raises:
        AssertionError: The configurations are not the same, or one that departs does not by that change.
    """
    from xaytune.ray_tune.sweep import Sweep

    options = {"num_samples": runs, "search.seed": seed % 1000, "scheduler": {"algorithm": "fifo"}}
    with _ray() as folder:
        fused, alone = (
            Sweep.from_yaml("sweeps/digits_fused.yaml", {**options, "fused": width}).run(
                storage=folder, name=f"fused-{width}"
            )
            for width in (64, 1)
        )
        far = {}
        for one, other in zip(fused.trials, alone.trials, strict=True):
            assert one.config == other.config
            assert (one.status, one.global_step) == (other.status, other.global_step)
            far[one.number] = _apart(one.metrics, other.metrics)
        departed = [number for number, distance in far.items() if distance > _DEPARTED]
        same = sum(a.metrics["eval_accuracy"] == b.metrics["eval_accuracy"] for a, b in _pairs(fused, alone))
        print(f"{runs} trials: {same} have the same accuracy at their end, {len(departed)} depart")
        worst = max(far, key=lambda number: far[number])
        again, nudged = (_alone(alone, worst, folder, change) for change in (0.0, 1e-7))
        assert _apart(again, alone.trials[worst].metrics) == 0.0
        moved = _apart(nudged, again)
        print(f"trial {worst} is {far[worst]:.1e} apart; alone, by a change of 1e-7, {moved:.1e}", flush=True)
        assert not departed or moved > _DEPARTED / 10


def _pairs(one: Results, other: Results) -> Iterator[tuple[Any, Any]]:
    return zip(one.trials, other.trials, strict=True)


def _apart(one: dict[str, float], other: dict[str, float]) -> float:
    """How far the last evaluations are from each other, in their size."""
    return abs(one["eval_loss"] - other["eval_loss"]) / abs(other["eval_loss"])


def _alone(results: Results, number: int, folder: Path, change: float) -> dict[str, float]:
    """Trains a trial of digits in this process, from weights that are changed; returns its last metrics."""
    from sweeps import digits
    from xaytune.testing.training import JudgedRun
    from xaytune.trainer.random_state import seed_everything

    trial = results.trials[number]
    torch.set_num_threads(1)
    seed_everything(trial.seed)
    model = digits.mlp(trial.config["hidden"], trial.config["dropout"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1 + change)
    state = digits.fit(model, trial.config, JudgedRun(Path(tempfile.mkdtemp(dir=folder))))  # type: ignore[arg-type]
    return {name: float(value) for name, value in state.metrics.items()}


@contextlib.contextmanager
def _ray() -> Iterator[Path]:
    """A Ray of its own, and a folder for sweeps."""
    import ray

    with tempfile.TemporaryDirectory(prefix="xf", dir=os.environ.get("RAY_TMPDIR", "/tmp")) as folder:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, _temp_dir=folder)
        try:
            yield Path(folder)
        finally:
            ray.shutdown()
