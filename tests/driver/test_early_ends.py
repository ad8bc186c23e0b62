"""What ends a sweep before its time: a budget that is spent, and trials that fail alike. No Ray, no process."""

from __future__ import annotations

from tests.driver.conftest import Play
from xaytune.driver.orders import Release, RequestStop
from xaytune.messages import Failure, StopRequest
from xaytune.records.trial_record import Best


def test_a_spent_budget_of_time_stops_what_runs_and_starts_no_more(play: Play) -> None:
    sweep = play(budget={"time": 100})
    sweep.start()
    waiting = sweep.driver.next()
    assert waiting is not None
    sweep.clock.set_forward(100)
    reason = "the budget of 100 s is spent"
    assert sweep.driver.tick() == [RequestStop(0, StopRequest(reason)), Release(waiting.trial)]
    assert sweep.driver.next() is None
    sweep.end(0, 1, status="stopped", reason=reason)
    assert sweep.driver.finished
    assert sweep.driver.outcome() == ("completed", reason)


def test_a_budget_of_epochs_counts_those_of_all_trials(play: Play) -> None:
    sweep = play(budget={"epochs": 3})
    sweep.report(sweep.start().trial, 1, 0.9)
    sweep.report(sweep.start().trial, 1, 0.95)
    assert sweep.driver.tick() == []
    sweep.report(0, 2, 0.9)
    assert len(sweep.driver.tick()) == 2


def test_a_trial_that_comes_to_max_t_as_the_budget_is_spent_is_completed(play: Play) -> None:
    sweep = play(budget={"epochs": 9})
    sweep.start()
    sweep.heartbeat(0, 85, epoch=8)
    sweep.start()
    sweep.heartbeat(1, 10, epoch=1)
    assert len(sweep.driver.tick()) == 2
    sweep.report(0, 9, 0.9)
    sweep.end(0, 9, status="stopped", reason="the budget of 9 epochs is spent")
    assert (sweep[0].status, sweep[0].reason) == ("completed", "reached max_t at epoch 9")


def test_two_trials_that_raise_before_any_step_end_the_sweep_and_a_resume_restarts_them(play: Play) -> None:
    sweep = play()
    failure = Failure("error", "NameError: x", "Traceback ...")
    for _ in range(2):
        trial = sweep.start().trial
        sweep.end(trial, 0, status="failed", reason=failure.error, failure=failure, metrics={})
    sweep.driver.tick()
    state, reason = sweep.driver.outcome()
    assert state == "failed"
    assert "NameError: x" in str(reason)
    sweep.recorder.finished(state, reason)
    resumed = play()
    assert [resumed.start().trial for _ in range(2)] == [0, 1]


def test_fused_trials_that_raise_end_the_sweep_once_all_that_began_beside_them_have_ended(play: Play) -> None:
    sweep = play(fused=5, num_samples=9)
    failures = [Failure(kind, "E") for kind in ("skipped", "error", "error", "infeasible", "error")]
    for _ in failures:
        sweep.start()
    for trial, failure in enumerate(failures):
        assert sweep.driver.tick() == []
        assert sweep.driver.ending is None
        sweep.end(trial, 0, status="failed", failure=failure, metrics={})
    sweep.driver.tick()
    assert sweep.driver.ending is not None


def test_trials_that_raise_do_not_end_a_sweep_while_one_that_ran_beside_them_may_train_yet(play: Play) -> None:
    sweep = play(num_samples=9)
    slow = sweep.start().trial
    for _ in range(3):
        trial = sweep.start().trial
        sweep.end(trial, 0, status="failed", failure=Failure("error", "E"), metrics={})
        assert sweep.driver.tick() == []
    sweep.heartbeat(slow, 3)
    sweep.end(slow, 1, best=Best(0.5, 1, 10, {"m": 0.5}))
    sweep.driver.tick()
    assert sweep.driver.ending is None


def test_a_sweep_ends_where_the_trial_that_ran_beside_those_that_raised_raises_too(play: Play) -> None:
    sweep = play(num_samples=9)
    slow = sweep.start().trial
    for _ in range(2):
        sweep.end(sweep.start().trial, 0, status="failed", failure=Failure("error", "E"), metrics={})
    sweep.start()  # later than those: the sweep does not wait for it
    sweep.end(slow, 0, status="failed", failure=Failure("error", "E"), metrics={})
    sweep.driver.tick()
    assert sweep.driver.ending is not None


def test_a_recipe_that_raises_after_others_trained_fails_alone(play: Play) -> None:
    sweep = play()
    sweep.start()
    sweep.heartbeat(0, 3)
    for _ in range(3):
        trial = sweep.start().trial
        sweep.end(trial, 0, status="failed", failure=Failure("error", "E"), metrics={})
    sweep.driver.tick()
    assert sweep.driver.ending is None


def test_a_trial_that_never_reports_the_metric_fails_alone(play: Play) -> None:
    sweep = play()
    sweep.report(sweep.start().trial, 1, 0.5, best=Best(0.5, 1, 10, {"m": 0.5}))
    for _ in range(2):
        sweep.end(sweep.start().trial, 1, metrics={"other": 1.0})
    sweep.driver.tick()
    assert (sweep[1].status, sweep[1].failure) == ("failed", "no_metric")
    assert "never reported 'm'" in str(sweep[1].reason)
    assert sweep.driver.ending is None


def test_a_sweep_none_of_whose_trials_reports_the_metric_ends_early(play: Play) -> None:
    sweep = play()
    for _ in range(2):
        assert sweep.driver.tick() == []
        sweep.end(sweep.start().trial, 1, metrics={"em": 1.0})
    sweep.driver.tick()
    assert "never reported 'm'; did you mean 'em'?" in str(sweep.driver.fatal)
