"""Ray Tune's controller, run without what a sweep has no use for: its output, its loggers and its snapshots."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from types import TracebackType
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.train._internal.storage import StorageContext
from ray.tune import Callback, PlacementGroupFactory
from ray.tune.execution.class_cache import ENV_VARS_TO_PROPAGATE, _ActorClassCache
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment import Trial as TuneTrial
from ray.tune.registry import register_trainable
from ray.tune.schedulers import TrialScheduler
from ray.tune.search import SearchAlgorithm

from xaytune.ray_tune.trainable import TrialActor, trainable_for
from xaytune.trial.messages import Assignment, Task

__all__ = ["SweepTrial", "TuneRun"]

_TRAINABLE = "xaytune"
_ENVIRONMENT = {
    # Else Tune would restart a preempted trial by itself, and we would not know.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    # Results carry no metric at their top: the scheduler finds them in the report.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    # Never: the journal is what a sweep is rebuilt from.
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    # A decision must follow each result.
    "TUNE_RESULT_BUFFER_LENGTH": "1",
}


class SweepTrial(TuneTrial):
    """A trial of Tune.

    Attributes:
        trainable: What runs it.
        retry: Whether it is to be begun again after its failure.
        spoilt: Whether its process is not fit for another trial.
    """

    trainable: type[TrialActor]
    retry = False
    spoilt = False

    def get_trainable_cls(self) -> type[TrialActor]:
        """Returns what runs the trial; Tune would ask Ray for it, and unpickle it, for every trial."""
        return self.trainable

    def should_recover(self) -> bool:
        """Tells whether the trial is to be begun again."""
        return self.retry


class _Controller(TuneController):
    """Tune's controller, which leaves it to the scheduler what follows from a failure."""

    room: Callable[[], int]  # for how many trials at once
    ahead: Callable[[], int]  # trials that are made before there is room for them

    def may_stage(self, trial: TuneTrial) -> bool:
        """Tells whether there is room for a trial to be run, or it was made already."""
        under_way = len(self._running_trials) + len(self._staged_trials)
        return trial in self._staged_trials or under_way < self.room()

    def _wrapped(self) -> Any:
        return self

    def _maybe_update_trial_queue(self) -> None:
        self._max_pending_trials = self.ahead()
        super()._maybe_update_trial_queue()  # type: ignore[no-untyped-call]

    def _maybe_add_actors(self) -> None:
        # Paused trials do not count: the source of trials cannot hold this limit alone.
        free = self.room() - len(self._running_trials) - len(self._staged_trials)
        self._max_pending_trials = self._actor_manager.num_pending_actors + free
        super()._maybe_add_actors()

    def _trial_task_failure(self, trial: Any, exception: Any) -> None:
        # Tune's own would raise it, as everything else is that goes wrong in the driver.
        self._process_trial_failure(trial, exception)

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        trial.init_local_path()  # Tune forgets to, of a trial that gets a process before its turn
        return bool(super()._maybe_reuse_cached_actor(trial))

    def _maybe_cache_trial_actor(self, trial: Any) -> bool:
        return not trial.spoilt and bool(super()._maybe_cache_trial_actor(trial))

    def _process_trial_failure(self, trial: Any, exception: Any) -> None:
        self._resetting_trials.discard(trial)
        if trial.status == TuneTrial.PENDING and isinstance(exception, RayActorError):
            return  # Tune tells twice of a process that was lost while it was made ready
        scheduler: Any = self._scheduler_alg
        trial.retry = scheduler.retry(trial, exception)
        super()._process_trial_failure(trial, exception)
        # Else Tune would end the sweep.
        self._has_errored = False


class _ActorClasses(_ActorClassCache):
    """Makes actors of the processes that Ray has ready: none that is given an environment of its own is."""

    def get(self, trainable_cls: Any) -> Any:
        if trainable_cls not in self._cache:
            handed_on = {name: os.environ[name] for name in ENV_VARS_TO_PROPAGATE if name in os.environ}
            options = {"runtime_env": {"env_vars": handed_on}} if handed_on else {"num_cpus": 0}
            self._cache[trainable_cls] = ray.remote(**options)(trainable_cls)
        return self._cache[trainable_cls]


class TuneRun:
    """A context in which trials of one sweep can be made and run. Nothing of Tune's own is kept after it.

    Args:
        task: What all trials share.
        resources: What each trial reserves.
        room: Returns how many trials may be under way at once.
    """

    def __init__(self, task: Task, resources: PlacementGroupFactory, room: Callable[[], int]) -> None:
        self._task, self._resources, self._room = task, resources, room
        self._logger = logging.getLogger("ray.tune")

    def __enter__(self) -> TuneRun:
        """Silences Tune, and makes its scratch folder."""
        self._before, self._level = dict(os.environ), self._logger.level
        os.environ.update(_ENVIRONMENT)
        self._logger.setLevel(logging.CRITICAL)
        self._scratch = tempfile.TemporaryDirectory(prefix="xaytune-")
        self._storage = StorageContext(storage_path=self._scratch.name, experiment_dir_name="tune")
        trainable = trainable_for(self._task)
        register_trainable(_TRAINABLE, trainable, warn=False)
        self._trial: type[SweepTrial] = type("SweepTrial", (SweepTrial,), {"trainable": trainable})
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Puts everything back."""
        self._scratch.cleanup()
        self._logger.setLevel(self._level)
        os.environ.clear()
        os.environ.update(self._before)

    def make_trial(self, assignment: Assignment) -> SweepTrial:
        """Returns Tune's trial of an assignment."""
        name = f"trial-{assignment.number:05d}"
        return self._trial(
            _TRAINABLE,
            trial_id=name,
            config={"assignment": assignment},
            storage=self._storage,
            placement_group_factory=self._resources,
            trial_name_creator=lambda trial: name,
            trial_dirname_creator=lambda trial: name,
        )

    def run(
        self, source: SearchAlgorithm, scheduler: TrialScheduler, callback: Callback, ahead: Callable[[], int]
    ) -> None:
        """Runs the trials of a source until there are no more.

        Args:
            source: Gives the trials.
            scheduler: Decides on them.
            callback: Is told of them.
            ahead: Returns how many trials are made before there is room for them.
        """
        controller: Any = _Controller(
            search_alg=source,
            scheduler=scheduler,
            callbacks=[callback],
            storage=self._storage,
            reuse_actors=True,
        )
        controller.room = self._room
        controller.ahead = ahead
        controller._class_cache = _ActorClasses()  # type: ignore[no-untyped-call]
        # What goes wrong in the driver, such as a full disk, is no failure of a trial.
        controller._fail_fast = TuneController.RAISE
        try:
            while not controller.is_finished():
                controller.step()
        except Exception:
            controller.cleanup()
            raise
        except KeyboardInterrupt:
            controller._actor_manager.cleanup()  # waits for no trial: "at once" was asked for
            raise
        controller.cleanup()
