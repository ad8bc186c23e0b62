"""Slots: where a process trains several trials, a trial of Tune is a slot for them and not one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from xaytune.driver.driver import Driver
from xaytune.driver.orders import Kill, Order, Release
from xaytune.messages import Assignment, FailureKind
from xaytune.ray_tune.bridge import Bridge, actor_of, without_colours
from xaytune.ray_tune.slot_actor import Begin


class Slots:
    """The slots of a sweep, and the trials in them.

    A trial that lost its process while others were trained in it is given a slot of its own: if it was its fault,
    it is so again, and takes nobody with it.

    Args:
        width: Trials of a slot, until it says how many it wants.
        capacity: Returns how many slots there may be.
        new: Makes a trial of Tune that is a slot.
    """

    def __init__(self, width: int, capacity: Callable[[], int], new: Callable[[], TuneTrial]) -> None:
        self._width, self._capacity, self._new = width, capacity, new
        self._slots: dict[TuneTrial, dict[int, Assignment]] = {}
        self._alone: set[TuneTrial] = set()
        self._wanted: dict[TuneTrial, int] = {}
        self._waiting: dict[int, Assignment] = {}  # for a slot of their own

    @property
    def has_room(self) -> bool:
        """Whether one more trial would find a slot.

        Where a slot full of trials waits for slots of their own, further ones would only wait as well.
        """
        if len(self._waiting) >= self._width:
            return False
        return self._fewest() is not None or (not self._waiting and self._may_have_empty())

    def place(self, assignment: Assignment) -> TuneTrial:
        """Gives a trial the slot with the fewest trials, a new one if there may be one more, and returns it."""
        slot = (self._empty() if not self._waiting else None) or self._fewest() or self._another()
        self._add(slot, assignment)
        return slot

    def want(self, slot: TuneTrial, trials: int) -> None:
        """Notes how many trials a slot wants."""
        self._wanted[slot] = trials

    def wait(self, assignment: Assignment) -> None:
        """Lets a trial wait for a slot of its own."""
        self._waiting[assignment.trial] = assignment

    def next_alone(self) -> tuple[TuneTrial, Assignment] | None:
        """Returns a trial that waited for a slot of its own, and the slot."""
        if not self._waiting or (slot := self._empty()) is None:
            return None
        assignment = self._waiting.pop(next(iter(self._waiting)))
        self._add(slot, assignment)
        self._alone.add(slot)
        return slot, assignment

    def is_alone(self, slot: TuneTrial) -> bool:
        """Whether the trial of a slot is to have it, and its process, for itself."""
        return slot in self._alone

    def of(self, trial: int) -> TuneTrial | None:
        """Returns the slot of a trial; None if it has none."""
        return next((slot for slot, trials in self._slots.items() if trial in trials), None)

    def trials(self, slot: TuneTrial) -> list[Assignment]:
        """Returns the trials of a slot."""
        return list(self._slots.get(slot, {}).values())

    def remove(self, trial: int) -> None:
        """Notes that a trial has no slot any more, and wants none."""
        self._waiting.pop(trial, None)
        for trials in self._slots.values():
            trials.pop(trial, None)

    def close(self, slot: TuneTrial) -> list[Assignment]:
        """Takes out a slot that is lost, and returns its trials."""
        self._alone.discard(slot)
        self._wanted.pop(slot, None)
        return list(self._slots.pop(slot, {}).values())

    def _add(self, slot: TuneTrial, assignment: Assignment) -> None:
        self._alone.discard(slot)
        self._slots[slot][assignment.trial] = assignment

    def _fewest(self) -> TuneTrial | None:
        """Returns the slot with the fewest trials, but some, that has room for one more."""
        shared = (slot for slot, trials in self._slots.items() if slot not in self._alone and trials)
        fewest = min(shared, key=lambda slot: len(self._slots[slot]), default=None)
        if fewest is None or len(self._slots[fewest]) >= self._wanted.get(fewest, self._width):
            return None
        return fewest

    def _may_have_empty(self) -> bool:
        return not all(self._slots.values()) or len(self._slots) < self._capacity()

    def _empty(self) -> TuneTrial | None:
        """Returns a slot without trials, a new one if there may be one more."""
        empty = next((slot for slot, trials in self._slots.items() if not trials), None)
        return self._another() if empty is None and len(self._slots) < self._capacity() else empty

    def _another(self) -> TuneTrial:
        """Returns a new slot, which waits where there is no capacity for it any more."""
        slot = self._new()
        self._slots[slot] = {}
        return slot


class SlotBridge(Bridge):
    """The bridge where a trial of Tune is a slot.

    Args:
        driver: Decides.
        slots: The slots.
    """

    def __init__(self, driver: Driver, slots: Slots) -> None:
        super().__init__(driver, {})
        self._slots = slots

    def assign(self, slot: TuneTrial, assignment: Assignment) -> None:
        """Gives a slot a trial, at once if it runs."""
        if slot.status == TuneTrial.RUNNING:
            self._begin(slot, assignment)

    def started(self, trial: TuneTrial) -> None:
        """A slot has got its actor."""
        for assignment in self._slots.trials(trial):
            self._begin(trial, assignment)

    def _begin(self, slot: TuneTrial, assignment: Assignment) -> None:
        self._orders[slot].append(Begin(assignment, alone=self._slots.is_alone(slot)))
        self._perform(self._driver.started(assignment.trial))

    def lost(self, trial: TuneTrial, error: Exception) -> bool:
        """The actor of a slot is gone, or raised: another slot takes its trials that are to be restarted."""
        self._orders.pop(trial, None)
        assignments = self._slots.close(trial)
        numbers = [assignment.trial for assignment in assignments if self._driver.runs(assignment.trial)]
        kinds = (self._kind(number, error) for number in numbers)
        # Of which node that was is known from those whose recipe has begun.
        kind: FailureKind = next((kind for kind in kinds if kind != "lost"), "lost")
        if kind == "lost" and len(assignments) > 1:
            kind = "lost_with_others"
        for number in numbers:
            orders = self._driver.lost(number, kind, without_colours(error))
            self._perform(order for order in orders if order != Release(number))
        return False

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Some trials of a slot have said something."""
        if result["wanted"] is not None:
            self._slots.want(trial, result["wanted"])
        for message in result["messages"]:
            if not self._driver.runs(message.trial):
                continue
            orders = self._driver.receive(message)
            self._perform(orders)
            if not self._driver.runs(message.trial):
                self._slots.remove(message.trial)
        if result["messages"]:
            running = (one.trial for one in self._slots.trials(trial) if self._driver.runs(one.trial))
            self._driver.note_training(running)
        return TrialScheduler.CONTINUE

    def _perform(self, orders: Iterable[Order]) -> None:
        for order in orders:
            slot = self._slots.of(order.trial)
            if isinstance(order, Release):
                self._slots.remove(order.trial)
            if slot is None or slot.temporary_state.ray_actor is None:
                continue  # only a trial that has not begun has none
            if isinstance(order, Kill):  # the worker of a slot is always ended: its trials share the process
                ray.kill(actor_of(slot))
            else:
                self._orders[slot].append(order)
