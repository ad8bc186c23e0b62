"""ASHA's rungs, whatever is reported there and in whatever order."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial as TuneTrial

from xaytune.ray_tune.judges import AshaJudge, judge_for
from xaytune.sweep.algorithms import AshaSpec
from xaytune.sweep.spec import SweepSpec
from xaytune.trial.messages import StopRequest, Verdict

options = st.builds(
    lambda grace, factor, levels, off: {
        "algorithm": "asha",
        "grace_period": grace,
        "reduction_factor": factor,
        "max_t": int(grace * factor**levels) + off,
    },
    st.integers(1, 4),
    st.sampled_from([2, 3, 4, 2.5]),
    st.integers(0, 3),
    st.integers(0, 3),
)
values = st.lists(st.lists(st.none() | st.floats(-1e6, 1e6), min_size=5, max_size=5), min_size=1, max_size=8)


def spec(scheduler: dict[str, Any], mode: str) -> SweepSpec:
    space = {"x": {"uniform": [0, 1]}}
    return SweepSpec.parse({"recipe": "a:b", "metric": "m", "mode": mode, "space": space, "scheduler": scheduler})


@given(options)
def test_the_rungs_ascend_from_the_grace_period_to_max_t(scheduler: dict[str, Any]) -> None:
    rungs = AshaSpec(**scheduler).rungs
    assert rungs[-1] == scheduler["max_t"]
    assert rungs[0] == min(scheduler["grace_period"], scheduler["max_t"])
    assert list(rungs) == sorted(set(rungs))


@settings(deadline=None)
@given(options, values, st.sampled_from(["max", "min"]), st.randoms(use_true_random=False), st.floats(0, 1))
def test_a_trial_goes_on_only_among_the_best_of_its_rung_and_a_replayed_judge_decides_the_same(
    scheduler: dict[str, Any], curves: list[list[float | None]], mode: str, order: Any, killed_at: float
) -> None:
    """Trials come to their rungs in any order; the driver is killed somewhere, and the judge rebuilt."""
    judge = judge_for(spec(scheduler, mode))
    assert isinstance(judge, AshaJudge)
    rungs = judge.points.milestones or ()
    trials = [TuneTrial("trainable", trial_id=str(number), stub=True) for number in range(len(curves))]
    for trial in trials:
        judge.add(None, trial)
    waiting = dict.fromkeys(range(len(curves)), 0)
    seen: dict[int, list[float]] = {rung: [] for rung in rungs}
    journal: list[tuple[TuneTrial, int, float | None]] = []
    verdicts: list[Verdict] = []
    sign = 1 if mode == "max" else -1
    while waiting:
        number = order.choice(sorted(waiting))
        rung, value = rungs[waiting[number]], curves[number][waiting[number] % 5]
        verdict = judge.verdict(None, trials[number], rung, value, True)
        journal.append((trials[number], rung, value))
        verdicts.append(verdict)
        worth = -1e300 if value is None else sign * value
        if value is None:
            assert verdict.request is not None
            assert verdict.reason.startswith("diverged")
        elif rung == rungs[-1]:
            assert verdict.request == StopRequest(f"reached max_t at epoch {rung}", "completed")
        else:
            share = (1 - 1 / scheduler["reduction_factor"]) * 100
            weak = bool(seen[rung]) and worth < np.nanpercentile(seen[rung], share)
            assert (verdict.decision == "stop") == weak
            assert verdict.compared == len(seen[rung])
        seen[rung].append(worth)
        waiting[number] += 1
        if verdict.request is not None or waiting[number] == len(rungs):
            del waiting[number]
    again = judge_for(spec(scheduler, mode))
    for trial in trials:
        again.add(None, trial)
    cut = int(killed_at * len(journal))
    for trial, rung, value in journal[:cut]:
        again.verdict(None, trial, rung, value, True)
    assert [again.verdict(None, *result, True) for result in journal[cut:]] == verdicts[cut:]
