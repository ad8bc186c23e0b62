"""How good it is, in seconds: on synthetic curves whose best value is known; and it never stalls."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from statistics import NormalDist, fmean
from typing import Any

import numpy as np
import pytest
from scipy.stats import rankdata

from tests.benchmarks.search.curves import Curve, Trouble
from tests.benchmarks.search.loop import Outcome, play
from tests.benchmarks.search.methods import METHODS
from tests.benchmarks.search.synthetic import Steps, Synthetic
from xaytune.search.curves.method import CurvesMethod
from xaytune.search.method import SearchMethod

pytestmark = pytest.mark.slow


class Constant(Synthetic):
    """Every value is the same."""

    def curve(self, config: Mapping[str, Any]) -> Curve:
        curve = super().curve(config)
        return Curve(np.full(self.max_t, 0.5), np.full(self.max_t, 0.5), curve.seconds)

    def scale(self) -> tuple[float, float]:
        return 1.0, 0.0


@pytest.fixture(scope="module")
def swept() -> dict[tuple[str, int], tuple[SearchMethod, Outcome]]:
    """Sweeps of 120 epochs on 8 workers, with noise, by method and task: they, and what came of them."""
    found = {}
    for name, number in itertools.product(["curves", "random"], range(1, 9)):
        task = Synthetic(number)
        method = METHODS[name](task, number, 1)
        outcome = play(method, task, workers=8, epochs=120, trouble=Trouble(0.004), seed=number)
        found[name, number] = method, outcome
    return found


# The benchmark (`python -m tests.benchmarks search`) measures more tasks, for longer.
def test_it_finds_what_is_good_and_random_search_does_not(swept: Any) -> None:
    regret = {
        name: fmean(swept[name, number][1].regret_after(120) for number in range(1, 9))
        for name in ("curves", "random")
    }
    assert regret["curves"] < 0.16
    assert regret["random"] > 0.25


@pytest.fixture
def played(swept: Any) -> CurvesMethod:
    """A method after a sweep."""
    method = swept["curves", 1][0]
    assert isinstance(method, CurvesMethod)
    return method


def test_where_a_value_was_seen_the_model_is_near_it(played: CurvesMethod) -> None:
    task, model = Synthetic(1), played._model
    process, _ = model._condition(None, [])
    seen = [
        (trial, time, float(task.curve(played._candidates.encoding.config(trial.point)).true[time - 1]))
        for trial in played._trials.trials
        for time in played._trials.levels
        if time <= trial.time
    ]
    values = np.array([value for _, _, value in seen])
    scores = np.array([NormalDist().inv_cdf((rank - 0.5) / len(seen)) for rank in rankdata(values)])
    inputs = model._inputs([trial.features for trial, _, _ in seen], [time for _, time, _ in seen])
    mean, _ = process.posterior(inputs, np.array([trial.number for trial, _, _ in seen]))
    distance = float(np.sqrt(np.mean((mean - scores) ** 2)))
    assert distance < 0.18, distance


def test_what_is_predicted_depends_on_the_time(played: CurvesMethod) -> None:
    model, progress = played._model, played._trials
    process, _ = model._condition(None, [])
    features = [trial.features for trial in progress.trials if trial.time]
    numbers = np.array([trial.number for trial in progress.trials if trial.time])
    early, late = (
        process.posterior(model._inputs(features, [time] * len(features)), numbers)[0]
        for time in (progress.levels[0], progress.max_t)
    )
    assert np.abs(late - early).mean() > 0.05


def test_a_running_trial_is_known_where_it_will_be_seen(played: CurvesMethod) -> None:
    model, progress = played._model, played._trials
    waiting = next(trial for trial in progress.running.values() if not trial.chosen)
    known, _ = model._condition(None, [])
    ignored, _ = model._condition(waiting, [])
    at = model._inputs([waiting.features], [progress.level_after(waiting.time)])
    number = np.array([waiting.number])
    assert known.posterior(at, number)[1] < ignored.posterior(at, number)[1]
    assert len(known._trials) == len(ignored._trials) + 1


def campaign(runs: int, first: int) -> None:
    """Sees that it never stalls, for so many seeds, and for longer than a test has time for."""
    for seed in range(first, first + runs):
        assert trained_in_full(Steps(seed), seed, noise=0.002 * (seed % 2), trainings=20) >= 5
        assert trained_in_full(Constant(0), seed, noise=0.0, trainings=20) >= 5


def trained_in_full(task: Synthetic, seed: int, noise: float, trainings: int) -> int:
    """Trials that reach the end in a sweep that has time for so many whole trainings."""
    method = METHODS["curves"](task, seed, 3)
    epochs = trainings * task.max_t
    return play(method, task, workers=4, epochs=epochs, trouble=Trouble(noise), seed=seed).full


def test_it_never_stalls_on_a_metric_in_steps() -> None:
    assert trained_in_full(Steps(1), seed=1, noise=0.002, trainings=8) >= 2


def test_it_never_stalls_on_a_metric_that_is_always_the_same() -> None:
    assert trained_in_full(Constant(0), seed=0, noise=0.0, trainings=8) >= 2
