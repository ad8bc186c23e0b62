"""Trying one configuration in this process: no Ray, no thread, nothing between the recipe and a debugger."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from xaytune.records.place import Place
from xaytune.search.searcher import Searcher
from xaytune.sweep.seeds import trial_seed
from xaytune.sweep.spec import SweepSpec
from xaytune.trainer.callbacks import TrainState
from xaytune.trial.messages import Assignment, DecisionPoints, Report, StopRequest, Task
from xaytune.trial.recipe import check_references
from xaytune.trial.runner import RecipeRun

__all__ = ["try_configuration"]


def try_configuration(
    spec: SweepSpec,
    values: Mapping[str, Any],
    on_start: Callable[[dict[str, Any]], None],
    on_epoch_end: Callable[[TrainState], None],
) -> Report:
    """Trains one configuration of a sweep to its end. Its checkpoints are not kept, and no tracker sees it.

    Args:
        spec: The sweep.
        values: Parameters by dotted name; those not given are drawn, as for the sweep's first trial.
        on_start: Called with the configuration.
        on_epoch_end: Called after each epoch.

    Returns:
        How it ended.

    Raises:
        SpecError: The space has no such parameter, or the recipe cannot be called.
    """
    check_references(spec.recipe, spec.callbacks, spec.trackers)
    fixed = spec.model_copy(update={"space": spec.space.fix(values)})
    suggestion = Searcher(fixed).ask()
    on_start(suggestion.config)
    with tempfile.TemporaryDirectory(prefix="xaytune-try-") as scratch:
        untracked = spec.model_copy(update={"trackers": []})
        task = Task.of(untracked, DecisionPoints("epoch", ()), Place(Path(scratch)), "", heartbeat_s=0)
        assignment = Assignment(0, trial_seed(spec.search.seed, 0), suggestion.config)
        run = RecipeRun(task, assignment, lambda report: _stop_diverged(run, report), lambda report: None)
        run.callbacks.on("epoch_end", last=True)(on_epoch_end)
        try:
            return run.train()
        except (Exception, SystemExit) as error:
            return run.failed(error)


def _stop_diverged(run: RecipeRun, report: Report) -> None:
    """There is no scheduler here: a metric that is not finite is all there is to decide on."""
    run.reporter.stop_request = StopRequest(f"diverged at epoch {report.epoch}")
