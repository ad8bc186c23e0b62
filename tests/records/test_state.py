from __future__ import annotations

import os
import socket
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from xaytune.records.clock import Clock
from xaytune.records.journal import FILE_NAME, Event, Journal
from xaytune.records.recommendation import recommend
from xaytune.records.state import SweepState
from xaytune.records.trial_record import TrialRecord


class SetClock:
    """A clock of which the hands can be set, while time passes."""

    def __init__(self) -> None:
        self.time, self.passed = 1_000_000.0, 0.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.passed

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        self.passed += seconds


class Log(Journal):
    """A journal whose events are at hand."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.events: list[Event] = []
        self._folder = TemporaryDirectory()
        super().__init__(Path(self._folder.name) / FILE_NAME, clock)

    def write(self, event: str, trial: int | None = None, **fields: Any) -> Event:
        self.events.append(super().write(event, trial, **fields))
        return self.events[-1]


def begin(log: Log, num_trials: int | None = 4, **spec: Any) -> None:
    log.write(
        "sweep", state="running", name="s", spec={"metric": "acc", "mode": "max", **spec}, num_trials=num_trials,
        host=socket.gethostname(), pid=os.getpid(),
    )  # fmt: skip


def trial(log: Log, number: int) -> None:
    log.write("trial", number, config={"lr": 0.1}, seed=0)
    log.write("start", number, node="here", pid=1)


def position(value: float | None, epoch: int) -> dict[str, Any]:
    best = None if value is None else {"value": value, "epoch": epoch, "global_step": epoch, "metrics": {}}
    return {"epoch": epoch, "global_step": epoch, "metrics": {} if value is None else {"acc": value}, "best": best}


def end(log: Log, number: int, value: float | None, epoch: int = 1, **fields: Any) -> None:
    log.write("end", number, **{"status": "completed", "reason": None, **position(value, epoch), **fields})


def state_of(events: list[Event]) -> SweepState:
    return SweepState("root", events)


@pytest.mark.parametrize("jump", [7200.0, -7200.0])
def test_a_sweep_has_run_the_seconds_that_passed_whatever_its_clock_was_set_to(jump: float) -> None:
    clock = SetClock()
    log = Log(clock)
    begin(log)
    trial(log, 0)
    clock.sleep(3)
    clock.time += jump
    clock.sleep(2)
    end(log, 0, 0.5)
    state = state_of(log.events)
    assert state.ran_s == 5.0
    assert state.running_s(clock.now() + 1) == pytest.approx(6.0)
    assert state.running_s(clock.now() - 100) == 5.0
    assert state.trials[0].seconds == 5.0


def test_the_seconds_of_a_trial_are_those_of_its_attempts_not_those_while_no_driver_ran() -> None:
    clock = SetClock()
    first = Log(clock)
    begin(first)
    trial(first, 0)
    clock.sleep(6)
    first.write("progress", 0, **position(0.1, 2))
    clock.sleep(30)  # the driver is gone
    second = Log(clock)
    clock.sleep(1)
    begin(second)
    second.write("start", 0, node="here", pid=2, attempt=1)
    clock.sleep(4)
    end(second, 0, 0.5)
    clock.sleep(9)
    second.write("sweep", state="completed", reason=None)
    state = state_of([*first.events, *second.events])
    assert state.trials[0].seconds == pytest.approx(10.0)
    assert state.ran_s == pytest.approx(6 + 14)


def test_an_attempt_that_says_what_it_trained_is_believed() -> None:
    clock = SetClock()
    log = Log(clock)
    begin(log)
    trial(log, 0)
    clock.sleep(10)
    log.write("pause", 0, reason="", seconds=8.0, **position(0.1, 2))
    log.write("start", 0, node="here", pid=2, attempt=1)
    clock.sleep(10)
    end(log, 0, 0.5, seconds=9.5)
    assert state_of(log.events).trials[0].seconds == 17.5


def test_a_trial_that_failed_is_believed_too_where_its_start_was_heard_of_late() -> None:
    log = Log(SetClock())
    begin(log)
    trial(log, 0)
    log.write("failure", 0, kind="error", error="", traceback="", retried=False)
    end(log, 0, None, status="failed", seconds=4.0)
    assert state_of(log.events).trials[0].seconds == 4.0


def test_journals_of_the_first_version_tell_seconds_by_their_stamps() -> None:
    log = Log(clock := SetClock())
    begin(log)
    trial(log, 0)
    clock.sleep(4)
    end(log, 0, 0.5)
    clock.sleep(1)
    log.write("sweep", state="interrupted", reason=None)
    clock.sleep(100)
    begin(log)
    clock.sleep(2)
    log.write("sweep", state="completed", reason=None)
    old = [{name: value for name, value in event.items() if name not in ("s", "journal")} for event in log.events]
    state = state_of(old)
    assert state.trials[0].seconds == 4.0
    assert state.ran_s == 7.0


def test_no_best_trial_is_told_apart_all_failed_from_none_has_reported() -> None:
    log = Log()
    begin(log)
    assert state_of(log.events).why_no_best == "no trial was started"
    trial(log, 0)
    assert state_of(log.events).why_no_best == "no trial has reported a finite 'acc' yet"
    end(log, 0, None, status="failed", reason="ValueError: x")
    assert state_of(log.events).why_no_best == "the only trial failed; trial 0: ValueError: x"
    trial(log, 1)
    told = "no trial has reported a finite 'acc' yet; 1 failed, trial 0: ValueError: x"
    assert state_of(log.events).why_no_best == told
    end(log, 1, None, status="failed", reason="y")
    assert state_of(log.events).why_no_best == "all 2 trials failed; trial 0: ValueError: x"


def test_a_sweep_of_as_many_trials_as_its_budget_lets_is_done_when_they_have_ended() -> None:
    log = Log()
    begin(log, num_trials=None)
    trial(log, 0)
    end(log, 0, 0.5)
    assert not state_of(log.events).done
    log.write("sweep", state="completed", reason="the budget of 60 s is spent")
    state = state_of(log.events)
    assert state.done
    assert state.counts()["pending"] == 0


def trained(ends: list[tuple[float, int]], max_t: int | None, mode: str = "max") -> SweepState:
    """A sweep whose trials had a peak of such a value, and ended at such an epoch with a tenth less."""
    log = Log()
    scheduler = {"algorithm": "asha", "max_t": max_t} if max_t is not None else {"algorithm": "fifo"}
    begin(log, mode=mode, scheduler=scheduler)
    for number, (value, epoch) in enumerate(ends):
        trial(log, number)
        end(log, number, value, epoch, metrics={"acc": value - (0.1 if number == 0 else 0.01)})
    return state_of(log.events)


def test_the_configuration_to_train_again_is_the_best_at_max_t_once_three_trials_reached_it() -> None:
    recommended = recommend(trained([(0.9, 9), (0.85, 9), (0.8, 9), (0.95, 3)], 9))
    assert recommended is not None
    assert recommended.trial.number == 1
    assert recommended.value == pytest.approx(0.84)
    assert recommended.reason == (
        "at epoch 9 its acc is 0.84, the best of the 3 trials that were trained so far; trial 3 reached 0.95 "
        "at another time, which may have been luck"
    )


def test_before_three_trials_reached_max_t_it_is_the_best_of_all() -> None:
    recommended = recommend(trained([(0.9, 9), (0.85, 9), (0.95, 3)], 9))
    assert recommended is not None
    assert (recommended.trial.number, recommended.value) == (2, 0.95)
    assert recommended.reason.endswith("2 reached epoch 9, too few to compare")


def test_a_trial_that_diverged_after_its_best_value_is_not_to_be_trained_again() -> None:
    log = Log()
    begin(log)
    for number, (value, last) in enumerate([(0.6, 0.6), (0.9, None), (0.7, 0.7)]):
        trial(log, number)
        end(log, number, value, 9, metrics={"acc": last})
    sweep = state_of(log.events)
    recommended = recommend(sweep)
    assert sweep.best is not None
    assert recommended is not None
    assert (sweep.best.number, recommended.trial.number, recommended.value) == (1, 2, 0.7)
    assert recommended.reason.endswith("trial 1 reached 0.9, and diverged after that")


def test_without_max_t_or_a_value_it_is_the_best_or_none() -> None:
    recommended = recommend(trained([(0.9, 9), (0.2, 9)], None, mode="min"))
    assert recommended is not None
    assert recommended.trial.number == 1
    assert recommend(trained([], 9)) is None


def test_an_exploit_gives_a_trial_another_configuration_and_drops_what_it_was_worth_after() -> None:
    log = Log()
    begin(log)
    trial(log, 0)
    for epoch in (1, 2, 3):
        log.write("result", 0, value=0.5, **position(0.5, epoch))
    log.write("exploit", 0, source=1, config={"lr": (1, 2)}, path="c/step-00000002.pt", global_step=2)
    record = state_of(log.events).trials[0]
    assert record.config == {"lr": (1, 2)}
    assert [result.epoch for result in record.results] == [1, 2]
    assert record.checkpoints == {2: "root/c/step-00000002.pt"}


def taken_over(*exploits: tuple[int, float], best: tuple[int, float] = (0, 0.0)) -> TrialRecord:
    """A trial that reached 0.5 at each of ten steps, and more at one, and took over others at some steps."""
    log = Log()
    begin(log)
    trial(log, 0)
    for step in range(1, 11):
        value = best[1] if step == best[0] else 0.5
        at = {**position(value, step), "best": None if not best[0] else position(best[1], best[0])["best"]}
        log.write("result", 0, value=value, **at)
        log.write("checkpoint", 0, path=f"c/step-{step:08d}.pt", global_step=step)
    for step, lr in exploits:
        log.write("exploit", 0, source=1, config={"lr": lr}, path=f"c/step-{step:08d}.pt", global_step=step)
    return state_of(log.events).trials[0]


@pytest.mark.parametrize(
    ("exploits", "step", "lr"),
    [
        ([], 5, 0.1),
        ([(6, 0.2)], 5, 0.1),
        ([(5, 0.2)], 5, 0.1),
        ([(10, 0.2), (8, 0.3)], 5, 0.1),
        ([(6, 0.2), (4, 0.3)], 3, 0.1),
    ],
)
def test_the_best_configuration_is_the_one_that_the_best_step_was_trained_with(
    exploits: list[tuple[int, float]], step: int, lr: float
) -> None:
    record = taken_over(*exploits, best=(step, 0.9))
    assert (record.value, record.best_config) == (0.9, {"lr": lr})


def test_a_best_value_after_the_step_that_a_trial_goes_on_from_counts_no_more() -> None:
    record = taken_over((4, 0.2), best=(7, 0.9))
    assert record.best is not None
    assert (record.value, record.best.global_step, record.best_config) == (0.5, 1, {"lr": 0.1})


def test_the_checkpoint_of_another_trial_is_not_that_of_a_best_value_before_it() -> None:
    record = taken_over((7, 0.2), best=(7, 0.9))
    assert record.best_weights_gone
    assert not taken_over(best=(7, 0.9)).best_weights_gone
    assert taken_over(best=(7, 0.9)).checkpoint == "root/c/step-00000007.pt"


@pytest.mark.slow
def test_a_trial_takes_little_memory() -> None:
    log = Log()
    begin(log, num_trials=None)
    state = state_of(log.events)
    tracemalloc.start()
    for number in range(2000):
        log.events.clear()
        trial(log, number)
        log.write("result", number, value=0.5, **position(0.5, 1))
        log.write(
            "verdict", number, epoch=1, global_step=1, value=0.5, decision="stop", reason="x" * 100, cutoff=0.6
        )
        log.write("stop", number, reason="below the cut-off", status="stopped")
        end(log, number, 0.5, status="stopped")
        for event in log.events:
            state.apply(event)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held / 2000 < 1500
