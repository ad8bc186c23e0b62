"""The bridge between Ray Tune and the driver: results become messages, orders go to actors."""

from __future__ import annotations

import re
import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.schedulers import TrialScheduler

from xaytune.driver.driver import Driver
from xaytune.driver.orders import Kill, Order, Release, RequestStop
from xaytune.messages import FailureKind, Message

_COLOURS = re.compile(r"\x1b\[\d*m")


def number_of(trial: TuneTrial) -> int:
    """Returns the number of a trial of Tune."""
    number: int = trial.config["assignment"].trial
    return number


def without_colours(error: Exception) -> str:
    """Returns what an error of Ray's says, without the colours that it gives it."""
    return _COLOURS.sub("", str(error))


class Bridge(TrialScheduler):
    """Stands where Tune expects a scheduler.

    Tune is always told to continue, unless the trial is released. What an actor is to do goes to it with the next
    call of ``train()``, and is done first: a trial that is to stop trains no further step. It ends with a result
    that is ``done``.

    Args:
        driver: Decides.
        trials: Tune's trials, by number.
    """

    controller: Any

    def __init__(self, driver: Driver, trials: Mapping[int, TuneTrial]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._driver, self._trials = driver, trials
        self._orders: defaultdict[TuneTrial, list[Any]] = defaultdict(list)  # for actors, not yet sent

    def orders_for(self, trial: TuneTrial) -> list[Any]:
        """Returns what the actor of a trial is to do before it trains on, and takes it as sent."""
        return self._orders.pop(trial, [])

    def started(self, trial: TuneTrial) -> None:
        """A trial has got an actor."""
        self._orders.pop(trial, None)  # for the process that it had before
        self._perform(self._driver.started(number_of(trial)))

    def tick(self) -> None:
        """Time has passed."""
        self._perform(self._driver.tick())

    def interrupt(self) -> None:
        """The sweep is to be paused."""
        self._perform(self._driver.interrupt())

    def lost(self, trial: TuneTrial, error: Exception) -> bool:
        """The actor of a trial is gone, or raised; tells whether the trial is to be restarted."""
        number = number_of(trial)
        if not self._driver.runs(number):
            return False
        orders = self._driver.lost(number, self._kind(number, error), without_colours(error))
        restarts = Release(number) in orders
        self._perform(order for order in orders if order != Release(number))
        return restarts

    def on_trial_result(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> str:
        """Tune has a result that is not the last."""
        return self._receive(trial, result["message"])

    def on_trial_complete(self, tune_controller: Any, trial: TuneTrial, result: dict[str, Any]) -> None:
        """Tune has the last result of a trial."""
        if self._driver.runs(number_of(trial)):
            self._receive(trial, result["message"])

    def _receive(self, trial: TuneTrial, message: Message) -> str:
        """Gives the driver a message; returns what Tune is to do with the trial."""
        number = number_of(trial)
        orders = self._driver.receive(message)
        self._perform(orders)
        decision: str = TrialScheduler.CONTINUE
        if Release(number) in orders:
            decision = TrialScheduler.NOOP
        elif not self._driver.runs(number):
            decision = TrialScheduler.STOP
        return decision

    def _perform(self, orders: Iterable[Order]) -> None:
        for order in orders:
            trial = self._trials[order.trial]
            if isinstance(order, Kill) and order.with_worker:
                ray.kill(actor_of(trial))
            elif isinstance(order, (RequestStop, Kill)):
                self._orders[trial].append(order)
            elif trial.status == TuneTrial.RUNNING:
                self.controller.pause_trial(trial, should_checkpoint=False)
            else:  # it never got an actor
                self.controller.stop_trial(trial)

    def _kind(self, number: int, error: Exception) -> FailureKind:
        """Tells whose fault it was that an actor is gone."""
        if not isinstance(error, RayActorError):
            return "lost"  # it raised: its machine may be short of memory or processes
        if getattr(error, "preempted", False):
            return "preempted"
        node = self._driver.node_of(number)
        there = not node or any(known["NodeID"] == node and _answers(known) for known in ray.nodes())
        return "lost" if there else "node_lost"

    def choose_trial_to_run(self, tune_controller: Any) -> TuneTrial | None:
        """Leaves it to Tune, which starts trials in the order in which the driver gave them."""
        return None

    def on_trial_add(self, tune_controller: Any, trial: TuneTrial) -> None:
        """The driver added it itself."""

    def on_trial_error(self, tune_controller: Any, trial: TuneTrial) -> None:
        """The driver knows."""

    def on_trial_remove(self, tune_controller: Any, trial: TuneTrial) -> None:
        """The driver added it itself."""

    def debug_string(self) -> str:
        """Returns a line for Tune's own output, which is not shown."""
        return "xaytune"


def actor_of(trial: TuneTrial) -> ActorHandle[Any]:
    """Returns the actor of a trial that runs."""
    actor = trial.temporary_state.ray_actor
    if actor is None:
        raise RuntimeError(f"{trial} has no actor")
    return actor


def _answers(node: Mapping[str, Any]) -> bool:
    """Whether a node is there; Ray itself notices only after several seconds that one is not."""
    if not node["Alive"]:
        return False
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), timeout=2).close()
    except OSError:
        return False
    return True
