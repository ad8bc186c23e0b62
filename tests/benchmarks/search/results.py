"""What came of the sweeps of a comparison: kept in a file, and put into a table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks.search.loop import Outcome

SHARES = (0.05, 0.1, 0.25, 1.0)
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
    grace_period: int = 3


class Kept:
    """The outcomes of sweeps, in a file: what is set is there at once.

    Args:
        file: A line each.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        lines = file.read_text().splitlines() if file.exists() else []
        entries = [json.loads(line) for line in lines]
        self._outcomes = {Run(**entry["run"]): Outcome(**entry["outcome"]) for entry in entries}

    def __contains__(self, run: Run) -> bool:
        return run in self._outcomes

    def __getitem__(self, run: Run) -> Outcome:
        return self._outcomes[run]

    def __setitem__(self, run: Run, outcome: Outcome) -> None:
        self._outcomes[run] = outcome
        with self._file.open("a") as file:
            file.write(json.dumps({"run": asdict(run), "outcome": asdict(outcome)}) + "\n")


def table(runs: Sequence[Run], kept: Kept, budget: int) -> Iterator[str]:
    """Mean regret with its standard error, and the paired difference to ours.

    Args:
        runs: The sweeps.
        kept: What came of them.
        budget: Epochs of all that shares are of.
    """
    shares = [share for share in SHARES if share * budget <= runs[0].epochs]
    columns = sorted({(run.method != OURS, run.method, run.workers) for run in runs})
    regrets: dict[tuple[str, int], NDArray[np.float64]] = {}
    yield "regret after " + " / ".join(f"{share:.0%}" for share in shares) + " of the budget, ± standard error"
    for _, method, workers in columns:
        outcomes = [kept[run] for run in runs if (run.method, run.workers) == (method, workers)]
        found = np.array([[outcome.regret_after(share * budget) for share in shares] for outcome in outcomes])
        reached = np.array([[outcome.reached_after(share * budget) for share in shares] for outcome in outcomes])
        regrets[method, workers] = found
        full = [outcome.full for outcome in outcomes]
        yield (
            f"{method}, {workers} workers: {_means(found)}"
            + f"  (reached: {' '.join(f'{value:.3f}' for value in reached.mean(0))};"
            + f" to train again: {np.mean([outcome.handed_over for outcome in outcomes]):.3f})"
            + f"  in full {np.mean(full):.1f} of {np.mean([outcome.trials for outcome in outcomes]):.0f} trials,"
            + f" {min(full)} or more"
            + f"  model {np.mean([outcome.model_seconds for outcome in outcomes]):.1f} s"
            + f", slowest {max(outcome.slowest for outcome in outcomes):.2f} s"
        )
    ours = next((key for key in regrets if key[0] == OURS), None)
    for key in regrets if ours else ():
        if key[0] != OURS and ours is not None:
            differences = regrets[ours] - regrets[key]
            low, high = _interval(differences)
            pairs = "  ".join(f"[{a:.3f}, {b:.3f}]" for a, b in zip(low, high, strict=True))
            yield f"{OURS} less {key[0]}, paired: {_means(differences)}; 95 %: {pairs}"


def _means(values: NDArray[np.float64]) -> str:
    """The mean of each column with its standard error."""
    error = values.std(0, ddof=min(1, len(values) - 1)) / np.sqrt(len(values))
    return "  ".join(f"{mean:.3f} ± {e:.3f}" for mean, e in zip(values.mean(0), error, strict=True))


def _interval(differences: NDArray[np.float64]) -> Any:
    """The 95 % interval of the mean of paired differences, by bootstrap, ``[2, shares]``."""
    rng = np.random.default_rng(0)
    draws = rng.integers(len(differences), size=(4000, len(differences)))
    return np.quantile(differences[draws].mean(1), [0.025, 0.975], axis=0)
