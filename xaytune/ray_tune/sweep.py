"""Sweeps from Python."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from xaytune.driver.recorder import Listener
from xaytune.errors import Problem, SpecError
from xaytune.ray_tune.from_ray import scheduler_from_ray, space_from_ray
from xaytune.ray_tune.running import resume_sweep, run_sweep
from xaytune.ray_tune.session import RaySession
from xaytune.records.naming import name_after
from xaytune.records.results import Results
from xaytune.records.sweep_folder import DEFAULT_STORAGE, find_sweep
from xaytune.sweep.command import Command
from xaytune.sweep.loader import load_spec
from xaytune.sweep.options import reference_name
from xaytune.sweep.spec import SweepSpec

logger = logging.getLogger(__name__)


class Sweep:
    """A sweep, written in Python; see :class:`xaytune.sweep.spec.SweepSpec` for what the options mean.

    Args:
        recipe: A function that takes ``(config, trial)`` and trains one configuration, or the
            ``"module:function"`` of one. It may return its TrainState, or the value of the metric.
        metric: Name of the metric to optimise.
        mode: Whether a ``"max"`` or a ``"min"`` is better.
        space: Domains as in a spec, ``{"lr": {"loguniform": [1e-4, 0.3]}}``, or Ray Tune's own objects. Choices
            may be a range or an array.
        command: Instead of a recipe, what starts a program: ``"python train.py --lr {lr}"``, or its words.
        search: A search algorithm, ``"tpe"``, or its options, ``{"algorithm": "tpe", "seed": 1}``.
        scheduler: A scheduler, ``"asha"``, or its options, ``{"algorithm": "asha", "max_t": 27}``; an object of a
            class of one's own; or one of Ray's that has an equal here.
        num_samples: Configurations to draw; -1 draws until the budget is spent.
        max_concurrent_trials: Trials that run at once; by default as many as there is capacity for.
        resources_per_trial: What each trial reserves; or several such bundles, the first for its own process.
        placement_strategy: How Ray places the bundles of a trial on nodes.
        setup: A function without arguments, or a reference to one, that runs once in the template process of each
            node; what it returns is ``trial.shared``.
        callbacks: Functions, or references to them, that are called with ``(trial, config)`` before the recipe.
        trackers: Experiment trackers in which each trial is a run: ``"tensorboard"``, ``"mlflow"``, ``"wandb"``,
            a class of one's own (:class:`xaytune.Tracker`), or an object of one that has options.
        tracker_timeout_s: Seconds to wait for each call of a tracker; after that the trial continues without it.
        points_to_evaluate: Configurations that are tried first.
        warm_start: Earlier sweeps whose best configurations are tried first.
        failures: ``{"retries": 3}``: how often a trial is restarted after its process was lost.
        budget: ``{"time": "2h", "epochs": 5000}``: when the sweep ends, though trials are left.
        checkpoint_config: ``{"num_to_keep": 10}``: how many of the best checkpoints are kept.
        fused: How many trials one process trains at once, by one program where their models have the same shape;
            ``"auto"`` finds out.
        stop_grace_s: Seconds that a trial has to end by itself after it was asked to stop.
        stall_timeout_s: Seconds without a step after which a trial's process is killed; by default it never is.
        others: Always refused: for a name of another library, the message tells the name here.

    Raises:
        SpecError: With everything that is wrong.
    """

    def __init__(
        self,
        recipe: Callable[..., Any] | str | None = None,
        *,
        metric: str,
        mode: Literal["max", "min"],
        space: Mapping[str, Any],
        command: str | Sequence[str] | None = None,
        search: Mapping[str, Any] | str | None = None,
        scheduler: Any = None,
        num_samples: int = 1,
        max_concurrent_trials: int | None = None,
        resources_per_trial: Mapping[str, float] | Sequence[Mapping[str, float]] | None = None,
        placement_strategy: str | None = None,
        setup: Callable[[], Any] | str | None = None,
        callbacks: Sequence[Callable[..., Any] | str] | Callable[..., Any] | str = (),
        trackers: Sequence[Any] | Any = (),
        tracker_timeout_s: float | None = None,
        points_to_evaluate: Sequence[Mapping[str, Any]] | None = None,
        warm_start: Sequence[str] | str = (),
        failures: Mapping[str, Any] | int | None = None,
        budget: Mapping[str, Any] | str | None = None,
        checkpoint_config: Mapping[str, Any] | None = None,
        fused: int | Literal["auto"] | None = None,
        stop_grace_s: float | None = None,
        stall_timeout_s: float | None = None,
        **others: Any,
    ) -> None:
        options = {name: value for name, value in locals().items() if name not in ("self", "others")}
        options |= others
        options |= {"space": space_from_ray(space), "scheduler": scheduler_from_ray(scheduler, metric, mode)}
        # A number of numpy is as good as Python's own.
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in options.items()}
        self.spec = SweepSpec.parse({name: value for name, value in plain.items() if value is not None})

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
        trains = self.spec.trains
        default = "command" if isinstance(trains, Command) else name_after(reference_name(trains))
        if not isinstance(storage, (str, os.PathLike)):
            raise SpecError([Problem(("storage",), f"must be a folder, or the URI of one (got {storage!r})")])
        with RaySession() as session:
            results = run_sweep(self.spec, str(storage), name, default, session, listener)
        return _told(results, listener)


def resume(
    sweep: Path | str,
    *,
    storage: Path | str = DEFAULT_STORAGE,
    overrides: Mapping[str, Any] | None = None,
    resume_errored: bool = False,
    listener: Listener | None = None,
) -> Results:
    """Resumes a sweep, whatever ended it, in the Ray that is initialised, or in one of its own.

    Args:
        sweep: Its folder (a path or a URI), or its name.
        storage: Folder that a name is looked for in.
        overrides: Options by dotted name, instead of the spec's: ``{"num_samples": 40, "budget.time": "2h"}``.
        resume_errored: Whether trials that failed resume, too: once what they failed for is mended.
        listener: Called with the state of the sweep and each event of its journal.

    Raises:
        JournalError: There is no such sweep, it is running, or its journal is damaged.
        SpecError: The sweep cannot run as specified.
        StorageError: The sweep's folder cannot be written any more.
    """
    sweep_folder = find_sweep(str(sweep), str(storage))
    with RaySession() as session:
        results = resume_sweep(sweep_folder, session, listener, overrides, resume_errored=resume_errored)
    return _told(results, listener)


def _told(results: Results, listener: Listener | None) -> Results:
    """Warns of a sweep that failed or was interrupted, where nobody listens to it."""
    sweep = results.sweep
    if listener is None and sweep.state == "failed":
        failed = next((trial for trial in results.trials if trial.status == "failed"), None)
        first = f"; trial {failed.number}: {failed.reason}" if failed is not None else ""
        logger.warning("the sweep %s failed: %s%s", sweep.name, sweep.reason, first)
    if listener is None and sweep.state == "interrupted":
        logger.warning("the sweep %s was interrupted: xaytune.resume(%r) continues it", sweep.name, sweep.address)
    return results
