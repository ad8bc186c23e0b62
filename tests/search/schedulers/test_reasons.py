"""What schedulers say of their decisions: what was compared with what, and nothing that was not."""

from __future__ import annotations

from typing import Any

from tests.search.runs import spec_of
from xaytune.search.build import method_for
from xaytune.search.method import Continue, End, Exploit, KeepCheckpoint, Pause, Result, Resume, SearchMethod, Stop
from xaytune.testing.playing import play


def method_of(scheduler: dict[str, Any], trials: int = 4, mode: str = "max") -> SearchMethod:
    method = method_for(spec_of(scheduler, num_samples=trials, mode=mode))
    for _ in range(trials):
        method.next()
    return method


def test_asha_tells_the_rung_the_cutoff_and_of_how_many_trials_it_is() -> None:
    method = method_of({"algorithm": "asha", "max_t": 9, "reduction_factor": 3}, mode="min")
    assert method.on_result(0, Result(1, 0.25)) == [Continue(trial=0, reason="rung 1: 0.25 is the first there")]
    (stop,) = method.on_result(1, Result(1, 0.5))
    assert stop == Stop(
        trial=1, reason="rung 1: 0.5 is above the cut-off 0.25 of 1 trial", cutoff=0.25, compared=1
    )
    assert method.on_result(0, Result(9, 0.1)) == [
        Stop(trial=0, reason="reached max_t at epoch 9", status="completed")
    ]
    assert method.on_result(2, Result(2, None)) == [Stop(trial=2, reason="diverged: m is not finite at epoch 2")]


def test_median_names_no_comparison_that_was_not_made() -> None:
    method = method_of({"algorithm": "median", "grace_period": 2, "min_samples_required": 2})
    for trial in range(3):
        (early,) = method.on_result(trial, Result(1, 0.5))
        assert early == Continue(trial=trial, reason="epoch 1: 0.5, before grace_period: it is not compared")
    texts = [method.on_result(trial, Result(2, value))[0] for trial, value in enumerate((0.6, 0.7))]
    assert [(text.cutoff, text.compared) for text in texts if isinstance(text, Continue)] == [(None, 0)] * 2
    assert texts[1] == Continue(
        trial=1, reason="epoch 2: 0.7, not compared: 1 of the 2 other trials that it takes have come as far"
    )
    (stop,) = method.on_result(2, Result(2, 0.4))
    assert isinstance(stop, Stop)
    assert stop.reason == (
        "epoch 2: its best value 0.5 is below the median 0.65 of the running averages of 2 trials"
    )


def test_hyperband_says_where_a_bracket_ends_short_of_max_t() -> None:
    spec = spec_of({"algorithm": "hyperband", "max_t": 10, "reduction_factor": 4}, num_samples=8)
    played = play(method_for(spec), lambda trial, config, time: config["x"] * time, end=30)
    reasons = {stop.reason for stop in played.decisions(Stop) if stop.status == "completed"}
    assert "reached max_t at epoch 10" in reasons
    assert "its bracket ended at epoch 8, the last of its milestones below max_t 10" in reasons
    stopped = next(stop for stop in played.decisions(Stop) if stop.status == "stopped")
    assert " is not among the best 2 of 5 in its bracket" in stopped.reason


def test_a_bracket_does_not_wait_for_trials_that_the_sweep_does_not_have() -> None:
    method = method_of({"algorithm": "hyperband", "max_t": 9}, trials=5)
    for trial in range(3):
        assert isinstance(method.on_result(trial, Result(9, 0.5))[0], (Pause, Stop))
    # The second bracket is planned for five, of which the sweep has two.
    assert isinstance(method.on_result(3, Result(3, 0.4))[0], Pause)
    assert isinstance(method.on_result(4, Result(3, 0.5))[0], Continue)
    assert method.next() == Resume(3)
    method.on_resume(3)
    assert not method.on_end(3, End("failed"))
    assert isinstance(method.on_result(4, Result(9, 0.5))[0], Stop)


def test_a_trial_is_not_compared_with_what_lies_between_one_that_diverged_and_one_that_did_not() -> None:
    asha = method_of({"algorithm": "asha", "max_t": 9, "reduction_factor": 3})
    asha.on_result(0, Result(1, 0.9))
    asha.on_result(1, Result(1, None))
    (stop,) = asha.on_result(2, Result(1, 0.1))
    reason = "rung 1: 0.1 is below the cut-off 0.9 of 2 trials"
    assert stop == Stop(trial=2, reason=reason, cutoff=0.9, compared=2)
    median = method_of({"algorithm": "median", "min_samples_required": 2}, trials=5)
    for trial, value in enumerate((0.9, 0.9, None, None)):
        median.on_result(trial, Result(1, value))
    (stop,) = median.on_result(4, Result(1, 0.1))
    assert isinstance(stop, Stop)
    assert stop.reason == "epoch 1: its best value 0.1 is below the median 0.9 of the running averages of 4 trials"


def test_a_trial_continues_where_those_that_it_is_compared_with_diverged() -> None:
    asha = method_of({"algorithm": "asha", "max_t": 9, "reduction_factor": 3})
    median = method_of({"algorithm": "median", "min_samples_required": 2})
    for method in (asha, median):
        method.on_result(0, Result(1, None))
        method.on_result(1, Result(1, None))
    (asha_says,), (median_says,) = (method.on_result(2, Result(1, 0.1)) for method in (asha, median))
    words = "0.1 is better than most of 2 trials, which diverged"
    assert asha_says == Continue(trial=2, reason=f"rung 1: {words}", compared=2)
    assert median_says == Continue(trial=2, reason=f"epoch 1: {words}", compared=2)


def test_a_population_tells_with_whom_a_trial_was_compared_and_when_and_whether_it_was() -> None:
    method = method_of({"algorithm": "pbt", "perturbation_interval": 2}, trials=8)
    values = (0.9, 0.1, 0.8, 0.2, 0.7)
    told = [method.on_result(trial, Result(2, value))[0] for trial, value in enumerate(values)]
    few = "epoch 2: not compared, {} of the 4 trials that it takes have come as far"
    assert told[:3] == [Continue(trial=trial, reason=few.format(trial + 1)) for trial in range(3)]
    assert isinstance(told[3], Continue)
    assert told[3].reason == "epoch 2: 0.2 is not among the worst of 4 trials"
    assert told[3].compared == 3
    # The worst at epoch 2 is compared with the four others there when it is at epoch 4.
    method.on_result(0, Result(4, 0.95))
    exploit = method.on_result(1, Result(4, 0.97))[0]
    assert isinstance(exploit, Exploit)
    assert exploit.reason.startswith("epoch 4, compared at epoch 2: 0.1 is among the worst, and 0.")


def test_a_trial_that_could_take_over_no_other_is_not_told_to_do_well() -> None:
    method = method_of({"algorithm": "pbt", "perturbation_interval": 2, "quantile_fraction": 0.5}, trials=2)
    method.on_result(0, Result(2, 0.1))
    method.on_result(1, Result(2, None))
    assert method.on_result(0, Result(4, 0.2)) == [
        Continue(trial=0, reason="epoch 4: not compared, 1 of the 2 trials that it takes have come as far"),
        KeepCheckpoint(0),
    ]
