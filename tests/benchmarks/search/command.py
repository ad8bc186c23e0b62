"""``python -m tests.benchmarks search --data FOLDER``: searches compared on known learning curves.

The data is YAHPO Gym's surrogate of LCBench: a folder with ``model.onnx`` and ``encoding.json``. Every result is
kept in a file at once, so that a run can be cut and continued; one that is there is not made again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.search.curves import LCBENCH_OPEN, LcBench, Trouble, seed_of
from tests.benchmarks.search.loop import Outcome, play
from tests.benchmarks.search.methods import METHODS

__all__ = ["main"]

SHARES = (0.05, 0.1, 0.25, 1.0)
# A budget of so many full trainings.
FULL_TRAININGS = 20
GRACE_PERIOD = 3
OURS = "curves"


@dataclass(frozen=True)
class Run:
    """One sweep of the comparison."""

    task: str
    seed: int
    method: str
    workers: int
    noise: float
    diverging: float
    epochs: int

    @property
    def key(self) -> str:
        """What tells it from others."""
        return json.dumps(asdict(self), sort_keys=True)


def main(arguments: Sequence[str]) -> None:
    """Runs what is missing, and prints the table."""
    options = _parser().parse_args(arguments)
    tasks = list(LCBENCH_OPEN) if options.tasks == ["open"] else options.tasks
    if options.limit_tasks:
        tasks = tasks[: options.limit_tasks]
    epochs = round(LcBench.max_t * FULL_TRAININGS * options.share)
    runs = [
        Run(task, seed, method, workers, options.noise, options.diverging, epochs)
        for task in tasks
        for seed in range(options.seeds)
        for method in options.methods
        for workers in (options.workers if method == OURS else options.workers[:1])
    ]
    kept = _kept(options.results)
    for run in runs:
        if run.key not in kept:
            kept[run.key] = _run(run, options.data)
            with options.results.open("a") as file:
                file.write(json.dumps({"run": asdict(run), "outcome": asdict(kept[run.key])}) + "\n")
    for line in _table(runs, kept):
        print(line)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks search", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of YAHPO Gym's LCBench surrogate")
    parser.add_argument(
        "--tasks", nargs="+", default=["open"], help="OpenML task numbers, or open: those to tune on"
    )
    parser.add_argument("--limit-tasks", type=int, help="only the first so many of them")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="+", default=[4], help="peers run with the first number")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--noise", type=float, default=0.3, help="deviation of what is measured, %% accuracy")
    parser.add_argument("--diverging", type=float, default=0.0, help="share of configurations that diverge")
    parser.add_argument("--share", type=float, default=1.0, help="share of the budget of 20 full trainings")
    parser.add_argument("--results", type=Path, default=Path("search-results.jsonl"), help="kept and continued")
    return parser


def _kept(file: Path) -> dict[str, Outcome]:
    lines = file.read_text().splitlines() if file.exists() else []
    entries = [json.loads(line) for line in lines]
    return {Run(**entry["run"]).key: Outcome(**entry["outcome"]) for entry in entries}


def _run(run: Run, data: Path) -> Outcome:
    task = LcBench(data, run.task)
    seed = seed_of(run.task, run.seed)[0] ^ run.seed
    outcome = play(
        METHODS[run.method](task, seed, GRACE_PERIOD),
        task,
        workers=run.workers,
        epochs=run.epochs,
        trouble=Trouble(run.noise, run.diverging),
        seed=run.seed,
    )
    print(
        f"{run.task} seed {run.seed} {run.method}, {run.workers} workers: {outcome.trace[-1][1]:.3f}", flush=True
    )
    return outcome


def _table(runs: Sequence[Run], kept: dict[str, Outcome]) -> Iterator[str]:
    """Mean regret with its standard error, and the paired difference to ours."""
    budget = LcBench.max_t * FULL_TRAININGS
    shares = [share for share in SHARES if share * budget <= runs[0].epochs]
    columns = sorted({(run.method != OURS, run.method, run.workers) for run in runs})
    regrets: dict[tuple[str, int], NDArray[np.float64]] = {}
    yield "regret after " + " / ".join(f"{share:.0%}" for share in shares) + " of the budget, ± standard error"
    for _, method, workers in columns:
        outcomes = [kept[run.key] for run in runs if (run.method, run.workers) == (method, workers)]
        found = np.array([[outcome.regret_after(share * budget) for share in shares] for outcome in outcomes])
        reached = np.array([[outcome.reached_after(share * budget) for share in shares] for outcome in outcomes])
        regrets[method, workers] = found
        error = found.std(0) / np.sqrt(len(found))
        yield (
            f"{method}, {workers} workers: "
            + "  ".join(f"{mean:.3f} ± {e:.3f}" for mean, e in zip(found.mean(0), error, strict=True))
            + f"  (reached: {' '.join(f'{value:.3f}' for value in reached.mean(0))})"
            + f"  full {min(outcome.full for outcome in outcomes)} or more"
            + f"  model {np.mean([outcome.model_seconds for outcome in outcomes]):.1f} s"
            + f", slowest {max(outcome.slowest for outcome in outcomes):.2f} s"
        )
    ours = next((key for key in regrets if key[0] == OURS), None)
    for key in regrets if ours else ():
        if key[0] != OURS and ours is not None:
            low, high = _interval(regrets[ours] - regrets[key])
            pairs = "  ".join(f"[{a:.3f}, {b:.3f}]" for a, b in zip(low, high, strict=True))
            yield f"{OURS} less {key[0]}, paired, 95 %: {pairs}"


def _interval(differences: NDArray[np.float64]) -> Any:
    """The 95 % interval of the mean of paired differences, by bootstrap, ``[2, shares]``."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(differences), size=(4000, len(differences)))
    return np.quantile(differences[draws].mean(1), [0.025, 0.975], axis=0)
