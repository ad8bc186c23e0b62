"""Ray Tune's controller, driven by the driver: it gives trials their actors, and carries messages and orders."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.tune import Callback, PlacementGroupFactory, Trainable
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.registry import register_trainable
from ray.tune.search import SearchAlgorithm

from xaytune.driver.driver import Driver
from xaytune.driver.failures import ALONE
from xaytune.errors import SessionError
from xaytune.messages import Assignment, Task
from xaytune.ray_tune.actor import TrialActor
from xaytune.ray_tune.bridge import Bridge
from xaytune.ray_tune.compat import ENV_VARS_TO_PROPAGATE, StorageContext, TuneController
from xaytune.ray_tune.node_actor import NodeActor, actor_for
from xaytune.ray_tune.process_settings import environment, log_level
from xaytune.ray_tune.slot_actor import SlotActor
from xaytune.ray_tune.slots import SlotBridge, Slots

_TRAINABLE = "xaytune"
_ENVIRONMENT = {
    # Else Tune would restart a preempted trial by itself, and we would not know.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    # Results carry no metric at their top: the driver finds them in the message.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
}


class RestartableTuneTrial(TuneTrial):
    """A trial of Tune, which is restarted where the driver says so.

    Attributes:
        restarts: Whether it is to be restarted after its failure.
    """

    restarts = False

    def get_trainable_cls(self) -> type[Trainable]:
        """Returns a class that reserves nothing; Tune would ask Ray for it, and unpickle it, for every trial."""
        return Trainable

    def set_ray_actor(self, ray_actor: Any) -> None:
        """Takes note of the trial's actor; Tune would ask it for metrics that a trainable has."""
        self.temporary_state.ray_actor = ray_actor

    def should_recover(self) -> bool:
        """Tells whether the trial is to be restarted."""
        return self.restarts


class _NoSearch(SearchAlgorithm):
    """What Tune asks whether more trials will come: the driver says what to start, not Tune's search."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver

    def is_finished(self) -> bool:
        return self._driver.closed

    def next_trial(self) -> None:
        return None


class _Controller(TuneController):
    """Tune's controller, which leaves it to the driver what is started, and what follows from a failure."""

    driver: Driver
    bridge: Bridge
    actors: Any  # the class of a trial's actor
    capacity: Callable[[], int]  # trials that may run at once
    tune_trials: dict[int, RestartableTuneTrial]  # by number
    resources: PlacementGroupFactory  # of a trial
    scratch: StorageContext

    def _wrapped(self) -> Any:
        return self

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Keeps nothing: the journal is what a sweep is rebuilt from."""

    def _maybe_update_trial_queue(self) -> None:
        """Queues the trials that the driver wants started, as many as there is capacity for."""
        while self.driver.running < self.capacity() and (assignment := self.driver.next()) is not None:
            trial = self._trial_of(assignment)
            if trial.status == TuneTrial.PAUSED:
                self._set_trial_status(trial, TuneTrial.PENDING)
            else:
                self.add_trial(trial)

    def _trial_of(self, assignment: Assignment) -> RestartableTuneTrial:
        """Returns Tune's trial for an assignment: a new one, or the one that it paused."""
        config, number = {"assignment": assignment}, assignment.trial
        if number in self.tune_trials:
            self.tune_trials[number].set_config(config)  # type: ignore[no-untyped-call]
        else:
            self.tune_trials[number] = self._new_trial(f"trial-{number:05d}", config)
        return self.tune_trials[number]

    def _new_trial(self, name: str, config: dict[str, Any]) -> RestartableTuneTrial:
        return RestartableTuneTrial(
            _TRAINABLE,
            trial_id=name,
            config=config,
            storage=self.scratch,
            placement_group_factory=self.resources,
            trial_name_creator=lambda trial: name,
            trial_dirname_creator=lambda trial: name,
        )

    def _maybe_add_actors(self) -> None:
        # All that are queued may get a process: they are no more than there is capacity for.
        self._max_pending_trials = self._actor_manager.num_pending_actors + self.capacity()
        super()._maybe_add_actors()

    def _schedule_trial_actor(self, trial: Any) -> None:
        """Gives a trial an actor. Tune's own would make it a trainable of its, with all that this imports."""
        if self._maybe_reuse_cached_actor(trial):
            return
        actor = self._actor_manager.add_actor(
            cls=self.actors,
            resource_request=trial.placement_group_factory,
            kwargs=dict(trial.config),
            on_start=self._actor_started,
            on_stop=self._actor_stopped,
            on_error=self._actor_failed,
        )
        self._trial_to_actor[trial] = actor
        self._actor_to_trial[actor] = trial

    def _schedule_trial_reset(self, trial: Any, new_config: dict[str, Any], new_experiment_tag: str) -> None:
        self._resetting_trials.add(trial)
        self._schedule_trial_task(
            trial=trial,
            method_name="reset",
            args=(new_config.get("assignment"),),
            on_result=self._on_trial_reset,
            on_error=self._trial_task_failure,
        )

    def _schedule_trial_train(self, trial: Any) -> None:
        """Has a trial train on, and tells its actor what it is to do first."""
        self._schedule_trial_task(
            trial=trial,
            method_name="train",
            args=(self.bridge.orders_for(trial),),
            on_result=self._on_training_result,
            on_error=self._trial_task_failure,
        )

    def _trial_task_failure(self, trial: Any, exception: Any) -> None:
        # Tune's own would raise it, as everything else is that goes wrong in the driver.
        self._process_trial_failure(trial, exception)

    def _process_trial_failure(self, trial: Any, exception: Any) -> None:
        self._resetting_trials.discard(trial)
        if trial.status == TuneTrial.PENDING and isinstance(exception, RayActorError):
            return  # Tune tells twice of a process that was lost while it was made ready
        trial.restarts = self.bridge.lost(trial, exception)
        trial.init_local_path()  # where Tune writes the error
        super()._process_trial_failure(trial, exception)
        # Else Tune would end the sweep.
        self._has_errored = False
        if trial.restarts:  # when the driver says so
            self._set_trial_status(trial, TuneTrial.PAUSED)


class _SlotController(_Controller):
    """The same, where a trial of Tune is a slot for several trials."""

    bridge: SlotBridge
    slots: Slots
    most: int  # trials that may be trained at once

    def new_slot(self) -> RestartableTuneTrial:
        """Returns a new slot, which is to get an actor."""
        number = len(self.get_trials())  # type: ignore[no-untyped-call]
        slot = self._new_trial(f"slot-{number:05d}", {})
        self.add_trial(slot)
        return slot

    def _schedule_trial_train(self, trial: Any) -> None:
        """Has the trials of a slot train on, with those that take the places of ended ones."""
        self._maybe_update_trial_queue()
        super()._schedule_trial_train(trial)

    def _maybe_update_trial_queue(self) -> None:
        """Gives the slots the trials that the driver wants started, as many as there is room for."""
        while True:
            while (given := self.slots.next_alone()) is not None:
                self.bridge.assign(*given)
            if self.driver.running >= self.most or not self.slots.has_room:
                return
            assignment = self.driver.next()
            if assignment is None:
                return
            if self.driver.state.trials[assignment.trial].failure in ALONE:
                self.slots.wait(assignment)
            else:
                self.bridge.assign(self.slots.place(assignment), assignment)


class _Pulse(Callback):
    """Tells the driver that Tune is about to handle its next event, and that a trial has got its actor."""

    def __init__(self, bridge: Bridge, interrupted: Callable[[], bool]) -> None:
        self._bridge, self._interrupted = bridge, interrupted

    def on_step_begin(self, iteration: int, trials: list[TuneTrial], **info: Any) -> None:
        if self._interrupted():
            self._bridge.interrupt()
        self._bridge.tick()

    def on_trial_start(self, iteration: int, trials: list[TuneTrial], trial: TuneTrial, **info: Any) -> None:
        self._bridge.started(trial)


def run_trials(
    driver: Driver,
    task: Task,
    resources: PlacementGroupFactory,
    capacity: Callable[[], int],
    width: int,
    most: int,
    check: Callable[[], None],
    interrupted: Callable[[], bool],
) -> None:
    """Runs the trials of a sweep until the driver has no more. Nothing of Tune's own is kept after that.

    Args:
        driver: The driver.
        task: What all trials share.
        resources: What each trial reserves.
        capacity: Returns how many trials may run at once; or how many processes of them.
        width: How many trials a process trains, until it says otherwise.
        most: How many trials may be trained at once.
        check: Raises SessionError where Ray cannot be used any more; called many times a second.
        interrupted: Tells whether the sweep is to be paused; asked many times a second.
    """
    with (
        environment(**_ENVIRONMENT),
        log_level(logging.CRITICAL, "ray.tune"),
        tempfile.TemporaryDirectory(prefix="xaytune-") as scratch,
    ):
        register_trainable(_TRAINABLE, Trainable, warn=False)  # a trial of Tune has the name of one
        fused, trials = width > 1, dict[int, RestartableTuneTrial]()
        slots = Slots(width, capacity, lambda: controller.new_slot())
        bridge = SlotBridge(driver, slots) if fused else Bridge(driver, trials)
        kind: Any = _SlotController if fused else _Controller
        storage = StorageContext(storage_path=scratch, experiment_dir_name="tune")
        controller: Any = kind(
            search_alg=_NoSearch(driver),
            scheduler=bridge,
            callbacks=[_Pulse(bridge, interrupted)],
            storage=storage,
            reuse_actors=True,
        )
        bridge.controller = controller
        controller.driver, controller.bridge, controller.capacity = driver, bridge, capacity
        controller.tune_trials, controller.resources, controller.scratch = trials, resources, storage
        controller.slots, controller.most = slots, most
        controller.actors = _remote(actor_for(task, SlotActor if fused else TrialActor))
        # What goes wrong in the driver, such as a full disk, is no failure of a trial.
        controller._fail_fast = TuneController.RAISE
        try:
            while not driver.finished and not controller.is_finished():
                check()
                controller.step()
        except (KeyboardInterrupt, SessionError):
            controller._actor_manager.cleanup()  # waits for no trial: none answers, or "at once" was asked for
            raise
        except Exception:
            controller.cleanup()
            raise
        controller.cleanup()


def _remote(kind: type[NodeActor]) -> Any:
    """Returns a class of actors of the processes that Ray has ready: none that is given an environment is."""
    handed_on = {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE if name in os.environ}
    options = {"runtime_env": {"env_vars": handed_on}} if handed_on else {"num_cpus": 0}
    return ray.remote(**options)(kind)
