"""Our schedulers decide as Ray Tune's do, decision by decision, on whatever is reported in whatever order."""

from __future__ import annotations

import sys
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import AsyncHyperBandScheduler, HyperBandScheduler, MedianStoppingRule, TrialScheduler

from tests.search.runs import spec_of
from xaytune.search.build import method_for
from xaytune.search.method import Continue, Done, End, Pause, Result, Resume, Stop, Wait

Curves = list[list[float | None]]
SCORES = st.floats(-1e6, 1e6) | st.integers(-3, 3).map(float)
CURVES = st.lists(st.lists(st.none() | SCORES, min_size=12, max_size=12), min_size=1, max_size=9)
MODES = st.sampled_from(["max", "min"])
ORDERS = st.randoms(use_true_random=False)


class Controller:
    """What a scheduler of Ray's asks of its controller; no trial waits, but for those that it paused."""

    search_alg = None

    def __init__(self) -> None:
        self.stopped: list[TuneTrial] = []

    def get_live_trials(self) -> list[TuneTrial]:
        return []

    def stop_trial(self, trial: TuneTrial) -> None:
        self.stopped.append(trial)


def trial_of(number: int) -> TuneTrial:
    return TuneTrial("trainable", trial_id=str(number), stub=True)


def assert_decides_as(ray: Any, options: dict[str, Any], mode: str, curves: Curves, order: Any) -> None:
    """Plays curves in a random order: each trial trains until it is stopped, ends by itself, or its curve does.

    Ray decides the same until a trial has diverged: it leaves that out, and here it counts as the worst.
    """
    method = method_for(spec_of(options, mode=mode, num_samples=len(curves)))
    trials = [trial_of(number) for number in range(len(curves))]
    for trial in trials:
        method.next()
        ray.on_trial_add(None, trial)
    running = dict.fromkeys(range(len(curves)), 0)
    diverged = False
    while running:
        number = order.choice(sorted(running))
        time = method.points.after(running[number])
        time = running[number] + 1 if method.points.at_every_evaluation else time
        if time > 12 or order.random() < 0.05:
            last = curves[number][min(running[number], 11)]
            due = last is not None and order.random() < 0.5 and running[number] > 0
            if due:
                ray.on_trial_complete(None, trials[number], {"epoch": running[number], "m": last})
            else:
                ray.on_trial_remove(None, trials[number])
            method.on_end(number, End("completed", last, Result(running[number], last, due=due)))
            del running[number]
            continue
        value = curves[number][int(time) - 1]
        worst = -1e300 if mode == "max" else 1e300
        theirs = ray.on_trial_result(
            Controller(), trials[number], {"epoch": time, "m": worst if value is None else value}
        )
        ours, *others = method.on_result(number, Result(int(time), value))
        assert not others
        running[number] = int(time)
        diverged = diverged or value is None
        if value is None:
            assert isinstance(ours, Stop)
        else:
            assert diverged or (theirs == TrialScheduler.STOP) == isinstance(ours, Stop)
            assert isinstance(ours, (Stop, Continue))
        if isinstance(ours, Stop):
            ray.on_trial_remove(None, trials[number])
            method.on_end(number, End("stopped", None, Result(int(time), value, due=False)))
            del running[number]


@given(CURVES, MODES, ORDERS, st.integers(1, 3), st.sampled_from([2, 3, 4, 2.5]), st.integers(3, 12))
def test_asha(curves: Curves, mode: str, order: Random, grace: int, factor: float, max_t: int) -> None:
    options: dict[str, Any] = {"grace_period": grace, "reduction_factor": factor, "max_t": max_t}
    ray = AsyncHyperBandScheduler(time_attr="epoch", metric="m", mode=mode, **options)
    assert_decides_as(ray, {"algorithm": "asha", **options}, mode, curves, order)


@given(CURVES, MODES, ORDERS, st.integers(1, 4), st.integers(1, 4))
def test_median_stopping(curves: Curves, mode: str, order: Random, grace: int, required: int) -> None:
    options: dict[str, Any] = {"grace_period": grace, "min_samples_required": required}
    ray = MedianStoppingRule(time_attr="epoch", metric="m", mode=mode, min_time_slice=sys.maxsize, **options)
    assert_decides_as(ray, {"algorithm": "median", **options}, mode, curves, order)


@settings(max_examples=100)
@given(
    st.lists(st.lists(SCORES, min_size=30, max_size=30), min_size=1, max_size=26),
    MODES,
    ORDERS,
    st.integers(1, 27),
    st.sampled_from([2, 3, 4]),
    st.floats(0, 0.05),
)
def test_hyperband(
    curves: list[list[float]], mode: str, order: Random, max_t: int, factor: int, failing: float
) -> None:
    """Ray knows all trials before any reports; ours come one by one, when the scheduler asks for them."""
    controller = Controller()
    ray: Any = HyperBandScheduler("epoch", "m", mode, max_t=max_t, reduction_factor=factor)
    trials = [trial_of(number) for number in range(len(curves))]
    for trial in trials:
        ray.on_trial_add(controller, trial)
    options = {"algorithm": "hyperband", "max_t": max_t, "reduction_factor": factor}
    method = method_for(spec_of(options, mode=mode, num_samples=len(curves)))
    running: dict[int, int] = {}
    paused: dict[int, int] = {}
    made = 0

    def stop(theirs: list[TuneTrial], ours: Any, bracket: Any) -> None:
        """Both stop the same of the trials that wait."""
        stopped = {action.trial for action in ours if isinstance(action, Stop)}
        assert {int(trial.trial_id) for trial in theirs} == stopped
        for number in stopped:
            trials[number].set_status(TuneTrial.TERMINATED)
            bracket.cleanup_trial(trials[number])
            del paused[number]
            assert not method.on_end(number, End("stopped"))
        controller.stopped = []

    while True:
        while len(running) < 3 and not isinstance(step := method.next(), (Wait, Done)):
            if isinstance(step, Resume):
                assert trials[step.trial] in ray._trial_info[trials[step.trial]][0].trials_to_unpause
                method.on_resume(step.trial)
                running[step.trial] = paused.pop(step.trial)
            else:
                running[made] = 0
                made += 1
        if not running:
            break
        number = order.choice(sorted(running))
        trial, time = trials[number], int(method.points.after(running[number]))
        bracket = ray._trial_info[trial][0]
        trial.set_status(TuneTrial.RUNNING)
        if order.random() < failing:
            # Ray forgets that a bracket was processed; a bracket would wait for ever.
            bracket.is_being_processed = False
            trial.set_status(TuneTrial.ERROR)
            ray.on_trial_error(controller, trial)
            if bracket.finished():
                bracket.cleanup_full(controller)
            del running[number]
            stop(controller.stopped, method.on_end(number, End("failed")), bracket)
            continue
        value = curves[number][time - 1]
        theirs = ray.on_trial_result(controller, trial, {"epoch": time, "m": value})
        own, *others = method.on_result(number, Result(time, value))
        expected = {TrialScheduler.STOP: Stop, TrialScheduler.PAUSE: Pause, TrialScheduler.CONTINUE: Continue}
        assert type(own) is expected[theirs]
        running[number] = time
        stop(controller.stopped, others, bracket)
        if isinstance(own, Pause):
            trial.set_status(TuneTrial.PAUSED)
            paused[number] = running.pop(number)
        elif isinstance(own, Stop):
            trial.set_status(TuneTrial.TERMINATED)
            bracket.cleanup_trial(trial)
            del running[number]
            assert not method.on_end(number, End(own.status))
    assert not paused
    assert made == len(curves)
    assert isinstance(method.next(), Done)
