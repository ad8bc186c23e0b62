"""What the driver does about each thing that can happen to a trial. No Ray, no process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.driver.conftest import Play
from tests.driver.harness import ASHA, Played
from xaytune.driver.orders import Kill, Release, RequestStop
from xaytune.errors import Problem, SpecError
from xaytune.messages import Failure, Length, Refused, Start, StopRequest
from xaytune.records.journal import FILE_NAME, read_events
from xaytune.records.trial_record import Best


def test_a_weak_trial_is_asked_to_stop_and_the_journal_says_why(play: Play) -> None:
    sweep = play()
    for value in (0.8, 0.9, 0.7):
        trial = sweep.start().trial
        orders = sweep.report(trial, 1, value)
    (order,) = orders
    assert isinstance(order, RequestStop)
    assert order.trial == 2
    assert "0.7" in order.request.reason
    assert sweep[2].stop_reason == order.request.reason
    sweep.end(2, 1, status="stopped", reason=order.request.reason)
    assert sweep[2].status == "stopped"


def test_a_trial_that_lost_its_process_is_restarted_so_many_times_and_then_fails(play: Play) -> None:
    sweep = play(failures={"retries": 2})
    for attempt in range(3):
        assert sweep.start().attempt == attempt
        sweep.heartbeat(0, 5, attempt=attempt)
        orders = sweep.driver.lost(0, "lost", "signal 9")
        assert orders == ([Release(0)] if attempt < 2 else [])
    assert (sweep[0].status, sweep[0].failure) == ("failed", "lost")
    assert "3 times" in str(sweep[0].reason)


def test_a_lost_node_does_not_count_as_a_retry(play: Play) -> None:
    sweep = play(failures={"retries": 0})
    for _ in range(5):
        sweep.start()
        assert sweep.driver.lost(0, "node_lost", "") == [Release(0)]
    sweep.start()
    assert sweep.driver.lost(0, "lost", "") == []
    assert sweep[0].status == "failed"


def test_a_restarted_trial_hears_of_its_decision_again(play: Play) -> None:
    sweep = play()
    for value in (0.8, 0.9, 0.7):
        orders = sweep.report(sweep.start().trial, 1, value)
    before = orders[0]
    sweep.driver.lost(2, "lost", "")
    assert sweep.start().last_judged == 1
    assert sweep.report(2, 1, 0.7, attempt=1) == [before]
    assert len(sweep[2].decisions) == 1


def test_a_trial_that_does_not_stop_within_the_grace_period_is_killed(play: Play) -> None:
    sweep = play(stop_grace_s=10)
    for value in (0.8, 0.9, 0.7):
        sweep.report(sweep.start().trial, 1, value)
    sweep.clock.set_forward(10.9)
    assert sweep.driver.tick() == []
    sweep.clock.set_forward(11.1)
    assert sweep.driver.tick() == [Kill(2)]
    assert sweep.driver.tick() == []
    sweep.clock.set_forward(33)
    assert sweep.driver.tick() == [Kill(2, with_worker=True)], "its worker has not killed it"
    assert sweep.driver.tick() == []
    sweep.driver.lost(2, "lost", "signal 9")
    assert sweep[2].status == "stopped"
    assert "did not end within 10 s" in str(sweep[2].reason)


def test_a_trial_that_trains_no_step_is_killed_as_stalled(play: Play) -> None:
    sweep = play(stall_timeout_s=30)
    sweep.start()
    sweep.heartbeat(0, 1)
    sweep.clock.set_forward(29)
    sweep.heartbeat(0, 2)
    sweep.clock.set_forward(58)
    sweep.heartbeat(0, 2)
    assert sweep.driver.tick() == []
    sweep.clock.set_forward(60)
    assert sweep.driver.tick() == [Kill(0)]
    sweep.driver.lost(0, "lost", "stacks")
    assert (sweep[0].status, sweep[0].failure) == ("failed", "stalled")


def test_trials_that_lost_a_process_together_are_restarted_and_judged_by_what_each_does_alone(play: Play) -> None:
    sweep = play(stall_timeout_s=30, failures={"retries": 0})
    for _ in range(2):
        sweep.start()
    sweep.clock.set_forward(31)
    assert sweep.driver.tick() == [Kill(0), Kill(1)], "one hangs, and with it the other"
    for trial in range(2):
        assert sweep.driver.lost(trial, "lost_with_others", "") == [Release(trial)]
        assert sweep.start().attempt == 1
    sweep.end(1, 9)
    sweep.clock.set_forward(70)
    assert sweep.driver.tick() == [Kill(0)]
    sweep.driver.lost(0, "lost", "stacks")
    assert [(sweep[n].status, sweep[n].failure) for n in (0, 1)] == [
        ("failed", "stalled"),
        ("completed", None),
    ]


def test_that_trials_end_before_they_could_be_judged_is_said_once(play: Play) -> None:
    sweep = play(scheduler={**ASHA, "grace_period": 3})
    for _ in range(2):
        sweep.end(sweep.start().trial, 2)
    sweep.end(sweep.start().trial, 2, reason="a callback stopped it at step 20")
    events = read_events(sweep.recorder.sweep_folder.local / FILE_NAME)
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert notes == ["trials end before the scheduler's first decision, at epoch 3: it stops none of these"]


def test_that_a_trial_trained_past_its_rungs_and_was_never_judged_is_said_once(play: Play) -> None:
    sweep = play()
    for _ in range(2):  # its metric is there, but was not measured where epochs end
        sweep.end(sweep.start().trial, 9, due=True, best=Best(0.5, 9, 90, {"m": 0.5}))
    judged = sweep.start().trial
    sweep.report(judged, 1, 0.9)
    sweep.end(judged, 9, due=True, best=Best(0.9, 1, 10, {"m": 0.9}))
    events = read_events(sweep.recorder.sweep_folder.local / FILE_NAME)
    (note,) = (event["text"] for event in events if event["event"] == "note")
    assert note.startswith("a trial was never judged before its end, at epoch 9: ")


def test_an_interrupt_pauses_the_trials_and_the_sweep_resumes_with_them(play: Play) -> None:
    sweep = play(num_samples=2)
    sweep.report(sweep.start().trial, 1, 0.9)
    (order,) = sweep.driver.interrupt()
    assert isinstance(order, RequestStop)
    assert order.request.status == "paused"
    sweep.end(0, 1, status="paused", checkpoints={10: "checkpoints/00000/step-00000010.pt"})
    assert sweep.driver.finished
    assert sweep.driver.outcome()[0] == "interrupted"
    sweep.recorder.finished(*sweep.driver.outcome())
    resumed = play(num_samples=2)
    again = resumed.start()
    assert (again.trial, again.attempt, again.checkpoints, again.last_judged) == (0, 1, (10,), 1)
    assert resumed.start().trial == 1


def test_a_sweep_all_of_whose_trials_end_as_it_is_interrupted_is_completed(play: Play) -> None:
    sweep = play(num_samples=1)
    sweep.start()
    sweep.report(0, 1, 0.5)
    sweep.driver.interrupt()
    best = Best(value=0.5, epoch=1, global_step=10, metrics={"m": 0.5})
    sweep.end(0, 9, best=best)
    assert sweep.driver.outcome() == ("completed", None)


def test_a_trial_that_is_lost_while_the_sweep_is_interrupted_is_paused(play: Play) -> None:
    sweep = play()
    sweep.start()
    sweep.driver.interrupt()
    assert sweep.driver.lost(0, "lost", "") == []
    assert sweep[0].status == "paused"
    assert sweep.driver.finished


def test_a_full_disk_of_a_trial_ends_the_sweep_and_the_trial_resumes_later(play: Play) -> None:
    sweep = play()
    sweep.start()
    sweep.heartbeat(0, 3)
    sweep.end(0, 1, status="failed", failure=Failure("storage", "No space left on device"))
    sweep.driver.tick()
    assert sweep[0].status == "paused"
    assert "No space left" in str(sweep.driver.fatal)


def test_a_recipe_that_is_not_there_refuses_the_sweep(play: Play) -> None:
    sweep = play()
    assignment = sweep.driver.next()
    assert assignment is not None
    sweep.driver.started(0)
    sweep.driver.receive(Refused(trial=0, problems=(Problem(("recipe",), "is not there"),)))
    sweep.driver.tick()
    assert sweep.driver.refused
    assert "is not there" in str(sweep.driver.fatal)


def test_out_of_memory_is_infeasible_and_not_restarted(play: Play) -> None:
    sweep = play()
    sweep.start()
    sweep.heartbeat(0, 1)
    sweep.end(0, 0, status="failed", failure=Failure("infeasible", "out of memory"))
    assert (sweep[0].status, sweep[0].failure) == ("failed", "infeasible")
    assert sweep.start().trial == 1


def test_an_attempt_that_fails_at_once_does_not_lose_what_the_trial_had_reached(play: Play) -> None:
    sweep = play()
    sweep.start()
    sweep.report(0, 1, 0.9)
    sweep.driver.lost(0, "lost", "")
    sweep.start()
    sweep.end(0, 0, attempt=1, status="failed", failure=Failure("error", "E"), metrics={})
    assert (sweep[0].epoch, sweep[0].metrics) == (1, {"m": 0.9})


def test_a_metric_that_is_not_finite_stops_the_trial_as_diverged(play: Play) -> None:
    sweep = play()
    sweep.start()
    (order,) = sweep.report(0, 1, float("nan"), due=False)
    assert isinstance(order, RequestStop)
    assert "diverged" in order.request.reason


def test_how_long_trials_train_is_what_the_first_one_says_also_after_a_resume(play: Play) -> None:
    sweep = play(scheduler="curves")
    sweep.start()
    sweep.driver.receive(Length(trial=0, length=4))
    sweep = play(scheduler="curves")
    assert sweep.start().trial == 0
    sweep.driver.receive(Length(trial=0, length=4))
    (order,) = sweep.report(0, 4, 0.5)
    assert order == RequestStop(0, StopRequest("trained in full, to epoch 4", "completed"))


@pytest.mark.parametrize(
    ("length", "said"), [(8, "is to train 8 epochs (known before: 4 epochs)"), (0, "does not say how many")]
)
def test_a_trial_that_is_to_train_for_longer_or_does_not_say_ends_the_sweep_with_what_to_write(
    play: Play, length: int, said: str
) -> None:
    sweep = play(scheduler="curves")
    sweep.start()
    sweep.driver.receive(Length(trial=0, length=4))
    sweep.start()
    sweep.driver.receive(Length(trial=1, length=length))
    assert said in str(sweep.driver.fatal)
    assert f"begin another sweep with the scheduler's max_t: {max(4, length)} " in str(sweep.driver.fatal)
    assert [order.trial for order in sweep.driver.tick()] == [0, 1]


def test_where_trials_spend_long_before_their_first_step_it_is_said_once_how_to_do_that_once(play: Play) -> None:
    sweep = play(num_samples=5)
    starts = [Start(3.0, "load (data.py:7)"), Start(0.9), Start(1.5), Start(2.0, "load (data.py:7)"), Start(3.0)]
    for start in starts:
        sweep.end(sweep.start().trial, 1, seconds=12.0, start=start)
    (note,) = (event["text"] for event in sweep.recorder.events() if event["event"] == "note")
    assert note.startswith("trials spend 1.5 s before they train: ")
    assert "`setup`" in note


def test_a_recipe_that_returns_what_it_was_worth_is_not_told_to_train_in_the_setup(play: Play) -> None:
    sweep = play(num_samples=3)
    for _ in range(3):
        sweep.end(sweep.start().trial, 1, global_step=1, seconds=12.0, start=Start(12.0, "fit_model (train.py:7)"))
    assert not [event for event in sweep.recorder.events() if event["event"] == "note"]


def test_a_trial_without_a_checkpoint_is_not_paused_but_refused_with_the_mend(play: Play) -> None:
    sweep = play(scheduler={"algorithm": "hyperband", "max_t": 9, "reduction_factor": 3}, num_samples=8)
    trial = sweep.start().trial
    older = {5: "checkpoints/00000/step-00000005.pt"}
    with pytest.raises(SpecError, match=r"a:b wrote no checkpoint .*trial\.keep\(model=model"):
        sweep.report(trial, 9, 0.5, checkpoints=older)
    assert "paused" not in {trial.status for trial in sweep.driver.state.trials.values()}


def test_a_lost_attempt_is_recorded_with_how_far_it_was(play: Play) -> None:
    sweep = play()
    sweep.start()
    sweep.heartbeat(0, 30, epoch=3)  # within the seconds in which no progress is recorded
    sweep.heartbeat(0, 35, epoch=3)
    sweep.driver.lost(0, "lost", "signal 9")
    (failure,) = (event for event in sweep.recorder.events() if event["event"] == "failure")
    assert (failure["epoch"], failure["global_step"]) == (3, 35)


def test_a_skipped_trial_is_neither_best_nor_a_failure_and_infeasible_to_the_searcher(play: Play) -> None:
    sweep = play(search={"algorithm": "tpe", "n_startup_trials": 1})
    best = Best(0.9, 1, 10, {"m": 0.9})
    sweep.report(sweep.start().trial, 1, 0.9, best=best)
    reason = "skipped: too wide for its depth"
    sweep.end(0, 1, status="stopped", reason=reason, failure=Failure("skipped", reason), best=best)
    assert (sweep[0].status, sweep[0].reason, sweep[0].value) == ("stopped", reason, None)
    sweep.report(sweep.start().trial, 1, 0.1, best=Best(0.1, 1, 10, {"m": 0.1}))
    sweep.end(1, 1, best=Best(0.1, 1, 10, {"m": 0.1}))
    found = sweep.driver.state.best
    assert found is not None
    assert found.number == 1
    again = play(search={"algorithm": "tpe", "n_startup_trials": 1})
    assert (again[0].value, again[0].failure) == (None, "skipped")


def test_notes_of_recipes_are_recorded_once_a_sweep(play: Play) -> None:
    sweep = play()
    for trial in (sweep.start().trial, sweep.start().trial):
        sweep.heartbeat(trial, 5, notes=("the loop trains on",))
    assert [event["text"] for event in sweep.recorder.events() if event["event"] == "note"] == [
        "the loop trains on"
    ]


def test_the_best_value_of_a_trial_is_known_though_its_history_is_lost(tmp_path: Path) -> None:
    sweep = Played(tmp_path)
    trial = sweep.start().trial
    best = Best(0.9, 1, 10, {"m": 0.9})
    sweep.report(trial, 1, 0.9, best=best, checkpoints={10: "checkpoints/00000/step-00000010.pt"})
    sweep.close()
    resumed = Played(tmp_path)  # no history was ever written here: it is as if its file were deleted
    resumed.start()
    resumed.end(trial, 2, best=Best(0.5, 2, 20, {"m": 0.5}), resumed_at=10)
    assert resumed[trial].best == best
    resumed.close()
