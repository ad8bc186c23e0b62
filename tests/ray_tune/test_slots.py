"""Slots: which trials are trained together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.driver.harness import Played
from xaytune.driver.orders import Kill
from xaytune.messages import Assignment, Started
from xaytune.ray_tune.slots import SlotBridge, Slots


def slots(width: int, capacity: int) -> tuple[Slots, list[Any]]:
    made: list[Any] = []

    def new() -> Any:
        made.append(object())
        return made[-1]

    return Slots(width, lambda: capacity, new), made


def trial(number: int) -> Assignment:
    return Assignment(trial=number, seed=0, config={})


def test_a_slot_is_made_for_a_trial_and_not_ahead_of_it() -> None:
    some, made = slots(width=2, capacity=2)
    assert some.has_room
    assert made == []
    placed = [some.place(trial(number)) for number in range(4)]
    assert [made.index(slot) for slot in placed] == [0, 1, 0, 1]
    assert not some.has_room
    some.remove(1)
    assert some.has_room
    assert some.place(trial(4)) is made[1]


def test_a_trial_that_waits_for_a_slot_of_its_own_gets_it_before_others_get_a_new_one() -> None:
    some, made = slots(width=2, capacity=2)
    shared = some.place(trial(0))
    some.wait(trial(1))
    assert some.has_room
    assert some.place(trial(2)) is shared
    assert not some.has_room
    alone, assignment = some.next_alone() or (None, None)
    assert alone is made[1]
    assert assignment == trial(1)
    assert some.is_alone(made[1])
    assert not some.has_room


def test_a_trial_that_was_chosen_while_a_node_left_waits_in_a_slot_of_its_own() -> None:
    capacity = [2]
    some = Slots(1, lambda: capacity[0], object)  # type: ignore[arg-type]
    first = some.place(trial(0))
    assert some.has_room
    capacity[0] = 1
    assert some.place(trial(1)) is not first


def test_trials_that_have_yet_to_begin_are_not_killed_for_hanging_while_others_of_their_process_begin(
    tmp_path: Path,
) -> None:
    sweep = Played(tmp_path / "sweep", num_samples=6, fused=6, stall_timeout_s=60)
    some, made = slots(width=6, capacity=1)
    bridge = SlotBridge(sweep.driver, some)
    for number in range(6):
        assignment = sweep.driver.next()
        assert assignment is not None
        some.place(assignment)
        sweep.driver.started(number)
    for number in range(5):
        sweep.clock.set_forward(50.0 * number)
        begins = Started(trial=number, node_id="n")
        bridge.on_trial_result(None, made[0], {"wanted": None, "messages": [begins]})
        assert sweep.driver.tick() == []
    sweep.clock.set_forward(261)
    assert sweep.driver.tick() == [Kill(number) for number in range(6)], "the fifth hangs, and with it all others"
    sweep.close()
