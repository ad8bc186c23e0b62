"""Sweeps from Python."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from xaytune.driver.recorder import Listener
from xaytune.ray_tune.ray_space import from_ray
from xaytune.ray_tune.running import resume_sweep, run_sweep
from xaytune.ray_tune.session import RaySession
from xaytune.records.place import DEFAULT_STORAGE, find_sweep
from xaytune.records.results import Results
from xaytune.sweep.loader import load_spec
from xaytune.sweep.spec import SweepSpec, reference_name

__all__ = ["Sweep", "resume"]


class Sweep:
    """A sweep, written in Python; see :class:`xaytune.sweep.spec.SweepSpec` for what the options mean.

    Args:
        recipe: Takes ``(config, trial)``, trains one configuration, and returns its TrainState; or the
            ``"module:function"`` of such a function.
        metric: Name of the metric to optimise.
        mode: Whether a ``"max"`` or a ``"min"`` is better.
        space: Domains as in a spec, ``{"lr": {"loguniform": [1e-4, 0.3]}}``, or Ray Tune's own objects.
        search: Options of the search, ``{"algorithm": "tpe", "seed": 1}``.
        scheduler: Options of the scheduler, ``{"algorithm": "asha", "max_t": 27}``.
        num_samples: Configurations to draw.
        max_concurrent_trials: Trials that run at once; by default as many as there is room for.
        resources_per_trial: What each trial reserves; or several such bundles, the first for its own process.
        placement_strategy: How Ray places the bundles of a trial on nodes.
        callbacks: Functions, or references to them, called once a trial with ``(trial, config)``.
        trackers: Experiment trackers in which each trial is a run: ``"tensorboard"``, ``"mlflow"``, ``"wandb"``.
        failures: ``{"retries": 3}``: times that a trial is begun again after it lost its process.
        budget: ``{"time": "2h", "epochs": 5000}``: when the sweep ends, though trials are left.
        checkpoint_config: ``{"num_to_keep": 10}``: how many of the best checkpoints are kept.
        stop_grace_s: Seconds that a trial has to end by itself after it was told to stop.
        stall_timeout_s: Seconds without a step after which a trial's process is ended.

    Raises:
        SpecError: With everything that is wrong.
    """

    def __init__(
        self,
        recipe: Callable[..., Any] | str,
        *,
        metric: str,
        mode: Literal["max", "min"],
        space: Mapping[str, Any],
        search: Mapping[str, Any] | None = None,
        scheduler: Mapping[str, Any] | None = None,
        num_samples: int = 1,
        max_concurrent_trials: int | None = None,
        resources_per_trial: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
        placement_strategy: str = "PACK",
        callbacks: Sequence[Callable[..., Any] | str] = (),
        trackers: Sequence[str] = (),
        failures: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | None = None,
        checkpoint_config: Mapping[str, Any] | None = None,
        stop_grace_s: float = 60,
        stall_timeout_s: float | None = None,
    ) -> None:
        self.spec = SweepSpec.parse(
            {
                "recipe": recipe,
                "metric": metric,
                "mode": mode,
                "space": from_ray(space),
                "search": dict(search or {"algorithm": "random"}),
                "scheduler": dict(scheduler or {"algorithm": "fifo"}),
                "num_samples": num_samples,
                "max_concurrent_trials": max_concurrent_trials,
                "resources_per_trial": resources_per_trial or {"cpu": 1},
                "placement_strategy": placement_strategy,
                "callbacks": list(callbacks),
                "trackers": list(trackers),
                "failures": dict(failures or {}),
                "budget": dict(budget or {}),
                "checkpoint_config": dict(checkpoint_config or {}),
                "stop_grace_s": stop_grace_s,
                "stall_timeout_s": stall_timeout_s,
            }
        )

    @classmethod
    def from_yaml(cls, file: Path | str, overrides: Mapping[str, Any] | None = None) -> Sweep:
        """Reads a sweep from a YAML file.

        Args:
            file: The file.
            overrides: Values by dotted path, which replace those of the file.

        Raises:
            SpecError: With everything that is wrong, each with its line.
        """
        sweep = cls.__new__(cls)
        sweep.spec = load_spec(file, overrides)
        return sweep

    def run(
        self, *, name: str | None = None, storage: Path | str = DEFAULT_STORAGE, listener: Listener | None = None
    ) -> Results:
        """Runs the sweep to its end, in the Ray that is initialised, or in one of its own.

        Args:
            name: Name of its folder; by default the recipe's, with a number if there is such a folder.
            storage: Folder that the sweep's folder is made in, a path or a URI.
            listener: Called with the state of the sweep and each event of its journal.

        Raises:
            SpecError: The sweep cannot run as specified, or there is a sweep of that name.
        """
        default = reference_name(self.spec.recipe).partition(":")[2].replace(".<locals>", "")
        with RaySession() as session:
            return run_sweep(self.spec, str(storage), name, default, session, listener)


def resume(
    sweep: Path | str,
    *,
    storage: Path | str = DEFAULT_STORAGE,
    overrides: Mapping[str, Any] | None = None,
    listener: Listener | None = None,
) -> Results:
    """Goes on with a sweep, whatever ended it, in the Ray that is initialised, or in one of its own.

    Args:
        sweep: Its folder (a path or a URI), or its name.
        storage: Folder that a name is looked for in.
        overrides: Options by dotted name, instead of the spec's: ``{"num_samples": 40, "budget.time": "2h"}``.
        listener: Called with the state of the sweep and each event of its journal.

    Raises:
        JournalError: There is no such sweep, it is running, or its journal is damaged.
        SpecError: The sweep cannot run as specified.
        StorageError: The sweep's folder cannot be written any more.
    """
    place = find_sweep(str(sweep), str(storage))
    with RaySession() as session:
        return resume_sweep(place, session, listener, overrides)
