"""What was decided on a trial, and what it had reached, holds, whatever becomes of its processes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.driver.harness import Played
from xaytune.driver.orders import Kill, Release, RequestStop
from xaytune.messages import Heartbeat, Started, StopRequest
from xaytune.records.trial_record import Best

HYPERBAND = {"algorithm": "hyperband", "max_t": 9, "reduction_factor": 3}
PBT = {"algorithm": "pbt", "perturbation_interval": 3, "hyperparam_mutations": ["x"]}
DIVERGED = "diverged: m is not finite at epoch 2"


def stopped_by_its_own_report(sweep: Played) -> tuple[StopRequest, int]:
    """Trains trials each of which is worse than those before it, until one is the last of its bracket."""
    while True:
        trial = sweep.start().trial
        for epoch in (1, 3, 9):
            orders = sweep.report(trial, epoch, 1 - trial / 10, checkpoints={epoch * 10: "c"})
            for order in orders:
                if isinstance(order, RequestStop) and order.trial == trial:
                    return order.request, trial
            if Release(trial) in orders:
                break


def test_a_trial_that_hyperband_stopped_ends_at_once_where_its_process_was_lost_first(tmp_path: Path) -> None:
    sweep = Played(tmp_path, scheduler=HYPERBAND, num_samples=9)
    stopped, trial = stopped_by_its_own_report(sweep)
    assert sweep.driver.lost(trial, "lost", "") == [Release(trial)]
    restarted = sweep.driver.next()
    while restarted is not None and restarted.trial != trial:
        restarted = sweep.driver.next()
    assert restarted is not None
    assert restarted.stop == stopped


def test_a_trial_that_was_stopped_while_it_was_paused_is_killed_where_it_does_not_end(tmp_path: Path) -> None:
    sweep = Played(tmp_path, scheduler=HYPERBAND, num_samples=9, stop_grace_s=10)
    stopped_by_its_own_report(sweep)
    assignment = sweep.driver.next()
    while assignment is not None and assignment.stop is None:
        assignment = sweep.driver.next()
    assert assignment is not None
    sweep.driver.started(assignment.trial)
    sweep.driver.receive(Started(trial=assignment.trial, attempt=assignment.attempt, node="here", node_id="n"))
    sweep.clock.set_forward(11.1)
    assert Kill(assignment.trial) in sweep.driver.tick()


def test_a_trial_that_takes_over_another_leaves_no_checkpoint_of_its_own_behind(tmp_path: Path) -> None:
    sweep = Played(tmp_path, scheduler=PBT, num_samples=4)
    for _ in range(4):
        sweep.start()
    for trial in range(4):
        file = f"checkpoints/{trial:05d}/step-00000030.pt"
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_bytes(b"earlier")
        sweep.report(trial, 2, trial / 10, due=False, checkpoints={30: file})
        newer = file.replace("30.pt", "40.pt")
        (tmp_path / newer).write_bytes(b"newer")
        sweep.report(trial, 4, (4 - trial) / 10, checkpoints={40: newer})
    (taken_over,) = [trial for trial in range(4) if sweep[trial].taken_over_at is not None]
    assert [path.name for path in (tmp_path / f"checkpoints/{taken_over:05d}").iterdir()] == ["step-00000040.pt"]


@pytest.mark.parametrize("scheduler", [HYPERBAND, PBT, {"algorithm": "asha", "max_t": 9, "grace_period": 3}])
def test_a_trial_that_diverged_stays_stopped_where_its_process_was_lost_first(
    tmp_path: Path, scheduler: dict[str, Any]
) -> None:
    sweep = Played(tmp_path, scheduler=scheduler, num_samples=9)
    sweep.start()
    assert sweep.report(0, 2, math.nan, due=False) == [RequestStop(0, StopRequest(DIVERGED))]
    sweep.driver.lost(0, "lost", "")
    again = sweep.driver.next()
    assert again is not None
    assert again.trial == 0
    sweep.driver.started(0)
    if again.stop is None:  # it hears of it where it is judged next, though it did not diverge this time
        assert sweep.report(0, 3, 0.5, attempt=1) == [RequestStop(0, StopRequest(DIVERGED))]
    sweep.end(0, 3, attempt=1, status="stopped", reason=DIVERGED, metrics={"m": 0.5})
    assert (sweep[0].status, sweep[0].stop_reason) == ("stopped", DIVERGED)


@pytest.mark.parametrize("heard", [True, False])
@pytest.mark.parametrize("status", ["stopped", "paused"])
def test_a_trial_that_is_killed_before_the_first_step_of_another_attempt_keeps_what_it_had_reached(
    tmp_path: Path, status: str, heard: bool
) -> None:
    sweep = Played(tmp_path, stop_grace_s=10)
    best = Best(0.8, 1, 10, {"m": 0.8})
    sweep.start()
    sweep.report(0, 3, 0.7, best=best)
    sweep.driver.lost(0, "lost", "")
    sweep.start()
    if heard:  # it loads its data
        sweep.driver.receive(Heartbeat(trial=0, attempt=1))
    if status == "paused":
        sweep.driver.interrupt()
    else:
        sweep.driver._ask_to_stop(0, StopRequest("for another"))
    sweep.clock.set_forward(12)
    assert Kill(0) in sweep.driver.tick()
    sweep.driver.lost(0, "lost", "")
    assert (sweep[0].status, sweep[0].epoch, sweep[0].global_step) == (status, 3, 30)
    assert (sweep[0].metrics, sweep[0].best, sweep.driver.state.epochs) == ({"m": 0.7}, best, 3)
    event = list(sweep.recorder.events())[-1]
    assert event["best"]["value"] == 0.8, "a resume decides by it"


def test_a_trial_that_is_to_stop_before_it_has_begun_hears_of_it_then_and_has_all_its_time(tmp_path: Path) -> None:
    sweep = Played(tmp_path, stop_grace_s=10)
    assignment = sweep.driver.next()
    assert assignment is not None
    request = StopRequest("for another")
    assert sweep.driver._ask_to_stop(0, request) == []
    sweep.clock.set_forward(100)
    assert sweep.driver.tick() == []
    assert sweep.driver.started(0) == [RequestStop(0, request)]
    sweep.clock.set_forward(200)  # its process imports
    assert sweep.driver.tick() == []
    sweep.driver.receive(Started(trial=0, node="here", node_id="n"))
    sweep.clock.set_forward(210.9)
    assert sweep.driver.tick() == []
    sweep.clock.set_forward(211.1)
    assert sweep.driver.tick() == [Kill(0)]


def test_a_trial_that_an_old_budget_stopped_trains_on_with_a_larger_one(tmp_path: Path) -> None:
    sweep = Played(tmp_path, budget={"time": 10})
    sweep.start()
    sweep.report(0, 1, 0.5, checkpoints={10: "c"})
    sweep.clock.set_forward(11)
    assert [type(order) for order in sweep.driver.tick()] == [RequestStop]
    sweep.close()  # before the trial has ended
    again = Played(tmp_path, budget={"time": 1000})
    assignment = again.start()
    assert (assignment.trial, assignment.stop) == (0, None)
    assert again.report(0, 3, 0.6, attempt=1) == []
